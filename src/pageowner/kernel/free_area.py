"""How fragmented the free memory of a zone is, from its free blocks by order.

The formulas are those of mm/vmstat.c of 6.12 (fill_contig_page_info, unusable_free_index,
__fragmentation_index), in thousandths, with the kernel's integer division. Where debugfs is
mounted, /sys/kernel/debug/extfrag shows the kernel's own results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel.pageflags import MAX_ORDER, free_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pageowner.kernel.zones import Zone

__all__ = ["NO_INDEX", "by_order", "fragmentation_index", "free_pages", "suitable",
           "unusable_index"]

NO_INDEX = -1000
"""The fragmentation index of an order of which a block is free: a request would not fail."""


def free_pages(counts: Sequence[int]) -> int:
    """Base pages in free blocks; ``counts[n]`` of them have order n."""
    return sum(number << order for order, number in enumerate(counts))


def suitable(counts: Sequence[int], order: int) -> int:
    """How many blocks of ``order`` could be taken from the free blocks as they lie."""
    return sum(number << (at - order) for at, number in enumerate(counts) if at >= order)


def unusable_index(counts: Sequence[int], order: int) -> int:
    """How much of the free memory is in blocks too small for ``order``, in thousandths.

    1000 where nothing is free: "no free memory is interpreted as all free memory is unusable".
    """
    pages = free_pages(counts)
    if not pages:
        return 1000
    return (pages - (suitable(counts, order) << order)) * 1000 // pages


def fragmentation_index(counts: Sequence[int], order: int) -> int:
    """Why a request of ``order`` would fail: towards 0 for lack of memory, towards 1000 for
    fragmentation; `NO_INDEX` if it would not fail, 0 where nothing is free."""
    blocks = sum(counts)
    if not blocks:
        return 0
    if suitable(counts, order):
        return NO_INDEX
    return 1000 - (1000 + free_pages(counts) * 1000 // (1 << order)) // blocks


def by_order(flags: NDArray[np.uint64], zones: Iterable[Zone],
             max_order: int = MAX_ORDER) -> dict[tuple[int, str], tuple[int, ...]]:
    """Free blocks of each order in each (node, zone), from the bits of /proc/kpageflags; as
    `pageowner.kernel.zones.parse_buddyinfo` gives them."""
    known = list(zones)
    edges = np.array([edge for zone in known for edge in (zone.start_pfn, zone.end_pfn)], np.uint64)
    first, orders = free_blocks(flags, max_order, edges)
    found = {}
    for zone in known:
        inside = (first >= zone.start_pfn) & (first < zone.end_pfn)
        counts = np.bincount(orders[inside], minlength=max_order + 1)
        found[zone.node, zone.name] = tuple(map(int, counts))
    return found
