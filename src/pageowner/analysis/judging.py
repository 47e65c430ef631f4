"""What ``leaks`` says of what was watched: pages, or objects of slabs, each by its own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.analysis.object_leaks import leaks_of_objects
from pageowner.analysis.one_leak import joined
from pageowner.model.source_kinds import OBJECTS

if TYPE_CHECKING:
    import pyarrow as pa

    from pageowner.analysis.leaks import Watch

__all__ = ["judged", "judged_objects", "judged_pages"]

_LEAST, _LEAST_OF_OBJECTS = 1 << 20, 1 << 16
"""Bytes by which an owner must grow, unless told otherwise."""


def judged(watch: Watch, page_size: int, min_bytes: int | None = None) -> pa.Table:
    """The table of `Watch.leaks` of what was watched: of snapshots of objects (`Watch.meta`) in
    bytes, what is one leak as one row; of everything else in pages of ``page_size`` bytes. Owners
    that grew by less than ``min_bytes`` are left out (None: 1 MiB; of objects 64 KiB).

    Raises UsageError if there were too few looks.
    """
    if watch.meta is not None and watch.meta.kind == OBJECTS:
        return joined(judged_objects(watch, min_bytes, None))
    return judged_pages(watch, min_bytes, page_size)


def judged_pages(watch: Watch, min_bytes: int | None, page_size: int) -> pa.Table:
    """Of pages, as `judged`."""
    return watch.leaks(max((_LEAST if min_bytes is None else min_bytes) // page_size, 1))


def judged_objects(watch: Watch, min_bytes: int | None, pinned: int | None) -> pa.Table:
    """Of objects, as `judged`, but not yet joined; ``pinned``: see `leaks_of_objects`."""
    return leaks_of_objects(
        watch.leaks(max(_LEAST_OF_OBJECTS if min_bytes is None else min_bytes, 1)), pinned)
