"""What /proc/kpageflags says of every page frame, in its bits (`flag_bits`).

Arrays are indexed by pfn: one uint64 for each page frame, from 0 to the highest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel.flag_bits import BITS, MAX_ORDER, names
from pageowner.kernel.procpages import (
    KPAGECGROUP,
    KPAGECOUNT,
    KPAGEFLAGS,
    failed,
    fill,
    opened,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.kernel.zones import Zone

__all__ = [
    "BITS",
    "KINDS",
    "KIND_NAMES",
    "KPAGECGROUP",
    "KPAGECOUNT",
    "KPAGEFLAGS",
    "MAX_ORDER",
    "bit",
    "compound_order",
    "deferred",
    "free_blocks",
    "is_free",
    "kind",
    "names",
    "read",
    "why_none",
    "words",
]

KINDS = (
    "kernel", "no page", "free", "reserved", "offline", "hwpoison", "zero page", "hugetlb",
    "page table", "slab", "ksm", "thp", "anonymous", "shared memory", "file", "deferred",
)
"""What a page frame is, by the index that `kind` gives.

- ``kernel`` carries no telling flag: memory of drivers, of vmalloc, kernel stacks, buffers; also
  free pages on the per-CPU lists, which no flag tells apart
- ``thp`` is a large folio of anonymous memory; ``shared memory`` is tmpfs and shmem; ``file`` the
  page cache, large folios included
- ``deferred`` frames exist, but the page allocator has not been given them (see `deferred`)
"""

KIND_NAMES = {"kernel": "other kernel memory", "page table": "page tables",
              "anonymous": "anonymous memory", "shared memory": "shared memory (tmpfs)",
              "file": "page cache", "thp": "huge pages (THP)", "hugetlb": "huge pages (hugetlb)"}
"""What memory of these `KINDS` is called; that of others by the kind itself."""

_KIND = {name: np.uint8(index) for index, name in enumerate(KINDS)}


def _mask(*wanted: str) -> np.uint64:
    return np.uint64(sum(1 << BITS[name] for name in wanted))


_TAIL = _mask("compound_tail")


def bit(name: str) -> np.uint64:
    """The mask of a flag by its name in `BITS`."""
    return np.uint64(1 << BITS[name])


def read(path: str = KPAGEFLAGS, start: int = 0, count: int | None = None) -> NDArray[np.uint64]:
    """One uint64 per page frame from one of the /proc/kpage* files.

    ``start`` is the first pfn and ``count`` the number of frames; None reads to the last one. The
    kernel gives what there is: a shorter array means that memory ends there. /proc/kpagecount
    holds how often each page is mapped, /proc/kpagecgroup the inode of its memory cgroup.

    Raises PageownerError if the file is missing or not readable.
    """
    file = opened(path)
    try:
        return _read_all(file, start, count)
    except OSError as error:
        raise failed(path, error) from error
    finally:
        os.close(file)


def why_none(flags: NDArray[np.uint64], over: int = 0) -> str:
    """Why these cannot be all flags of a machine, ``over`` bytes behind them; empty if they can."""
    if over:
        return "it does not have 8 bytes a page"
    if bool((flags >> np.uint64(max(BITS.values()) + 6)).any()):
        return "it has bits that no kernel sets"
    always = np.uint64(sum(int(bit(name)) for name in ("reserved", "nopage", "buddy")))
    if not bool((flags & always).any()):
        return "no page in it is free or reserved"
    return ""


def words(file: int, first: int, count: int) -> NDArray[np.uint64]:
    """The words of ``count`` frames of an open file; fewer where memory ends. Raises OSError."""
    found = np.empty(count, np.uint64)
    return found[:fill(file, first, found.data)]


def _read_all(file: int, start: int, count: int | None) -> NDArray[np.uint64]:
    if count is not None:
        return words(file, start, count)
    size = os.fstat(file).st_size // 8 - start  # 0 for files of /proc: their end shows by reading
    flags = np.empty(max(size, 1 << 20), np.uint64)
    done = 0
    while (done := done + fill(file, start + done, flags[done:].data)) == len(flags):
        flags = np.concatenate([flags, np.empty_like(flags)])
    return flags[:done].copy() if done < len(flags) // 2 else flags[:done]


def is_free(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which frames are in the buddy allocator's free lists.

    Every frame of a free block carries the flag, not only its head: stable_page_flags asks
    is_free_buddy_page for the others. Pages on per-CPU lists do not.
    """
    free: NDArray[np.bool_] = flags & bit("buddy") != 0
    return free


def kind(
    flags: NDArray[np.uint64],
    zones: Iterable[Zone] = (),
    ram: Iterable[tuple[int, int]] | None = None,
) -> NDArray[np.uint8]:
    """What each frame is, as indices into `KINDS`; the array must begin at a block's first page.

    Tails of compound pages are what their head is: before 6.9 the kernel gives them few flags of
    their own. With ``zones`` (of all frames, from pfn 0) `deferred` frames are told from the
    kernel's; with ``ram`` (see `pageowner.kernel.memory_ranges`) holes are too: kernels since
    6.14 or so give no flag at all for a frame that is not there, where older ones gave nopage.
    """
    result = np.zeros(len(flags), np.uint8)
    ksm_is_known = _ksm_is_known(flags)
    last_head = np.uint8(0)
    for start in range(0, len(flags), _BLOCK):
        part = flags[start:start + _BLOCK]
        if part.any():
            kinds = result[start:start + _BLOCK]
            _classify(part, kinds, last_head, ksm_is_known)
            heads = np.flatnonzero(part & _TAIL == 0)
            if len(heads):
                last_head = kinds[heads[-1]]
    for zone in zones:
        result[deferred(flags, zone)] = _KIND["deferred"]
    if ram is not None:
        behind = 0
        for first, end in [*sorted(ram), (len(flags), len(flags))]:
            hole = slice(behind, max(first, behind))
            result[hole][flags[hole] == 0] = _KIND["no page"]
            behind = max(end, behind)
    return result


_BLOCK = 1 << 15  # frames at a time: small enough for the cache


def _classify(flags: NDArray[np.uint64], result: NDArray[np.uint8], head: np.uint8,
              ksm_is_known: bool) -> None:
    """Fill in one part; ``head`` is what tails at its beginning belong to."""

    def has(*wanted: str) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = flags & _mask(*wanted) != 0
        return found

    anonymous = has("anon")
    not_anonymous = ~anonymous
    result[has("lru", "uptodate") & not_anonymous] = _KIND["file"]
    result[has("swapbacked") & not_anonymous] = _KIND["shared memory"]
    result[anonymous] = _KIND["anonymous"]
    result[anonymous & has("thp")] = _KIND["thp"]
    if ksm_is_known:
        result[has("ksm")] = _KIND["ksm"]
    for flag, name in (("slab", "slab"), ("pgtable", "page table"), ("huge", "hugetlb")):
        result[has(flag)] = _KIND[name]
    tail = has("compound_tail")
    if tail.any():
        # Each tail looks back to the frame before the run of tails that it is in.
        heads = np.where(tail, -1, np.arange(len(flags)))
        heads = np.maximum.accumulate(heads)[tail]
        result[tail] = np.where(heads >= 0, result[heads], head)
    rare = has("zero_page", "reserved", "hwpoison", "offline", "buddy", "nopage")
    if rare.any():
        result[has("reserved")] = _KIND["reserved"]
        result[has("zero_page")] = _KIND["zero page"]
        for flag, name in (("hwpoison", "hwpoison"), ("offline", "offline"), ("buddy", "free"),
                           ("nopage", "no page")):
            result[has(flag)] = _KIND[name]


def _ksm_is_known(flags: NDArray[np.uint64]) -> bool:
    """Whether the ksm flag means something here.

    Kernels around 6.12 test the two bits of PAGE_MAPPING_KSM for any instead of for both
    (stable_page_flags), so that every anonymous page is said to be merged.
    """
    return bool((flags & _mask("anon", "ksm") == _mask("anon")).any())


def deferred(flags: NDArray[np.uint64], zone: Zone) -> slice:
    """Frames at the end of a zone that were not handed to the page allocator yet.

    Kernels with deferred initialisation of struct page (mm/mm_init.c, first_deferred_pfn) hold the
    end of a zone back; stock ones finish that while booting, some kernels of virtual machines grow
    on demand. Such frames are present, not managed, and have no flag.
    """
    missing = min(zone.present - zone.managed, zone.spanned)
    end = min(zone.end_pfn, len(flags))
    start = max(zone.end_pfn - missing, zone.start_pfn)
    used = np.flatnonzero(flags[start:end])
    return slice(start + int(used[-1]) + 1 if len(used) else start, end)


def compound_order(flags: NDArray[np.uint64]) -> NDArray[np.int8]:
    """The order of the compound page that begins at each frame: 0 for a single page, -1 for a tail.

    The size is the run of tails after the head; a run that is no power of two (pages changed while
    the file was read) counts as the largest that fits.
    """
    tail = flags & _TAIL != 0
    order: NDArray[np.int8] = -tail.astype(np.int8)
    edges = np.flatnonzero(tail[1:] != tail[:-1]) + 1
    if len(tail) and tail[0]:
        edges = edges[1:]  # tails of a page that begins before
    edges = np.append(edges, len(tail)) if len(edges) % 2 else edges
    heads = edges[::2] - 1
    order[heads] = np.frexp((edges[1::2] - heads).astype(np.float64))[1] - 1
    return order


def free_blocks(
    flags: NDArray[np.uint64], max_order: int = MAX_ORDER, bounds: NDArray[np.uint64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Free blocks of the buddy allocator: (first pfn, order), by pfn.

    The flags give no orders, but free buddies always merge (mm/page_alloc.c, __free_one_page): a
    run of free frames can stand in the free lists in one way only, each block as large as its
    alignment and the run allow. Exceptions: a block that moved while the file was read, and blocks
    of ``max_order`` halves in pageblocks of isolated, CMA or high-atomic type. ``bounds`` are pfns
    that no block crosses (where zones begin).
    """
    free = is_free(flags)
    edges = np.flatnonzero(np.diff(free.astype(np.int8), prepend=0, append=0))
    first, last = edges[0::2].astype(np.int64), edges[1::2].astype(np.int64)
    if bounds is not None and len(bounds):
        cuts = np.unique(bounds.astype(np.int64))
        cuts = cuts[(cuts > 0) & (cuts < len(flags))]
        cuts = cuts[free[cuts] & free[cuts - 1]]
        first, last = np.sort(np.append(first, cuts)), np.sort(np.append(last, cuts))
    starts: list[NDArray[np.int64]] = []
    orders: list[NDArray[np.uint8]] = []

    def take(where: NDArray[np.bool_], order: int) -> None:
        starts.append(first[where])
        orders.append(np.full(len(starts[-1]), order, np.uint8))
        first[where] += 1 << order

    for order in range(max_order):  # up to an aligned start
        take((first >> order & 1 == 1) & (first + (1 << order) <= last), order)
    whole = np.maximum(last - first, 0) >> max_order
    index = np.repeat(np.arange(len(first)), whole)
    nth = np.arange(len(index)) - np.repeat(np.cumsum(whole) - whole, whole)
    starts.append(first[index] + (nth << max_order))
    orders.append(np.full(len(index), max_order, np.uint8))
    first += whole << max_order
    for order in reversed(range(max_order)):  # what is left at the end
        take(first + (1 << order) <= last, order)
    pfn, size = np.concatenate(starts), np.concatenate(orders)
    by_pfn = np.argsort(pfn, kind="stable")
    return pfn[by_pfn], size[by_pfn]
