"""Which owners keep slabs that are at most half full: ``pageowner slabs``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError, UsageError
from pageowner.model.metadata import of_some_tasks

if TYPE_CHECKING:
    from pageowner.analysis.sparse_slabs import Sparse
    from pageowner.model.metadata import Metadata

__all__ = ["Slabs", "slabs"]


@dataclass(frozen=True)
class Slabs:
    """``found``: see `pageowner.analysis.sparse_slabs.Sparse`; ``meta``: what is known about the
    capture of objects; ``page_size`` in bytes."""

    found: Sparse
    meta: Metadata
    page_size: int


def slabs() -> Slabs:
    """Which owners keep slabs of this machine that are at most half full.

    Raises UsageError if not all objects are tracked, PageownerError if tracking is off, the direct
    map is not known or this process lacks the rights.
    """
    from pageowner.analysis.sparse_slabs import sparse
    from pageowner.kernel.slabs import parse_slabinfo
    from pageowner.tracker.read.capture import capture
    from pageowner.tracker.read.capture_objects import capture_objects, direct_map
    from pageowner.tracker.read.maps import open_store
    from pageowner.tracker.read.objects import check_objects

    with open_store() as store:
        share = check_objects(store)
        if share > 1:
            raise UsageError(f"one object in {share} is followed, and what else a slab has is not"
                             " known; for that all must be: sudo pageowner off, then: sudo"
                             " pageowner on --objects 1")
        if of_some_tasks(store.facts["options"]):
            raise UsageError("what others have in a slab is not known where tracking is limited to"
                             " a process or a cgroup")
        direct_map(store)  # without it no object's page is known
        objects, pages = capture_objects(store), capture(store)
    try:
        text = Path("/proc/slabinfo").read_text(errors="backslashreplace")
    except OSError as error:
        raise PageownerError(f"/proc/slabinfo: cannot read: {error.strerror}") from error
    room = {cache.name: (cache.per_slab, cache.slab_pages) for cache in parse_slabinfo(text)}
    return Slabs(sparse(objects, pages, room), objects.meta, pages.meta.page_size)
