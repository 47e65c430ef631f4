"""Anonymous pages: the process that has each, or how many share it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import flag_bits, process_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pageowner.model.page_users import PageUsers
    from pageowner.tracker.users.pages import Pages

    Mapped = Callable[[int], NDArray[np.uint64] | None]
    """The page frames that a process maps; None where that is not known either."""

__all__ = ["give_anonymous"]

_SECONDS = 5.0
_ANON = np.uint64(flag_bits.mask("anon"))


def give_anonymous(found: PageUsers, pages: Pages, names: Mapping[int, str],
                   mapped: Mapped | None = None, in_proc: bool = True) -> None:
    """Give the anonymous pages to the processes ``names`` (comm by pid), each an address space of
    its own. ``mapped``: asked of those whose /proc/PID/pagemap is closed even to root, or that map
    too much to look through; of all if ``in_proc`` is False, since /proc has other numbers."""
    pids = sorted(names)
    until = time.monotonic() + _SECONDS
    owned = (process_pages.anonymous_pages(pids, seconds=_SECONDS) if in_proc else
             process_pages.ProcessPages(np.zeros(0, np.uint64), np.zeros(0, np.int32),
                                        unreadable=list(range(len(pids)))))
    found.count("late_processes", owned.late)
    pfn, process = [owned.pfn], [owned.process]
    for place in (*owned.unreadable, *owned.skipped):
        late = time.monotonic() > until
        frames = None if mapped is None or late else mapped(pids[place])
        if frames is None:
            found.count("late_processes" if late else "unreadable_processes", 1)
        else:
            # What many processes share is much in all: it is dropped before the next is asked.
            frames = frames[_anonymous(pages, frames)[1]]
            pfn.append(frames)
            process.append(np.full(len(frames), place, np.int32))
    _give(found, pages, [names[pid] for pid in pids], pids, np.concatenate(pfn),
          np.concatenate(process))


def _anonymous(pages: Pages, pfn: NDArray[np.uint64]) -> tuple[
        NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each frame's block, and whether it is anonymous."""
    place, inside = pages.places_of(pfn)
    inside &= pages.flags[place] & _ANON != 0 if len(pages.flags) else inside
    return place, inside


def _give(found: PageUsers, pages: Pages, comms: list[str], pids: list[int],
          pfn: NDArray[np.uint64], owner: NDArray[np.int32]) -> None:
    """``owner``: of each page a place among ``pids`` and their ``comms``."""
    place, inside = _anonymous(pages, pfn)
    pairs = np.unique(place[inside] * len(pids) + owner[inside])
    row, process = pairs // max(len(pids), 1), pairs % max(len(pids), 1)
    rows, first, sharing = np.unique(row, return_index=True, return_counts=True)
    if not len(rows):
        return
    distinct = sorted(set(comms))
    comm = np.array([distinct.index(name) for name in comms], np.int64)[process]
    least, most = np.minimum.reduceat(comm, first), np.maximum.reduceat(comm, first)
    alone = sharing == 1
    codes = np.zeros(len(rows), np.int32)
    of_process = np.array([found.code(f"process {pid} ({name})")
                           for pid, name in zip(pids, comms, strict=True)], np.int32)
    codes[alone] = of_process[process[first[alone]]]
    alike = np.where(least == most, least, -1)
    kinds, kind = np.unique(np.stack([sharing[~alone], alike[~alone]], 1), axis=0,
                            return_inverse=True)
    labels = np.array([found.code(f"shared by {number} processes"
                                  + (f" ({distinct[name]})" if name >= 0 else ""))
                       for number, name in kinds.tolist()], np.int32)
    if len(labels):
        codes[~alone] = labels[kind.ravel()]
    found.give(rows, codes)
