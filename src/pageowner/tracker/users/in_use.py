"""Which page frames are in use, as their flags tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import flag_bits, pageflags, procpages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel import zones

__all__ = ["PIECE", "blocks_in_use", "blocks_of"]

PIECE = 1 << 20
"""Frames at a time: no compound page of the page allocator reaches from one to the next."""

_NOT_IN_USE = np.uint64(flag_bits.mask("buddy", "nopage", "reserved", "offline", "hwpoison",
                                       "compound_tail"))


def blocks_in_use(ranges: list[tuple[int, int]], zone_map: zones.ZoneMap) -> tuple[
        NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint64]]:
    """Pages and compound pages that are not free or reserved, as far as flags tell: first frames,
    orders, flags. Frames at the ends of zones that the page allocator was not given are left out,
    as by `pageowner.kernel.pageflags.deferred`. Raises PageownerError if /proc/kpageflags cannot be
    read."""
    pfns, orders, words = ([np.zeros(0, kind)] for kind in (np.uint64, np.uint8, np.uint64))
    file = procpages.opened(procpages.KPAGEFLAGS)
    try:
        for first, end in _given(ranges, zone_map, file):
            for start in range(first // PIECE * PIECE, end, PIECE):
                low, high = max(start, first), min(start + PIECE, end)
                flags = pageflags.words(file, low, high - low)
                pfn, order, mine = blocks_of(flags, low)
                pfns.append(pfn)
                orders.append(order)
                words.append(mine)
    except OSError as error:
        raise procpages.failed(procpages.KPAGEFLAGS, error) from error
    finally:
        os.close(file)
    return np.concatenate(pfns), np.concatenate(orders), np.concatenate(words)


def blocks_of(flags: NDArray[np.uint64], first: int) -> tuple[
        NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint64]]:
    """The same of the frames from ``first`` on, which have these flags."""
    heads = np.flatnonzero(flags & _NOT_IN_USE == 0)
    order = pageflags.compound_order(flags)[heads]
    return (heads + first).astype(np.uint64), order.astype(np.uint8), flags[heads]


def _given(ranges: list[tuple[int, int]], zone_map: zones.ZoneMap, file: int
           ) -> list[tuple[int, int]]:
    """The ranges without the ends of zones that have no flags at all."""
    for zone in zone_map.zones:
        missing = min(zone.present - zone.managed, zone.spanned)
        start = max(zone.end_pfn - missing, zone.start_pfn)
        used = np.flatnonzero(pageflags.words(file, start, max(zone.end_pfn - start, 0)))
        low = start + int(used[-1]) + 1 if len(used) else start
        ranges = [part for first, end in ranges
                  for part in ((first, min(end, low)), (max(first, zone.end_pfn), end))
                  if part[0] < part[1]]
    return ranges
