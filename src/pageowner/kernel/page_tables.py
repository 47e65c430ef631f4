"""Page tables of x86-64 as the processor reads them: which page frames are tables, and what they
map.

Bits: arch/x86/include/asm/pgtable_types.h of 6.12 (_PAGE_PRESENT, _PAGE_PSE, PTE_PFN_MASK) and
Documentation/arch/x86/x86_64/mm.rst. A table is one page of 512 entries; the upper half of the
topmost table is the kernel's and the same in every process.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Read = Callable[[NDArray[np.uint64]], tuple[NDArray[np.uint64], NDArray[np.bool_]]]
    """The 512 entries of tables by page frame, and which of them were readable."""

__all__ = ["Tables", "is_known", "kernel_tables", "levels_of", "mapped", "second_halves",
           "user_pages", "user_tables"]

ENTRIES = 512
_PRESENT, _LARGE = np.uint64(1), np.uint64(1 << 7)
_FRAME = np.uint64(((1 << 52) - 1) & ~((1 << 12) - 1))
_SHIFT = 12
_FIVE_LEVELS_BELOW = 0xFFFF_8000_0000_0000


class Tables(NamedTuple):
    """Tables by page frame; ``owner``: the place of the topmost table that leads there; ``level``:
    1 for tables of single pages; ``base``: the address that the first entry is for; ``unread``: the
    owner of each that could not be read."""

    pfn: NDArray[np.uint64]
    owner: NDArray[np.int64]
    level: NDArray[np.int8]
    base: NDArray[np.uint64]
    unread: NDArray[np.int64]


def is_known() -> bool:
    """Whether this machine's tables are those of x86-64."""
    return platform.machine() == "x86_64"


def levels_of(kernel_address: int) -> int:
    """How many levels there are, by an address in the direct map: with five it begins at
    0xff11000000000000, with four at 0xffff888000000000 or, moved at boot, above."""
    return 5 if kernel_address < _FIVE_LEVELS_BELOW else 4


def user_tables(read: Read, top: NDArray[np.uint64], levels: int) -> Tables:
    """All tables of processes below their topmost ones (page frames), those with them."""
    return _walk(read, top, levels, 0, ENTRIES // 2)


def second_halves(read: Read, top: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Behind which of these topmost tables there is the one that the processor has while user space
    runs (CONFIG_PAGE_TABLE_ISOLATION; arch/x86/include/asm/pgtable.h, kernel_to_user_pgdp): it
    leads to the same tables of the process."""
    own, good = read(top)
    second, there = read(top + np.uint64(1))
    half = slice(0, ENTRIES // 2)
    same: NDArray[np.bool_] = good & there & (own[:, half] & _PRESENT != 0).any(axis=1) & (
        (own[:, half] ^ second[:, half]) & (_FRAME | _PRESENT) == 0).all(axis=1)
    return same


def kernel_tables(read: Read, top: int, levels: int) -> Tables:
    """The kernel's own tables below the topmost table of any process, which is not in them."""
    found = _walk(read, np.array([top], np.uint64), levels, ENTRIES // 2, ENTRIES)
    return Tables(found.pfn[1:], found.owner[1:], found.level[1:], found.base[1:], found.unread)


def _walk(read: Read, top: NDArray[np.uint64], levels: int, first: int, stop: int) -> Tables:
    pfn, owner = top, np.arange(len(top))
    base = np.zeros(len(top), np.uint64)
    parts = [(pfn, owner, levels, base)]
    unread = [np.zeros(0, np.int64)]
    for level in range(levels, 1, -1):
        entries, good = read(pfn)
        unread.append(owner[~good])
        here = entries[:, first:stop] if level == levels else entries
        table, place = np.nonzero((here & _PRESENT != 0) & (here & _LARGE == 0))
        found = here[table, place]
        place = place + (first if level == levels else 0)
        base = base[table] + (place.astype(np.uint64) << np.uint64(_SHIFT + 9 * (level - 1)))
        if level == levels and first:
            base |= np.uint64((1 << 64) - (1 << (_SHIFT + 9 * levels)))
        pfn, owner = (found & _FRAME) >> np.uint64(_SHIFT), owner[table]
        parts.append((pfn, owner, level - 1, base))
    return Tables(np.concatenate([part[0] for part in parts]),
                  np.concatenate([part[1] for part in parts]),
                  np.concatenate([np.full(len(part[0]), part[2], np.int8) for part in parts]),
                  np.concatenate([part[3] for part in parts]), np.concatenate(unread))


def user_pages(read: Read, top: NDArray[np.uint64], levels: int) -> NDArray[np.uint64] | None:
    """The page frames that a process maps, huge pages of 2 MiB each as its 512; larger ones, which
    are never anonymous, are left out. None if not all tables could be read."""
    tables = user_tables(read, top, levels)
    middle, good = read(tables.pfn[tables.level == 2])
    large = middle[(middle & _PRESENT != 0) & (middle & _LARGE != 0)]
    first = (large & _FRAME) >> np.uint64(_SHIFT) & ~np.uint64(ENTRIES - 1)
    entries, too = read(tables.pfn[tables.level == 1])
    if len(tables.unread) or not (good.all() and too.all()):
        return None
    small = (entries[entries & _PRESENT != 0] & _FRAME) >> np.uint64(_SHIFT)
    return np.concatenate([small, (first[:, None] + np.arange(ENTRIES, dtype=np.uint64)).ravel()])


def mapped(read: Read, tables: Tables, first: int, stop: int) -> tuple[
        NDArray[np.uint64], NDArray[np.uint64], int]:
    """What is mapped by single pages from one address up to another: page frames, their addresses,
    and how many tables could not be read."""
    span = np.uint64(ENTRIES << _SHIFT)
    wanted = (tables.level == 1) & (tables.base < np.uint64(stop)) & (
        tables.base + (span - np.uint64(1)) >= np.uint64(first))
    entries, good = read(tables.pfn[wanted])
    table, place = np.nonzero(entries & _PRESENT != 0)
    address = tables.base[wanted][table] + (place.astype(np.uint64) << np.uint64(_SHIFT))
    pfn = (entries[table, place] & _FRAME) >> np.uint64(_SHIFT)
    inside = (address >= np.uint64(first)) & (address < np.uint64(stop))
    return pfn[inside], address[inside], int(np.count_nonzero(~good))
