"""Where the kernel has what it knows of each page frame: its struct page, its page_ext and the
types of pageblocks, by pieces of memory.

With SPARSEMEM a piece is a section. include/linux/mmzone.h of 6.1, 6.12 and 7.3 (struct
mem_section, __nr_to_section, sparse_encode_mem_map): ``mem_section`` is an array of pointers to
pages full of sections (SPARSEMEM_EXTREME, which all 64-bit distributions use) or the sections
themselves. ``section_mem_map`` is the struct page of frame 0, were the section's go on down to it,
and flags in its low bits. mm/page_ext.c (init_section_page_ext, page_ext_invalid): ``page_ext`` is
the entry of frame 0 in the same way; bit 0 marks it as being removed.

With FLATMEM a piece is a node; mm/page_ext.c (lookup_page_ext without CONFIG_SPARSEMEM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import member, offset, symbol, version, word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["Pieces", "page_ext_size", "pieces", "section_bits"]

_HAS_MEM_MAP = np.uint64(2)
"""SECTION_HAS_MEM_MAP."""
_INVALID = np.uint64(1)
"""PAGE_EXT_INVALID."""
_SECTION_BITS = {"x86_64": 27, "aarch64": 27, "riscv64": 27, "loongarch64": 29, "ppc64": 24,
                 "ppc64le": 24}
"""Of the bytes of a section, by machine: SECTION_SIZE_BITS of arch/*/include/asm/sparsemem.h, of
x86 and riscv the 64-bit ones, of arm64 with pages of 4 and 16 KiB since 5.12 (commit
f0b13ee23241)."""
_ARM64_64K = 29
"""arm64 with pages of 64 KiB."""
_ARM64_SINCE = (5, 12)
"""Before, it was 30, but vendors' kernels had 27 earlier."""
_MOST_PIECES = 1 << 22
"""Sections of 128 MiB in 512 TiB."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of memory that have page_ext, in order: their first frames and those behind their
    last; the addresses that the page_ext and the struct page of frame 0 would have, and of the bits
    of pageblocks (0: not known), one item each. ``frames``: of a whole piece, a power of two, at
    whose multiples pieces begin. ``without``: how many pieces with memory have no page_ext."""

    first: NDArray[np.uint64]
    end: NDArray[np.uint64]
    page_ext: NDArray[np.uint64]
    pages: NDArray[np.uint64]
    blocks: NDArray[np.uint64]
    frames: int
    without: int


def page_ext_size(memory: Memory) -> int:
    """Bytes of a page's entry: its page_ext and what all users of it keep (mm/page_ext.c,
    page_ext_size since 5.4; before, ``extra_mem`` beside the page_ext itself, get_entry_size).
    Raises PageownerError."""
    own = memory.types.size("page_ext") or 8
    address = memory.symbol("page_ext_size")
    size = (word(memory, address) if address is not None
            else own + word(memory, symbol(memory, "page_ext_size", "extra_mem")))
    if not own <= size <= 1 << 12 or size % 4:
        raise PageownerError(f"the kernel's page_ext entries have {size} bytes, as none has")
    return size


def section_bits(memory: Memory) -> int:
    """Of the number of frames in a section. Raises PageownerError where that is not known."""
    known = memory.section_size_bits
    bits = _SECTION_BITS.get(memory.machine) if known is None else known
    if known is None and memory.machine == "aarch64":
        if (0, 0) < version(memory) < _ARM64_SINCE:
            bits = None
        elif memory.page_size >= 1 << 16:
            bits = _ARM64_64K
    if bits is None:
        raise PageownerError("it is not known how large this kernel's sections of memory are"
                             f" (SECTION_SIZE_BITS of {memory.machine}, Linux {memory.release})")
    bits -= memory.page_size.bit_length() - 1
    if not 0 < bits < 32:
        raise PageownerError("its VMCOREINFO is damaged: SECTION_SIZE_BITS")
    return bits


def pieces(memory: Memory) -> Pieces:
    """All of them. Raises PageownerError where the kernel's structures do not fit."""
    highest = word(memory, symbol(memory, "max_pfn"))
    lowest = word(memory, symbol(memory, "min_low_pfn"))
    if memory.types.member("pglist_data", "node_page_ext"):
        return _nodes(memory, highest)
    found = _sections(memory, highest)
    # The kernel's own reader goes from one of these frames to the other.
    first = np.maximum(found.first, np.uint64(min(lowest, 1 << 52)))
    end = np.minimum(found.end, np.uint64(highest))
    return Pieces(first, np.maximum(end, first), found.page_ext, found.pages, found.blocks,
                  found.frames, found.without)


def _sections(memory: Memory, highest: int) -> Pieces:
    types, page = memory.types, memory.page_size
    size = types.size("mem_section")
    if not size or size > page:
        raise PageownerError("the kernel's types (BTF) do not have struct mem_section")
    bits = section_bits(memory)
    count = min(-(-highest // (1 << bits)), _MOST_PIECES)
    tables = _tables(memory, count, page // size, size)
    number = np.arange(len(tables), dtype=np.uint64)
    raw, good = memory.copy(tables, size)
    there = good & (tables != 0)

    def column(*names: str) -> NDArray[np.uint64]:
        at = offset(types, "mem_section", *names)
        return np.ascontiguousarray(raw[:, at:at + 8]).view("<u8").ravel()

    maps, page_ext = column("section_mem_map"), column("page_ext")
    there &= maps & _HAS_MEM_MAP != 0
    usable = there & (page_ext != 0) & (page_ext & _INVALID == 0)
    usage = types.member("mem_section", "usage")
    blocks = (column("usage") + np.uint64(offset(types, "mem_section_usage", "pageblock_flags"))
              if usage else column("pageblock_flags"))  # before 5.3
    first = number << np.uint64(bits)
    # No two have the same entries, but in damaged memory, where that would never end.
    entries = page_ext + first * np.uint64(page_ext_size(memory))
    usable[usable] = _first_of_each(entries[usable])
    return Pieces(first[usable], (first + np.uint64(1 << bits))[usable], page_ext[usable],
                  maps[usable] & ~np.uint64(page - 1), blocks[usable],
                  1 << bits, int((there & ~usable).sum()))


def _first_of_each(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    found = np.zeros(len(values), bool)
    found[np.unique(values, return_index=True)[1]] = True
    return found


def _tables(memory: Memory, count: int, each: int, size: int) -> NDArray[np.uint64]:
    """The addresses of the first ``count`` sections; 0 where there is none."""
    address = symbol(memory, "mem_section")
    number = np.arange(count, dtype=np.uint64)
    first = word(memory, address)
    if first & 31:  # flags of a section: these are the sections themselves
        return np.uint64(address) + number * np.uint64(size)
    roots = np.zeros(-(-count // each), np.uint64)
    if first:
        raw, good = memory.copy(
            np.uint64(first) + np.arange(len(roots), dtype=np.uint64) * np.uint64(8), 8)
        roots = np.where(good, raw.view("<u8").ravel(), np.uint64(0))
    root = roots[number // np.uint64(each)]
    return np.where(root != 0, root + number % np.uint64(each) * np.uint64(size), np.uint64(0))


def _nodes(memory: Memory, highest: int) -> Pieces:
    """The one node of a kernel with FLATMEM."""
    types = memory.types
    node = symbol(memory, "contig_page_data")

    def read(name: str) -> int:
        place = member(types, "pglist_data", name)
        return word(memory, node + place.offset, f"<u{place.size}")

    first, count = read("node_start_pfn"), read("node_spanned_pages")
    page_ext, pages = read("node_page_ext"), read("node_mem_map")
    if not page_ext or not pages:
        raise PageownerError("the kernel has no page_ext: it was not booted with page_owner=on")
    # MAX_ORDER_NR_PAGES: the array begins at a multiple of it
    area, free = types.size("free_area"), types.member("zone", "free_area")
    orders = free.size // area if area and free else 11
    begin = first >> (orders - 1) << (orders - 1)
    size = types.size("page") or 0
    mask = (1 << 64) - 1
    begins, ends, entries, structs, bits = (np.array([number & mask], np.uint64) for number in (
        first, min(first + count, highest), page_ext - begin * page_ext_size(memory),
        pages - first * size, 0))
    return Pieces(begins, ends, entries, structs, bits, frames=1, without=0)
