"""Stacks of the kernel's stack depot by their handles.

lib/stackdepot.c of 4.18 to 7.3: a handle is a pool, the place in it in units of 16 bytes
(DEPOT_STACK_ALIGN), and bits of its users. How many bits each has, and what counts the pools from 0
or 1, the types tell (union handle_parts): ``slabindex`` until 6.2, ``pool_index``, and
``pool_index_plus_1`` since 6.9. The pools are in an array, ``stack_slabs`` until 6.2, then
``stack_pools``; where there is ``stack_max_pools`` (7.3), that is a pointer to the array. Each
record has its own handle, which is held against the one that led to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import member, offset, symbol, word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["DEPTH", "StackDepot"]

DEPTH = 64
"""Frames of the deepest stack that is read; page owner keeps 16 (PAGE_OWNER_STACK_DEPTH in
mm/page_owner.c), the depot 64 (CONFIG_STACKDEPOT_MAX_FRAMES, unless set otherwise)."""

_ALIGN = np.uint64(4)
"""DEPOT_STACK_ALIGN, STACK_ALLOC_ALIGN: handles have places in units of 2**4 bytes."""

_POOL_BYTES_SHIFT = 2
"""A pool is 2**2 pages (DEPOT_POOL_ORDER, STACK_ALLOC_ORDER)."""

_POOLS = 1 << 21
"""More than any number of bits for pools allows."""


class StackDepot:
    """The depot in this memory."""

    def __init__(self, memory: Memory) -> None:
        """Raises PageownerError where the kernel's types or symbols do not tell where it is."""
        types = memory.types
        self._memory = memory
        self._first = 0
        for name in ("slabindex", "pool_index", "pool_index_plus_1"):
            if (pool := types.member("handle_parts", name)) is not None:
                self._first = int(name.endswith("plus_1"))
                break
        else:
            raise PageownerError("the kernel's types (BTF) do not have the pool in handle_parts")
        place = member(types, "handle_parts", "offset")
        self._pool = np.uint64(pool.first_bit), np.uint64((1 << pool.bits) - 1)
        self._place = np.uint64(place.first_bit), np.uint64((1 << place.bits) - 1)
        if not pool.bits or not place.bits or pool.first_bit + pool.bits > 32:
            raise PageownerError("the kernel's types (BTF) do not have the bits of handle_parts")
        self._size_at = offset(types, "stack_record", "size")
        self._handle_at = offset(types, "stack_record", "handle")
        self._entries_at = offset(types, "stack_record", "entries")
        address = symbol(memory, "stack_pools", "stack_slabs")
        self._pools = word(memory, address) if memory.symbol("stack_max_pools") else address

    def stacks(self, handles: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """The addresses of each stack, innermost first, an array of the shape (handles, `DEPTH`)
        filled up with zeros, and which of them could be read: a stack that is not in memory, not
        of this handle, or longer than any, is none."""
        wide = handles.astype(np.uint64)
        number = (wide >> self._pool[0]) & self._pool[1]
        place = ((wide >> self._place[0]) & self._place[1]) << _ALIGN
        known = (number >= self._first) & (wide != 0) & (number < _POOLS)
        known &= place < np.uint64(self._memory.page_size << _POOL_BYTES_SHIFT)
        number = np.where(known, number - np.uint64(self._first), np.uint64(0))
        record = self._pool_addresses(number, known) + place
        head, good = self._copy(record, self._entries_at, known)
        size = np.ascontiguousarray(head[:, self._size_at:self._size_at + 4]).view("<u4").ravel()
        own = np.ascontiguousarray(head[:, self._handle_at:self._handle_at + 4]).view("<u4").ravel()
        # Users' bits in a handle are not the record's: the pool and the place are compared.
        mask = np.uint32(int(self._pool[1]) << int(self._pool[0])
                         | int(self._place[1]) << int(self._place[0]))
        known &= good & (own & mask == handles & mask) & (size <= DEPTH)
        found = np.zeros((len(handles), DEPTH), np.uint64)
        for depth in np.unique(size[known]).tolist():
            mine = np.flatnonzero(known & (size == depth))
            if not depth:
                continue
            raw, good = self._memory.copy(record[mine] + np.uint64(self._entries_at), depth * 8)
            found[mine, :depth] = raw.view("<u8")
            known[mine] = good
            found[mine[~good]] = 0
        return found, known

    def _pool_addresses(self, number: NDArray[np.uint64], known: NDArray[np.bool_]
                        ) -> NDArray[np.uint64]:
        """The pool of each number; ``known`` becomes False where there is none."""
        distinct, back = np.unique(number, return_inverse=True)
        raw, good = self._memory.copy(np.uint64(self._pools) + distinct * np.uint64(8), 8)
        pool = raw.view("<u8").ravel()
        good &= (pool != 0) & (pool & np.uint64(self._memory.page_size - 1) == 0)
        known &= good[back]
        return np.where(known, pool[back], np.uint64(0))

    def _copy(self, addresses: NDArray[np.uint64], size: int, wanted: NDArray[np.bool_]
              ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Of the wanted ones alone."""
        found = np.zeros((len(addresses), size), np.uint8)
        good = np.zeros(len(addresses), bool)
        found[wanted], good[wanted] = self._memory.copy(addresses[wanted], size)
        return found, good
