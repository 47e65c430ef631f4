"""The types of pageblocks, out of the bits that each piece of memory has of them.

mm/page_alloc.c (get_pfnblock_flags_mask, pfn_to_bitidx; get_pfnblock_migratetype since 6.17) and
include/linux/pageblock-flags.h of 5.9 to 7.3: four bits for each block, of which three are its
type; eight since 6.17, where one says that the block is isolated (PB_migrate_isolate). Before 5.9
the bits stood the other way round in their word, and are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel_memory.access import version
from pageowner.kernel_memory.name_tables import block_types

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory
    from pageowner.kernel_memory.sections import Pieces

__all__ = ["OLD", "BlockTypes", "pageblock_order"]

OLD = (5, 9)
_TYPE = 7
_NARROW, _WIDE = 4, 8
_NOT_KNOWN = 255
_HUGE = ("hugetlb_lock", "hugetlb_max_hstate", "transparent_hugepage_flags")
"""One of them is there with CONFIG_HUGETLB_PAGE or CONFIG_TRANSPARENT_HUGEPAGE."""


def pageblock_order(memory: Memory) -> int:
    """A pageblock is as large as a huge page where the kernel has those, which is what one table
    of page table entries maps, and at most as large as the largest free block
    (include/linux/pageblock-flags.h)."""
    types = memory.types
    area, free = types.size("free_area"), types.member("zone", "free_area")
    largest = free.size // area - 1 if area and free else 10
    if not any(memory.symbol(name) is not None for name in _HUGE):
        return largest
    return min(memory.page_size.bit_length() - 1 - 3, largest)


class BlockTypes:
    """The types of all pageblocks in these pieces of memory."""

    def __init__(self, memory: Memory, found: Pieces) -> None:
        self.order = pageblock_order(memory)
        self.why_none = ""
        self._types: NDArray[np.uint8] | None = None
        if (0, 0) < version(memory) < OLD:
            self.why_none = "Linux before 5.9 keeps them otherwise"
        elif not len(found.first) or not found.blocks.all():
            self.why_none = "this kernel does not keep them by memory section"
        else:
            self.names = block_types(memory)
            self._read(memory, found)

    def _read(self, memory: Memory, found: Pieces) -> None:
        isolated = memory.types.enumerator("pageblock_bits", "PB_migrate_isolate")
        wide = isolated is not None
        self._each = found.frames
        # By the number of the piece, so that none has to be looked for.
        number = found.first // np.uint64(found.frames)
        self._places = np.full(int(number[-1]) + 1, -1, np.int64)
        self._places[number.astype(np.int64)] = np.arange(len(number))
        blocks = max(found.frames >> self.order, 1)
        # One block of four bits, as sections of arm64 with pages of 64 KiB have, is in a byte too.
        raw, good = memory.copy(found.blocks, -(-blocks * (_WIDE if wide else _NARROW) // 8))
        if wide:
            kinds = raw & np.uint8(_TYPE)
            if "Isolate" in self.names:
                kinds[raw & np.uint8(1 << int(isolated or 0)) != 0] = self.names.index("Isolate")
        else:
            kinds = np.stack([raw & np.uint8(_TYPE), raw >> np.uint8(4) & np.uint8(_TYPE)], axis=2)
            kinds = kinds.reshape(len(raw), -1)
        kinds[~good] = _NOT_KNOWN
        kinds[kinds >= len(self.names)] = _NOT_KNOWN
        self._types = kinds

    def codes(self, pfn: NDArray[np.uint64]) -> NDArray[np.int32]:
        """For each frame, of one of the pieces, the place of its pageblock's type in ``names``; -1
        where it is not known."""
        if self._types is None:
            return np.full(len(pfn), -1, np.int32)
        piece = self._places[(pfn // np.uint64(self._each)).astype(np.int64)]
        within = (pfn & np.uint64(self._each - 1)) >> np.uint64(self.order)
        kinds = self._types[piece, within.astype(np.int64)].astype(np.int32)
        kinds[(kinds == _NOT_KNOWN) | (piece < 0)] = -1
        return kinds
