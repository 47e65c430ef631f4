"""What /proc/kpageflags and /proc/kpagecgroup would say of each frame, out of its struct page.

fs/proc/page.c (stable_page_flags) of 6.1, 6.12 and 7.3. But here only merged pages are so (6.12 and
newer say it of each anonymous page), and no slab is anonymous (they say it by a word of its own).
Where a flag is in ``page->flags`` tells enum pageflags of the kernel's BTF, and types
`pageowner.kernel_memory.page_types`. Since 6.9 the flags of a tail are those of its head, but for a
few.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from pageowner.kernel.flag_bits import BITS, MAX_ORDER
from pageowner.kernel_memory.access import member, offset, version
from pageowner.kernel_memory.page_types import PageTypes, hugetlb_of_second
from pageowner.tracker.read.frames import Frames
from pageowner.vmcore.cgroups import Charges
from pageowner.vmcore.large_folios import LargeFolios
from pageowner.vmcore.sections import mem_maps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["VmcoreFrames"]

_COPIED = {
    "locked": ("PG_locked",), "error": ("PG_error",), "referenced": ("PG_referenced",),
    "uptodate": ("PG_uptodate",), "dirty": ("PG_dirty",), "lru": ("PG_lru",),
    "active": ("PG_active",), "slab": ("PG_slab",), "writeback": ("PG_writeback",),
    "reclaim": ("PG_reclaim",), "swapbacked": ("PG_swapbacked",),
    "unevictable": ("PG_unevictable",), "mlocked": ("PG_mlocked",), "hwpoison": ("PG_hwpoison",),
    "reserved": ("PG_reserved",), "owner_2": ("PG_owner_2", "PG_mappedtodisk"),
    "private": ("PG_private",), "private_2": ("PG_private_2",),
    "owner_private": ("PG_owner_priv_1",), "arch": ("PG_arch_1",), "arch_2": ("PG_arch_2",),
    "arch_3": ("PG_arch_3",), "idle": ("PG_idle",),
}
"""Bits of kpageflags that are copied from one of page->flags."""

_OF_WHOLE = ("slab", "huge")
"""Types that the first page has for all of its compound page."""
_ANON, _KSM = 1, 3
_SINCE_FOLIOS = (6, 9)
_CHUNK = 1 << 15
"""Frames that are read at once: a multiple of the largest free block. Huge pages of 1 GiB are
larger."""
_LARGEST = 24
"""The largest order of a compound page: 16 GiB in huge pages of powerpc, with pages of 4 KiB 22."""


class VmcoreFrames(Frames):
    """Flags and cgroups of the frames in a vmcore. ``missing``: how many frames have a struct page
    that is not in it; they count as absent."""

    def __init__(self, memory: Vmcore) -> None:
        """Raises PageownerError where the kernel's types lack what is needed."""
        super().__init__()
        self._memory, types = memory, memory.types
        self.missing = 0
        self.mem_maps = mem_maps(memory)
        self._size = self.mem_maps.size
        self._at = {name: offset(types, "page", *paths) for name, paths in (
            ("flags", ("flags",)), ("head", ("compound_info", "compound_head")),
            ("private", ("private",)), ("mapping", ("mapping",)),
            ("type", ("page_type", "_mapcount")), ("mapcount", ("_mapcount", "page_type")),
            ("refcount", ("_refcount",)))}
        charge = types.member("page", "memcg_data")
        self._charge_at = None if charge is None else charge.offset
        self._bits = self._copied_bits()
        self._types = PageTypes(types, version(memory), memory.info.numbers)
        self._is_hugetlb = (None if "huge" in self._types.has
                            else hugetlb_of_second(types, memory.info.numbers))
        self._head_bit = types.enumerator("pageflags", "PG_head")
        self._has_pointers = types.member("page", "compound_info") is None
        self._within_page = np.uint64(memory.page_size - 1)
        self._of_swap = [types.enumerator("pageflags", name)
                         for name in ("PG_swapcache", "PG_swapbacked")]
        self._large = LargeFolios(memory)
        self._whole_folios = version(memory) >= _SINCE_FOLIOS
        self.charges = Charges(memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @cached_property
    def max_order(self) -> int:
        """The largest order of the page allocator."""
        area = self._memory.types.size("free_area")
        place = member(self._memory.types, "zone", "free_area")
        return place.size // area - 1 if area else MAX_ORDER

    def ranges(self) -> list[tuple[int, int]]:
        """Frames (first, behind the last) that have a struct page."""
        return self.mem_maps.ranges

    def flags(self, first: int, count: int) -> NDArray[np.uint64]:
        """Bits of /proc/kpageflags of so many frames."""
        found = np.zeros(count, np.uint64)
        # A free block's first frame tells of all of it, and lies at a multiple of its size.
        begin = first >> self.max_order << self.max_order
        for start in range(begin, first + count, _CHUNK):
            stop = min(start + _CHUNK, first + count)
            words = self._flags(start, stop)
            low = max(start, first)
            found[low - first:stop - first] = words[low - start:]
        return found

    def _flags(self, first: int, stop: int) -> NDArray[np.uint64]:
        raw, there = self.mem_maps.read(first, stop)
        self.missing += int(np.count_nonzero(~there & self.mem_maps.known(first, stop)))
        before = self._before(raw, first)
        if len(before):
            raw = np.concatenate([before, raw])
            there = np.append(np.ones(len(before), bool), there)
        flags = self._word(raw, "flags")
        tail = self._word(raw, "head") & np.uint64(1) != 0
        tail[:-1] |= self._copies(raw[:-1], raw[1:],
                                  np.arange(first - len(before), stop - 1, dtype=np.uint64))
        head = flags >> np.uint64(self._head_bit or 0) & np.uint64(1) != 0
        if self._head_bit is None:
            head = np.append(tail[1:], False) & ~tail
        kind = self._half(raw, "type")
        # Of each frame the first one of its compound page; its own where that is not read.
        owner = np.maximum.accumulate(np.where(tail, 0, np.arange(len(raw))))
        source = flags[owner] if self._whole_folios else flags
        found = np.zeros(len(raw), np.uint64)
        for bit, place in self._bits:
            found |= (source >> np.uint64(place) & np.uint64(1)) << np.uint64(bit)
        for name in self._types.has:
            mine = self._types.are(name, kind)
            found[mine[owner] if name in _OF_WHOLE else mine] |= np.uint64(1 << BITS[name])
        self._hugetlb(found, raw, np.flatnonzero(head & ~tail), owner)
        cached = np.full(len(raw), None not in self._of_swap)
        for bit_of in self._of_swap:
            cached &= source >> np.uint64(bit_of or 0) & np.uint64(1) != 0
        found[cached] |= np.uint64(1 << BITS["swapcache"])
        self._mappings(found, raw, owner, kind)
        found[head & ~tail] |= np.uint64(1 << BITS["compound_head"])
        found[tail] |= np.uint64(1 << BITS["compound_tail"])
        self._large.add(found, raw, first - len(before), np.flatnonzero(head & ~tail), owner)
        self._free(found, raw)
        found[~there] = np.uint64(1 << BITS["nopage"])
        return found[len(before):]

    def _hugetlb(self, found: NDArray[np.uint64], raw: NDArray[np.uint8],
                 heads: NDArray[np.int64], owner: NDArray[np.int64]) -> None:
        """Huge pages of hugetlb where no type says so; compound pages begin at ``heads``."""
        heads = heads[heads + 1 < len(raw)]
        if self._is_hugetlb is not None and len(heads):
            mine = np.zeros(len(raw), bool)
            mine[heads] = self._is_hugetlb(raw[heads + 1])
            found[mine[owner]] |= np.uint64(1 << BITS["huge"])

    def _before(self, raw: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
        """The first two struct pages of the compound page that these frames begin inside of, which
        tell of all of it; none if they begin with one. It begins at a multiple of its size."""
        none = raw[:0]
        if not (self._word(raw[:1], "head")[0] & np.uint64(1)
                or self._copies(raw[:1], raw[1:2], np.array([first], np.uint64)).any()):
            return none
        starts = sorted({first >> order << order for order in range(1, _LARGEST + 1)} - {first},
                        reverse=True)
        pfns = np.array(starts, np.uint64)
        rows, there = self.mem_maps.read_some(pfns)
        following, _ = self.mem_maps.read_some(pfns + np.uint64(1))
        begins = np.flatnonzero(there & (self._word(rows, "head") & np.uint64(1) == 0)
                                & ~self._copies(rows, following, pfns))
        if not len(begins):
            return none
        start = starts[begins[0]]
        return self.mem_maps.read(start, min(start + 2, first))[0]

    def _copies(self, raw: NDArray[np.uint8], following: NDArray[np.uint8],
                pfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these struct pages are copies of the first one of a huge page of hugetlb.

        mm/hugetlb_vmemmap.c since 5.18: all pages of struct pages of a huge page may be one page,
        mapped again and again. The copy of the first says to be a first one, and the one behind
        it whose tail it is (include/linux/page-flags.h, page_fixed_fake_head). Kernels with
        ``compound_info`` have no such copies. ``following``: the one behind each; none is a copy
        where these are fewer.
        """
        found = np.zeros(len(raw), bool)
        if self._head_bit is None or not self._has_pointers or len(following) < len(raw):
            return found
        bit = np.uint64(1 << self._head_bit)
        at = np.flatnonzero((self._word(raw, "flags") & bit != 0)
                            & (pfns * np.uint64(self._size) & self._within_page == 0))
        behind = self._word(following, "head")[at]
        found[at] = (behind & np.uint64(1) != 0) & (
            behind - np.uint64(1) != self.mem_maps.addresses(pfns[at]))
        return found

    def _mappings(self, found: NDArray[np.uint64], raw: NDArray[np.uint8],
                  owner: NDArray[np.int64], kind: NDArray[np.uint32]) -> None:
        """Anonymous, merged and mapped pages; swap backed ones in the swap cache."""
        slab = found >> np.uint64(BITS["slab"]) & np.uint64(1) != 0
        mapping = self._word(raw, "mapping")[owner]
        anonymous = (mapping & np.uint64(_ANON) != 0) & ~slab
        # a movable page of a driver has bit 1 alone (PAGE_MAPPING_MOVABLE)
        found[anonymous] |= np.uint64(1 << BITS["anon"])
        found[anonymous & (mapping & np.uint64(_KSM) == _KSM)] |= np.uint64(1 << BITS["ksm"])
        mapped = (self._half(raw, "mapcount").astype(np.int32) >= 0) & ~slab
        found[mapped] |= np.uint64(1 << BITS["mmap"])

    def _free(self, found: NDArray[np.uint64], raw: NDArray[np.uint8]) -> None:
        """All frames of free blocks have the bit of the first."""
        buddy = np.uint64(1 << BITS["buddy"])
        heads = np.flatnonzero(found & buddy)
        order = np.minimum(self._word(raw, "private")[heads], np.uint64(self.max_order))
        edges = np.zeros(len(raw) + 1, np.int32)
        np.add.at(edges, heads, 1)
        np.add.at(edges, np.minimum(heads + (np.int64(1) << order.astype(np.int64)), len(raw)), -1)
        found[np.cumsum(edges[:-1]) > 0] |= buddy

    def cgroups(self, first: int, count: int) -> NDArray[np.uint64] | None:
        """The inode of the cgroup that each frame is charged to."""
        if self._charge_at is None:
            return None
        found = np.zeros(count, np.uint64)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            raw, _ = self.mem_maps.read(first + start, first + stop)
            charge = raw.view("<u8")[:, self._charge_at // 8]
            tail = self._word(raw, "head") & np.uint64(1) != 0
            found[start:stop] = self.charges.inodes(np.where(tail, np.uint64(0), charge))
        return found

    def look(self, pfns: NDArray[np.uint64]) -> tuple[
            NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint32]]:
        """Of these frames page->flags, the reference count (-1: not in it) and page_type."""
        raw, there = self.mem_maps.read_some(pfns)
        refcount = np.where(there, self._half(raw, "refcount").view("<i4"), -1).astype(np.int32)
        return self._word(raw, "flags"), refcount, self._half(raw, "type")

    def _copied_bits(self) -> list[tuple[int, int]]:
        found = []
        for name, flags in _COPIED.items():
            places = [place for flag in flags if (
                place := self._memory.types.enumerator("pageflags", flag)) is not None]
            if places:
                found.append((BITS[name], places[0]))
        return found

    def _word(self, raw: NDArray[np.uint8], name: str) -> NDArray[np.uint64]:
        column: NDArray[np.uint64] = raw.view("<u8")[:, self._at[name] // 8]
        return column

    def _half(self, raw: NDArray[np.uint8], name: str) -> NDArray[np.uint32]:
        column: NDArray[np.uint32] = np.ascontiguousarray(raw.view("<u4")[:, self._at[name] // 4])
        return column
