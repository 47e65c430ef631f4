"""Page tables of x86-64 as the processor reads them: which page frames are tables, and what they
map.

Bits: arch/x86/include/asm/pgtable_types.h of 6.12 (_PAGE_PRESENT, _PAGE_PSE, _PAGE_PROTNONE,
PTE_PFN_MASK) and Documentation/arch/x86/x86_64/mm.rst. A table is one page of 512 entries; the
upper half of the topmost table is the kernel's and the same in every process.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Read = Callable[[NDArray[np.uint64]], tuple[NDArray[np.uint64], NDArray[np.bool_]]]
    """The 512 entries of tables by page frame, and which of them were readable."""
    Keep = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]
    """Which of these page frames are wanted."""

__all__ = ["ENTRIES", "UNKNOWN", "UNMAPPED", "Tables", "TooManyTables", "frames_at", "is_known",
           "kernel_tables", "levels_of", "mapped", "second_halves", "user_pages", "user_pieces",
           "user_tables"]

ENTRIES = 512
UNMAPPED, UNKNOWN = -1, -2
"""In place of page frames, see `frames_at`."""
_PRESENT, _LARGE = np.uint64(1), np.uint64(1 << 7)
_NO_ACCESS = np.uint64(1 << 8)
_FRAME = np.uint64(((1 << 52) - 1) & ~((1 << 12) - 1))
_SHIFT = 12
_PLACES = np.arange(ENTRIES, dtype=np.uint64)
_AT_ONCE = 1 << 10
"""Tables that are read at once."""
_FIVE_LEVELS_BELOW = 0xFFFF_8000_0000_0000


class TooManyTables(PageownerError):
    """Damaged tables lead in a circle."""


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


def user_tables(read: Read, top: NDArray[np.uint64], levels: int,
                most: int | None = None) -> Tables:
    """All tables of processes below their topmost ones (page frames), those with them. Raises
    TooManyTables if there are more than ``most``."""
    return _walk(read, top, levels, (0, ENTRIES // 2), most)


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


def kernel_tables(read: Read, top: int, levels: int, most: int | None = None) -> Tables:
    """The kernel's own tables below the topmost table of any process, which is not in them. Raises
    TooManyTables if there are more than ``most``."""
    found = _walk(read, np.array([top], np.uint64), levels, (ENTRIES // 2, ENTRIES), most)
    return Tables(found.pfn[1:], found.owner[1:], found.level[1:], found.base[1:], found.unread)


def _walk(read: Read, top: NDArray[np.uint64], levels: int, half: tuple[int, int],
          most: int | None) -> Tables:
    """``half``: of the topmost tables the first entry, and the one behind the last. A damaged table
    that leads to itself has as many below it on each level as it has entries, so all are counted
    before anything is kept of them."""
    first, stop = half
    pfn, owner, base = top, np.arange(len(top)), np.zeros(len(top), np.uint64)
    levels_found = [_Level(pfn, owner, np.full(len(pfn), levels, np.int8), base)]
    unread, count = [np.zeros(0, np.int64)], len(top)
    for level in range(levels, 1, -1):
        parts = [_Level(pfn[:0], owner[:0], np.zeros(0, np.int8), base[:0])]
        for part in _parts(pfn):
            entries, good = read(pfn[part])
            unread.append(owner[part][~good])
            here = entries[:, first:stop] if level == levels else entries
            leads = (here & _PRESENT != 0) & (here & _LARGE == 0)
            count += int(np.count_nonzero(leads))
            if most is not None and count > most:
                raise TooManyTables("page tables lead to more tables than there is memory")
            table, place = np.nonzero(leads)
            below = base[part][table] + (
                (place + (first if level == levels else 0)).astype(np.uint64)
                << np.uint64(_SHIFT + 9 * (level - 1)))
            if level == levels and first:
                below |= np.uint64((1 << 64) - (1 << (_SHIFT + 9 * levels)))
            parts.append(_Level((here[table, place] & _FRAME) >> np.uint64(_SHIFT),
                                owner[part][table], np.full(len(table), level - 1, np.int8),
                                below))
        levels_found.append(_joined(parts))
        pfn, owner, _, base = levels_found[-1]
    return Tables(*_joined(levels_found), np.concatenate(unread))


class _Level(NamedTuple):
    """The first columns of `Tables`."""

    pfn: NDArray[np.uint64]
    owner: NDArray[np.int64]
    level: NDArray[np.int8]
    base: NDArray[np.uint64]


def _joined(parts: list[_Level]) -> _Level:
    return _Level(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _parts(tables: NDArray[Any]) -> Iterator[slice]:
    return (slice(start, start + _AT_ONCE) for start in range(0, len(tables), _AT_ONCE))


def user_pages(read: Read, top: NDArray[np.uint64], levels: int, most: int | None = None
               ) -> NDArray[np.uint64] | None:
    """The page frames of `user_pieces` in one; None if not all tables could be read."""
    pieces = [np.zeros(0, np.uint64)]
    for piece in user_pieces(read, top, levels, most):
        if piece is None:
            return None
        pieces.append(piece)
    return np.concatenate(pieces)


def user_pieces(read: Read, top: NDArray[np.uint64], levels: int, most: int | None = None,
                keep: Keep | None = None) -> Iterator[NDArray[np.uint64] | None]:
    """The page frames that a process maps, piece by piece, huge pages of 2 MiB each as its 512.
    Larger ones, which are of hugetlb or of a device, are left out: of these no process is told.
    None for tables that could not be read, and instead of all if there are more tables than
    ``most``.

    ``keep``: asked of each frame which are wanted; of a huge page, its first tells of all."""
    try:
        tables = user_tables(read, top, levels, most)
    except TooManyTables:
        yield None
        return
    if len(tables.unread):
        yield None
    small, middle = (tables.pfn[tables.level == level] for level in (1, 2))
    for part in _parts(small):
        entries, good = read(small[part])
        if not good.all():
            yield None
        found = _frames(entries, _PRESENT | _NO_ACCESS)
        yield found if keep is None else found[keep(found)]
    for part in _parts(middle):
        entries, good = read(middle[part])
        if not good.all():
            yield None
        first = _frames(entries[entries & _LARGE != 0], _PRESENT | _LARGE)
        first &= ~np.uint64(ENTRIES - 1)
        first = first if keep is None else first[keep(first)]
        for huge in _parts(first):
            pages: NDArray[np.uint64] = np.add.outer(first[huge], _PLACES)
            yield pages.ravel()


def _frames(entries: NDArray[np.uint64], there: np.uint64) -> NDArray[np.uint64]:
    """The frames of a program's entries that have one of these bits. Where the first bit is clear,
    as NUMA balancing and mprotect(PROT_NONE) leave it, the frame is inverted (arch/x86/include/asm/
    pgtable.h, pte_present, pmd_present; pgtable-invert.h, protnone_mask)."""
    kept = entries[entries & there != 0]
    frames = np.where(kept & _PRESENT != 0, kept, ~kept) & _FRAME
    found: NDArray[np.uint64] = frames >> np.uint64(_SHIFT)
    return found


def mapped(read: Read, tables: Tables, first: int, stop: int) -> tuple[
        NDArray[np.uint64], NDArray[np.uint64], int]:
    """What is mapped by single pages from one address up to another: page frames, their addresses,
    and how many tables could not be read."""
    span = np.uint64(ENTRIES << _SHIFT)
    wanted = (tables.level == 1) & (tables.base < np.uint64(stop)) & (
        tables.base + (span - np.uint64(1)) >= np.uint64(first))
    pfns, addresses, unread = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], 0
    for part in _parts(tables.pfn[wanted]):
        entries, good = read(tables.pfn[wanted][part])
        unread += int(np.count_nonzero(~good))
        table, place = np.nonzero(entries & _PRESENT != 0)
        address = tables.base[wanted][part][table] + (place.astype(np.uint64) << np.uint64(_SHIFT))
        inside = (address >= np.uint64(first)) & (address < np.uint64(stop))
        pfns.append((entries[table, place][inside] & _FRAME) >> np.uint64(_SHIFT))
        addresses.append(address[inside])
    return np.concatenate(pfns), np.concatenate(addresses), unread


def frames_at(read: Read, tables: Tables, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The page frame that the kernel has mapped at each address; `UNMAPPED` where there is none,
    `UNKNOWN` where a table could not be read or is newer than ``tables``."""
    found = np.full(len(addresses), UNKNOWN, np.int64)
    for level in (1, 2):  # single pages, then huge ones, where no table of single pages is
        rows = np.flatnonzero(tables.level == level)
        rows = rows[np.argsort(tables.base[rows], kind="stable")]
        shift = np.uint64(_SHIFT + 9 * (level - 1))
        at = np.searchsorted(tables.base[rows], addresses, "right") - 1
        inside = (at >= 0) & (found == UNKNOWN)
        inside[inside] = (addresses[inside] - tables.base[rows[at[inside]]]) >> shift < ENTRIES
        mine = np.flatnonzero(inside)
        used, which = np.unique(at[mine], return_inverse=True)
        for part in _parts(used):
            entries, good = read(tables.pfn[rows[used[part]]])
            here = np.flatnonzero((which >= part.start) & (which < part.stop))
            here = here[good[which[here] - part.start]]
            places, table = mine[here], which[here] - part.start
            entry = entries[table, (addresses[places] >> shift & np.uint64(ENTRIES - 1)
                                    ).astype(np.int64)]
            there = entry & _PRESENT != 0
            first = ((entry & _FRAME) >> np.uint64(_SHIFT)).astype(np.int64)
            if level > 1:
                large = entry & _LARGE != 0
                first = np.where(large, (first & ~np.int64(ENTRIES - 1)) + (
                    addresses[places] >> np.uint64(_SHIFT) & np.uint64(ENTRIES - 1)
                    ).astype(np.int64), UNKNOWN)
            found[places] = np.where(there, first, UNMAPPED)
    return found
