"""Where the struct pages are, by memory sections (include/linux/mmzone.h of 6.0 to 7.3; see
`pageowner.kernel_memory.sections`, which has the same for frames with page_ext)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset, symbol, word
from pageowner.kernel_memory.sections import section_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["MemMaps", "mem_maps"]

_HAS_MEM_MAP = np.uint64(2)
"""SECTION_HAS_MEM_MAP."""
_MOST_SECTIONS = 1 << 22


@dataclass(frozen=True)
class MemMaps:
    """``maps``: for each section the address that the struct page of frame 0 would have, 0 where
    there is no memory; ``bits``: of a section's number of frames; ``usage``: where the bits of its
    pageblocks are; ``size``: of a struct page."""

    memory: Vmcore
    maps: NDArray[np.uint64]
    usage: NDArray[np.uint64]
    bits: int
    size: int

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Frames (first, behind the last) of sections with memory."""
        there = np.flatnonzero(np.diff((self.maps != 0).astype(np.int8), prepend=0, append=0))
        return [(int(a) << self.bits, int(b) << self.bits)
                for a, b in zip(there[::2], there[1::2], strict=True)]

    def known(self, first: int, stop: int) -> NDArray[np.bool_]:
        """Which of these frames have memory."""
        section = np.arange(first, stop) >> self.bits
        inside = section < len(self.maps)
        found: NDArray[np.bool_] = inside & (self.maps[np.where(inside, section, 0)] != 0)
        return found

    def read(self, first: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The struct pages of these frames, a row of bytes each, zeros for what is not there."""
        raw = np.zeros((stop - first, self.size), np.uint8)
        there = np.zeros(stop - first, bool)
        for section in range(first >> self.bits, (stop - 1 >> self.bits) + 1):
            if section >= len(self.maps) or not self.maps[section]:
                continue
            low, high = max(first, section << self.bits), min(stop, section + 1 << self.bits)
            address = int(self.maps[section]) + low * self.size
            part, whole = self.memory.fill(address % (1 << 64), (high - low) * self.size)
            raw[low - first:high - first] = part.reshape(-1, self.size)
            # A struct page that is not there has no flags at all, which zones and nodes have.
            there[low - first:high - first] = True if whole else raw[
                low - first:high - first].any(axis=1)
        return raw, there

    def addresses(self, pfns: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Where the struct pages of these frames are; of frames without, anywhere."""
        section = np.minimum(pfns >> np.uint64(self.bits), np.uint64(max(len(self.maps) - 1, 0)))
        found: NDArray[np.uint64] = self.maps[section.astype(np.int64)] + pfns * np.uint64(
            self.size)
        return found

    def read_some(self, pfns: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The same of frames in no order."""
        section = np.minimum(pfns >> np.uint64(self.bits), np.uint64(max(len(self.maps) - 1, 0)))
        base = self.maps[section.astype(np.int64)]
        raw, good = self.memory.copy(base + pfns * np.uint64(self.size), self.size)
        return raw, good & (base != 0)


def mem_maps(memory: Vmcore) -> MemMaps:
    """Of all sections. Raises PageownerError where the kernel's structures do not fit."""
    types, page = memory.types, memory.page_size
    size, page_struct = types.size("mem_section"), types.size("page")
    if not size or size > page or not page_struct or page_struct % 8:
        raise PageownerError("the kernel's types (BTF) do not have struct mem_section")
    bits = section_bits(memory)
    highest = word(memory, symbol(memory, "max_pfn"))
    count = min(-(-highest // (1 << bits)), _MOST_SECTIONS)
    each = page // size
    roots, _ = memory.fill(word(memory, symbol(memory, "mem_section")), -(-count // each) * 8)
    number = np.arange(count, dtype=np.uint64)
    root = roots.view("<u8")[(number // np.uint64(each)).astype(np.int64)]
    raw, good = memory.copy(root + number % np.uint64(each) * np.uint64(size), size)

    def column(*paths: str) -> NDArray[np.uint64]:
        at = offset(types, "mem_section", *paths)
        return np.ascontiguousarray(raw[:, at:at + 8]).view("<u8").ravel()

    maps = column("section_mem_map")
    there = good & (root != 0) & (maps & _HAS_MEM_MAP != 0)
    usage = column("usage") + np.uint64(offset(types, "mem_section_usage", "pageblock_flags"))
    zero = np.uint64(0)
    return MemMaps(memory, np.where(there, maps & ~np.uint64(page - 1), zero),
                   np.where(there, usage, zero), bits, page_struct)
