"""What page owner's records need of the struct page of their frames.

include/linux/page-flags.h and mm/internal.h of 4.18 to 7.3 (PageBuddy, buddy_order_unsafe): a free
block is marked by the type of its first frame's struct page
(`pageowner.kernel_memory.page_types`), and ``private`` is its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import member, offset, version
from pageowner.kernel_memory.page_types import PageTypes
from pageowner.kernel_memory.runs import copy_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["PageStructs", "Structs"]


@dataclass(frozen=True)
class Structs:
    """Of frames: whether they are in a free block (of frames that were read one by one: whether
    they begin one), flags, memcg_data (0 for tails, which have something else there)."""

    free: NDArray[np.bool_]
    flags: NDArray[np.uint64]
    charge: NDArray[np.uint64]


class PageStructs:
    """How the struct page of this kernel is laid out."""

    def __init__(self, memory: Memory) -> None:
        """Raises PageownerError where the types do not tell."""
        types = memory.types
        self._memory = memory
        size = types.size("page")
        if not size or size % 8:
            raise PageownerError("the kernel's types (BTF) do not have struct page")
        self.size = size
        self._buffer = np.zeros((0, size), np.uint8)
        self._flags = offset(types, "page", "flags")
        self._type = member(types, "page", "page_type", "_mapcount").offset
        self._private = offset(types, "page", "private")
        self._head = offset(types, "page", "compound_info", "compound_head")
        charge = types.member("page", "memcg_data")  # since 5.11, with CONFIG_MEMCG
        self._charge = None if charge is None else charge.offset
        self._types = PageTypes(types, version(memory))
        area, free = types.size("free_area"), types.member("zone", "free_area")
        self._orders = free.size // area if area and free else 11

    def read(self, pages: np.uint64, low: int, high: int) -> Structs:
        """Of the frames from ``low`` to below ``high``; ``pages``: the address that the struct page
        of frame 0 would have. What cannot be read has no flags."""
        if len(self._buffer) < high - low:
            self._buffer = np.empty((high - low, self.size), np.uint8)
        raw, _ = copy_run(self._memory, int(pages) + low * self.size, high - low, self.size,
                          self._buffer)
        heads = np.flatnonzero(self._is_buddy(raw))
        order = self._word(raw, self._private)[heads]
        # An order that is none is of a block that has just been taken: that frame alone is skipped.
        pages_of = np.where(order < self._orders,
                            np.int64(1) << np.minimum(order, 32).astype(np.int64), 1)
        edges = np.zeros(len(raw) + 1, np.int32)
        np.add.at(edges, heads, 1)
        np.add.at(edges, np.minimum(heads + pages_of, len(raw)), -1)
        return self._structs(raw, np.cumsum(edges[:-1]) > 0)

    def read_some(self, pages: np.uint64, pfn: NDArray[np.uint64]) -> Structs:
        """Of these frames."""
        raw, good = self._memory.copy(pages + pfn * np.uint64(self.size), self.size)
        return self._structs(raw, self._is_buddy(raw) | ~good)

    def _structs(self, raw: NDArray[np.uint8], free: NDArray[np.bool_]) -> Structs:
        if self._charge is None:
            charge = np.zeros(len(raw), np.uint64)
        else:
            tail = self._word(raw, self._head) & np.uint64(1) != 0
            charge = np.where(tail, np.uint64(0), self._word(raw, self._charge))
        return Structs(free, self._word(raw, self._flags).copy(), charge)

    def _is_buddy(self, raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return self._types.are("buddy", raw.view("<u4")[:, self._type // 4])

    def _word(self, raw: NDArray[np.uint8], at: int) -> NDArray[np.uint64]:
        column: NDArray[np.uint64] = raw.view("<u8")[:, at // 8]
        return column
