"""Who freed a page last: the tracker's free side, which `on --free` keeps.

It speaks for the block that began at a page. A page freed as a later part of a larger block has no
entry of that free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.tracker.read import decoding, reading
from pageowner.tracker.read.maps import FREED_WRITTEN
from pageowner.tracker.read.records import LastFree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Store

__all__ = ["LastFree", "last_frees", "times"]


def times(store: Store, pfns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """When the blocks that began at these page frames, in ascending order, were freed last; 0
    where that is not known."""
    found = np.zeros(len(pfns), np.uint64)
    for span in store.freed:
        low, high = np.searchsorted(
            pfns, np.array([span.first, span.first + len(span.records)], np.uint64))
        place = (pfns[low:high] - np.uint64(span.first)).astype(np.int64)
        found[low:high] = span.records["ts"][place]  # one word each
    found[found == FREED_WRITTEN] = 0
    return found


def last_frees(store: Store, pfns: Iterable[int]) -> dict[int, LastFree]:
    """For each page frame of which it is known. Raises PageownerError if the symbols cannot be
    read."""
    entries = {pfn: entry for pfn in pfns if (entry := _entry(store, pfn)) is not None}
    if not entries:
        return {}
    from pageowner.kernel import kallsyms

    def ids(name: str) -> NDArray[np.uint32]:
        return np.array([int(entry[name]) for entry in entries.values()], np.uint32)

    texts = decoding.stacks(store, kallsyms.load(), ids("stack_id"))
    found = {}
    for (pfn, entry), text, task in zip(entries.items(), texts,
                                        decoding.tasks(store, ids("task_id")), strict=True):
        comm, tgid, pid = task or (None, None, None)
        found[pfn] = LastFree(int(entry["ts"]), pid, tgid, comm, text)
    return found


def _entry(store: Store, pfn: int) -> Any:
    for span in store.freed:
        if span.first <= pfn < span.first + len(span.records):
            entry = reading.whole_freed_at(span.records, np.array([pfn - span.first]))[0]
            return entry if entry["ts"] not in (0, FREED_WRITTEN) else None
    return None
