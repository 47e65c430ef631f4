"""What uses all pages at a moment, for looks at a running tracker: by each block's first frame."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.kernel import memory_ranges, pageflags
from pageowner.model.page_users import FREED, NOBODY
from pageowner.tracker.users.find import find_users
from pageowner.tracker.users.in_use import blocks_in_use

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.kernel.zones import ZoneMap

__all__ = ["LiveUsers", "live_users"]


class LiveUsers(NamedTuple):
    """Blocks in use: first frames, rising, ``pages``, and of each a place in ``labels``; when it
    began to look for them (CLOCK_MONOTONIC, ns)."""

    pfn: NDArray[np.uint64]
    pages: NDArray[np.int64]
    codes: NDArray[np.int32]
    labels: list[str]
    began_ns: int

    def of(self, pfns: NDArray[np.int64], ts_ns: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The code of each frame that was allocated at ``ts_ns``: -1 for one that was not in use
        when users were looked for, or has been allocated since, perhaps to somebody else."""
        if not len(self.pfn):
            return np.full(len(pfns), NOBODY, np.int32)
        wanted = pfns.astype(np.uint64)
        place = np.maximum(np.searchsorted(self.pfn, wanted, "right") - 1, 0)
        inside = wanted - self.pfn[place] < self.pages[place].astype(np.uint64)
        inside &= ts_ns < np.uint64(self.began_ns)
        return np.where(inside, self.codes[place], NOBODY).astype(np.int32)

    def without(self, recorded: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
                ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Of the blocks that are not within the ``recorded`` ones (first frames, rising, and
        pages): the codes that occur, and pages and blocks of each."""
        first, pages = (np.concatenate([np.zeros(0, np.int64), *parts])
                        for parts in (zip(*recorded, strict=True) if recorded else ((), ())))
        mine = self.pfn.astype(np.int64)
        within = np.zeros(len(mine), bool)
        if len(first):
            place = np.searchsorted(first, mine, "right") - 1
            within = (place >= 0) & (mine < (first + pages)[np.maximum(place, 0)])
        codes = self.codes[~within]
        size = len(self.labels)
        summed = np.bincount(codes, self.pages[~within], size).astype(np.int64)
        blocks = np.bincount(codes, minlength=size).astype(np.int64)
        there = np.flatnonzero(blocks)
        return there.astype(np.int32), summed[there], blocks[there]


def live_users(zone_map: ZoneMap) -> LiveUsers:
    """What uses the pages now; what nobody is known to use is called by its flags. Raises
    PageownerError where memory may not be looked at."""
    began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    pfn, order, flags = blocks_in_use(memory_ranges.ram_ranges(), zone_map)
    found = find_users(pfn, order, flags)
    used = ~found.free & (found.codes != found.code(FREED))
    pfn, order, flags, codes = pfn[used], order[used], flags[used], found.codes[used]
    unknown = np.flatnonzero(codes == NOBODY)
    names = np.array([found.code(pageflags.KIND_NAMES.get(kind, kind))
                      for kind in pageflags.KINDS], np.int32)
    codes[unknown] = names[pageflags.kind(flags[unknown])]
    return LiveUsers(pfn, np.left_shift(1, order.astype(np.int64)), codes, found.labels, began)
