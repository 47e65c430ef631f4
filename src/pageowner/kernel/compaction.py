"""What compaction can move out of the way, and what it cannot.

From mm/compaction.c (isolate_migratepages_block, skip_isolation_on_order) and mm/page_alloc.c
(alloc_contig_pages, pfn_range_valid_contig) of 6.12:

- pages on an LRU list are moved: page cache, tmpfs, anonymous memory, mlocked pages too (unless
  vm.compact_unevictable_allowed is 0)
- pages of drivers that can move them themselves are (zsmalloc, balloons): single pages that were
  allocated with __GFP_MOVABLE. The same flag stands for user pages that are only on their way to
  an LRU list, in a batch of a CPU
- a folio of the wanted order or larger, or as large as a pageblock, is not: moving it takes such a
  block to gain one. Before 6.9 none of more than one page is. For more than the largest order of
  the page allocator whole ranges are emptied instead, and large folios are moved
- hugetlb pages are not moved, nor is a range with one of them emptied
- all else stays where it is: slab, page tables, stacks, buffers, what drivers took

What the flags of a page do not show is not known here: pages pinned for I/O, dirty pages of a file
system that cannot migrate them, pages under writeback. Compaction tries and fails on those.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import pageflags
from pageowner.kernel.release import version

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CAN", "CANNOT", "UNKNOWN", "at_order", "by_flags", "by_text", "cache_by_flags",
           "cache_by_text", "movability", "moves_large_folios", "outlives_tasks"]

_LARGE_SINCE = (6, 9)
CANNOT, CAN, UNKNOWN = range(3)
"""Whether a page can be moved; as uint8."""


def by_text(flags: str | None) -> bool | None:
    """Whether a page is on an LRU list, from its flags as a page_owner dump prints them; None if
    these are missing.

    Since 4.6: names in brackets, ``0x2003c(uptodate|lru|…)``. Before: one letter or space a flag,
    ``L`` for LRU (mm/page_owner.c, print_page_owner).
    """
    if flags is None:
        return None
    names = _names(flags)
    if names is not None:
        return "lru" in names
    return None if flags.startswith("0x") else "L" in flags


def _names(flags: str) -> list[str] | None:
    named = re.search(r"\((.*)\)", flags, re.DOTALL)
    return re.split(r"[|,]", named[1]) if named else None


def cache_by_text(flags: str | None) -> bool | None:
    """Whether a page is page cache that reclaim can drop, once it is written back: on an LRU list,
    not anonymous or of tmpfs, not mlocked. None if its flags have no names."""
    names = _names(flags or "")
    if names is None:
        return None
    return "lru" in names and not {"swapbacked", "unevictable", "mlocked"} & set(names)


def cache_by_flags(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """The same from the bits of /proc/kpageflags."""
    others = np.uint64(sum(int(pageflags.bit(name)) for name in (
        "swapbacked", "anon", "unevictable", "mlocked", "huge")))
    cache: NDArray[np.bool_] = (flags & pageflags.bit("lru") != 0) & (flags & others == 0)
    return cache


def outlives_tasks(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether a page stays when the task ends that allocated it, from the bits of
    /proc/kpageflags: page cache and tmpfs."""
    listed = flags & pageflags.bit("lru") != 0
    files: NDArray[np.bool_] = listed & (flags & pageflags.bit("anon") == 0)
    return files


def movability(order: NDArray[np.uint8], lru: NDArray[np.int8], movable: NDArray[np.int8],
               pageblock_order: int) -> NDArray[np.uint8]:
    """What each allocation is, apart from the wanted order; arrays of one length.

    ``lru``: whether it is on an LRU list, ``movable``: whether it was allocated with
    __GFP_MOVABLE; 1, 0, or -1 for unknown.
    """
    found = np.full(len(order), UNKNOWN, np.uint8)
    found[(lru == 0) & (movable == 0)] = CANNOT
    # As large as a pageblock and on no list: hugetlb, or taken as a range.
    large = order >= pageblock_order
    found[(movable == 1) & ~large] = CAN
    found[(movable == 1) & large & (lru == 0)] = CANNOT
    found[lru == 1] = CAN
    return found


def by_flags(flags: NDArray[np.uint64], known: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``known`` corrected by the bits of /proc/kpageflags of each allocation's first page.

    They decide where the allocation says nothing (early and untracked pages): on an LRU list or of
    a user's memory, it can be moved; slab and page tables cannot; a page without a telling flag
    stays unknown. And they tell hugetlb pages apart.
    """
    def has(*names: str) -> NDArray[np.bool_]:
        mask = np.uint64(sum(int(pageflags.bit(name)) for name in names))
        found: NDArray[np.bool_] = flags & mask != 0
        return found

    result = known.copy()
    lru = has("lru")
    result[lru] = CAN
    unsure = result == UNKNOWN
    result[unsure & has("anon", "swapbacked")] = CAN
    result[unsure & has("slab", "pgtable", "reserved", "offline", "hwpoison")] = CANNOT
    result[has("huge")] = CANNOT
    return result


def moves_large_folios(release: str | None) -> bool:
    """Whether compaction moves folios of more than one page for a block of the page allocator:
    since 6.9 (skip_isolation_on_order). Where the release is not known, that of a new kernel."""
    return version(release) == (0, 0) or version(release) >= _LARGE_SINCE


def at_order(known: NDArray[np.uint8], order: NDArray[np.uint8], wanted: int,
             pageblock_order: int, max_order: int, moves_large: bool = True) -> NDArray[np.uint8]:
    """``known`` (see `movability`) for who wants a block of order ``wanted``: folios that are too
    large are not moved for it. ``max_order``: the largest that the page allocator has;
    ``moves_large``: see `moves_large_folios`."""
    limit = wanted if wanted > max_order else min(wanted, pageblock_order) if moves_large else 1
    return np.where(order >= limit, np.uint8(CANNOT), known)
