"""Who has some pages now: what `find` tells of all, without looking at most of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel import memory_ranges, zones
from pageowner.model.page_users import NOBODY
from pageowner.tracker.users.find import find_users, may_be_areas, of_slabs
from pageowner.tracker.users.in_use import blocks_in_use

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["users_of"]


def users_of(blocks: Sequence[tuple[int, int, int]]) -> tuple[list[str | None], dict[str, Any]]:
    """The user of each of these blocks: first frame, order, bits of /proc/kpageflags; None where
    nothing tells. And what could not be read: ``notes`` and ``counts``, as in a snapshot's
    metadata. Raises PageownerError where memory may not be looked at."""
    table = np.array(blocks, np.uint64).reshape(-1, 3)
    asked: NDArray[np.uint64] = table[:, 0]
    pfn, order, flags = asked, table[:, 1].astype(np.uint8), table[:, 2]
    if may_be_areas(flags):  # areas of vmalloc are found through slabs
        known = blocks_in_use(memory_ranges.ram_ranges(), zones.running())
        slabs = of_slabs(known[2])
        pfn = np.concatenate([pfn, known[0][slabs]])
        order = np.concatenate([order, known[1][slabs]])
        flags = np.concatenate([flags, known[2][slabs]])
    pfn, first = np.unique(pfn, return_index=True)
    found = find_users(pfn, order[first], flags[first])
    codes = found.codes[np.searchsorted(pfn, asked)]
    return ([None if code == NOBODY else found.labels[code] for code in codes.tolist()],
            {"notes": found.notes, "counts": found.counts})
