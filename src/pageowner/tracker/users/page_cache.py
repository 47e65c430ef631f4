"""The files in the page cache, largest first, by their pages: a walk over all page structs, which
needs neither tracking nor page flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import memory_ranges
from pageowner.model.memory_facts import CachedFile, PageCache
from pageowner.tracker.users.files import Holders, Namer, read_files, same_files
from pageowner.tracker.users.layout import (
    CHUNK_BYTES,
    FILE_CHANGED,
    FILE_FAILED,
    FILE_NOT_OWN,
    NOT_KNOWN,
)
from pageowner.tracker.users.memory import KernelMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["file_pages", "page_cache_of", "read_page_cache"]

_SECONDS = 0.4
_NAMED = 1000
"""Files that get a name, of perhaps a million."""

_KERNEL = np.uint64(1 << 63)
_FIRST_TYPE, _LAST_TYPE = 0x80000000, 0xFFFFFF80
"""What page_type of a page with a type lies between; other pages have their mapcount there
(include/linux/page-flags.h, PAGE_TYPE_BASE, which is lowest in 6.11, and PAGE_MAPCOUNT_RESERVE).
"""

_IN_MEMORY = frozenset((b"tmpfs", b"ramfs", b"hugetlbfs", b"devtmpfs", b"bdev"))
_SUBSECTION = 512


def read_page_cache() -> PageCache:
    """The page cache of this machine without tmpfs and block devices. Raises PageownerError where
    the kernel's structures are not this user's to read."""
    with KernelMemory() as memory:
        return page_cache_of(memory, memory_ranges.ram_ranges(), lambda: Namer(Holders()))


def page_cache_of(memory: KernelMemory, ranges: list[tuple[int, int]],
                  namer: Callable[[], Namer], seconds: float = _SECONDS) -> PageCache:
    """The same of the page frames ``ranges`` (first, behind the last) of this memory, for so many
    seconds; ``namer`` is asked once files are known."""
    mappings, pages = _sums(memory, ranges)
    files = read_files(memory, mappings, seconds)
    again = memory.files(files.column("mapping"))
    state = again.column("state")
    sure = same_files(files, again) & (
        state & np.uint32(FILE_FAILED | FILE_NOT_OWN | FILE_CHANGED) == 0)
    sure &= ~np.array([kind in _IN_MEMORY for kind in again.kinds], bool)
    names_of, found = namer(), PageCache()
    found.complete = len(files) == len(mappings)
    places = names_of.places(again)
    names = names_of.names(again.first(_NAMED * 2))
    for at in np.flatnonzero(sure).tolist():
        cached = int(pages[at]) << memory.page_shift
        found.places[places[at]] = found.places.get(places[at], 0) + cached
        if at < len(names) and len(found.files) < _NAMED:
            found.files.append(CachedFile(names[at].removeprefix("file "), places[at], cached))
    return found


def file_pages(raw: NDArray[np.uint8], layout: dict[str, int]) -> tuple[
        NDArray[np.uint64], NDArray[np.int64]]:
    """The struct address_space of each page or block of pages of these page structs that belongs to
    a file, and its pages."""
    words = raw.view(np.uint64)
    mapping = words[:, layout["page_mapping"] // 8]
    kind = raw.view(np.uint32)[:, layout["page_type"] // 4]
    # A tail has its head's address + 1 where others have the pointers of a list.
    mine = ((mapping >= _KERNEL) & (mapping & np.uint64(3) == 0) & (words[:, 1] & np.uint64(1) == 0)
            & ((kind < _FIRST_TYPE) | (kind >= _LAST_TYPE)))
    if layout["flag_slab"] != NOT_KNOWN:
        mine &= words[:, 0] >> np.uint64(layout["flag_slab"]) & np.uint64(1) == 0
    places = np.flatnonzero(mine)
    pages = np.ones(len(places), np.int64)
    if layout["flag_head"] != NOT_KNOWN and layout["order_byte"] != NOT_KNOWN:
        large = words[places, 0] >> np.uint64(layout["flag_head"]) & np.uint64(1) != 0
        at = places[large] * raw.shape[1] + layout["order_byte"]
        flat = raw.reshape(-1)
        order = np.where(at < len(flat), flat[np.minimum(at, len(flat) - 1)], 0)
        pages[large] = np.left_shift(1, np.minimum(order, 20).astype(np.int64))
    return mapping[places], pages


def _sums(memory: KernelMemory, ranges: list[tuple[int, int]]) -> tuple[
        NDArray[np.uint64], NDArray[np.int64]]:
    """All mappings that have pages, and how many, the most first."""
    found, pages = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for raw in _structs(memory, ranges):
        mapping, number = file_pages(raw, memory.layout)
        found.append(mapping)
        pages.append(number)
    distinct, index = np.unique(np.concatenate(found), return_inverse=True)
    summed = np.bincount(index, np.concatenate(pages), len(distinct)).astype(np.int64)
    order = np.argsort(-summed, kind="stable")
    return distinct[order], summed[order]


def _structs(memory: KernelMemory, ranges: list[tuple[int, int]]
             ) -> Iterator[NDArray[np.uint8]]:
    """All page structs, some thousand at a time, without those of memory that is not there."""
    each = CHUNK_BYTES // memory.layout["page_size_of"] // _SUBSECTION * _SUBSECTION
    for first, end in ranges:
        for start in range(first // each * each, end, each):
            raw = memory.page_structs(start, each)
            if raw is not None:
                low, high = max(first - start, 0), min(end - start, each)
                yield raw[low:high]
                continue
            for part in range(start, min(start + each, end), _SUBSECTION):
                raw = memory.page_structs(part, _SUBSECTION)
                if raw is not None:
                    yield raw[max(first - part, 0):min(end - part, _SUBSECTION)]
