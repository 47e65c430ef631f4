"""Who freed a page last: the tracker's free side, which `on --free` keeps.

It speaks for the block that began at a page. A page freed as a later part of a larger block has no
entry of that free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel.task_names import to_text
from pageowner.tracker.read import reading
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
    from pageowner.tracker.read.capture import stack_texts

    table = store.stacks
    frames = np.zeros((len(entries), store.depth), np.uint64)
    for row, entry in zip(frames, entries.values(), strict=True):
        if 0 < entry["stack_id"] < len(table):
            stack = table[entry["stack_id"]]
            row[:stack["n"]] = stack["frames"][:stack["n"]]
    texts = stack_texts(kallsyms.load(), frames)
    return {pfn: LastFree(int(entry["ts"]), *_task(store, int(entry["task_id"])), text)
            for (pfn, entry), text in zip(entries.items(), texts, strict=True)}


def _entry(store: Store, pfn: int) -> Any:
    for span in store.freed:
        if span.first <= pfn < span.first + len(span.records):
            entry = reading.whole_freed_at(span.records, np.array([pfn - span.first]))[0]
            return entry if entry["ts"] not in (0, FREED_WRITTEN) else None
    return None


def _task(store: Store, number: int) -> tuple[int | None, int | None, str | None]:
    (task,), (known,) = reading.known_tasks(store.tasks, np.array([number], np.uint32))
    if not known:
        return None, None, None
    return int(task["pid"]), int(task["tgid"]), to_text(bytes(task["comm"]))
