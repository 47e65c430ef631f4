"""What a look at a running tracker finds: live blocks, one by one or counted by kind, and how
memory and the tracker stand. Between the looks that `tracker.read` takes and what is asked of
them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pageowner.model.schema import KEYS, LOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OBJECT_FIELDS", "OBJECT_KEYS", "TASK", "Health", "LiveBlocks", "Look", "seen"]

TASK = ("comm", "pid", "tid")
"""The keys that the field ``task`` tells, in this order."""

OBJECT_FIELDS = frozenset({"stack", "task", "gfp", "cache"})
"""The fields of a `Look` that objects have."""

OBJECT_KEYS = tuple(key for key in KEYS
                    if LOOKS.get(key) in OBJECT_FIELDS or key in ("migratetype", "state"))
"""The keys that objects have. Without a state they are owned."""


@dataclass(frozen=True)
class LiveBlocks:
    """The live blocks that have a record, one item a block, at ``time_ns`` (ns since boot).

    ``fields``: name to a place in the labels of each block, and the labels, None for unknown;
    ``stack`` has stacks as text, ``task`` what `TASK` names. ``pages``: base pages; ``ts``: when
    each was allocated, ns since boot. ``others``: base pages in use that have no record, by what
    they are.
    """

    time_ns: int
    fields: dict[str, tuple[NDArray[np.int32], list[Any]]]
    pages: NDArray[np.int64]
    ts: NDArray[np.uint64]
    others: dict[str, int]


@dataclass(frozen=True)
class Look:
    """The live blocks at ``time_ns`` (ns since boot), one item a kind.

    ``fields``: name to a place in the labels of each kind, and the labels, None for unknown;
    ``stack`` has stacks as text, ``task`` what `TASK` names, others what their key shows. ``pages``
    and ``blocks`` that live; ``born``: of these blocks, those allocated since the look before. Of a
    look with the field ``user`` the last ``unrecorded`` kinds are pages that have no record, of
    which nothing else is known.
    """

    time_ns: int
    fields: dict[str, tuple[NDArray[np.int32], list[Any]]]
    pages: NDArray[np.int64]
    blocks: NDArray[np.int64]
    born: NDArray[np.int64]
    unrecorded: int = field(default=0, kw_only=True)


@dataclass
class Health:
    """The state of memory and of the tracker.

    - ``pages``: base pages by state: ``owned``, ``early``, ``untracked``, ``free``, ``filtered``
      with a filter, and ``in_motion`` if a record changed at every reading
    - ``hooks``: attached ones, of ``all_hooks``
    - ``missed``: events that no program handled; ``lost``: for other reasons (the tracker's
      counters)
    - ``stale``: records of free pages, of those ``checked`` by page flags so far
    - ``memory``: bytes of kernel memory of the tracker
    - ``allocs``, ``frees``: blocks allocated and freed per second (`seen`)
    """

    pages: dict[str, int] = field(default_factory=dict)
    hooks: int = 0
    all_hooks: int = 0
    missed: int = 0
    lost: int = 0
    stale: int = 0
    checked: int = 0
    memory: int = 0
    allocs: float = 0.0
    frees: float = 0.0
    since_ns: int = 0


def seen(counters: Mapping[str, int]) -> tuple[int, int]:
    """How many blocks the tracker saw allocated, and how many freed, by its counters. Each page of
    a bulk allocation is a block, as it is when it is freed."""
    return (counters["allocs"] + counters["nested_allocs"] + counters["bulk"],
            counters["frees"] + counters["nested_frees"])
