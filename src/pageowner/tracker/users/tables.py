"""Page tables of processes and of the kernel, as this machine has them in its memory."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pageowner.kernel import page_tables
from pageowner.tracker.users.layout import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pageowner.tracker.users.memory import KernelMemory

__all__ = ["PageTables", "UserTables", "deposited"]

_MIDDLE = 2
"""The level of the tables whose entries may be huge pages of 2 MiB."""


class UserTables(NamedTuple):
    """Tables of processes: page frames, the place of each one's task, and whether it is a topmost
    one; ``unread``: how many could not be read."""

    pfn: NDArray[np.uint64]
    task: NDArray[np.int64]
    top: NDArray[np.bool_]
    unread: int


class PageTables:
    """Reads tables in the direct map; only where ``known``."""

    def __init__(self, memory: KernelMemory, tasks: NDArray[Any]) -> None:
        """``tasks``: of `KernelMemory.tasks`."""
        self._memory, self._tasks = memory, tasks
        self.known = memory.anchors.direct_map is not None and memory.has_known_tables
        self._base = memory.anchors.direct_map or 0
        self._shift = np.uint64(memory.page_shift)
        self._levels = page_tables.levels_of(self._base)

    def _read(self, pfn: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        raw, good = self._memory.copy(np.uint64(self._base) + (pfn << self._shift),
                                      1 << self._memory.page_shift)
        return raw.view(np.uint64), good

    def _frame(self, address: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (address - np.uint64(self._base)) >> self._shift

    @cached_property
    def of_kernel(self) -> page_tables.Tables:
        """The kernel's own."""
        top = self._frame(np.array([self._memory.anchors.pgd], np.uint64))
        return page_tables.kernel_tables(self._read, int(top[0]), self._levels,
                                         self._memory.most_tables)

    def mapped(self, first: int, stop: int) -> tuple[NDArray[np.uint64], int]:
        """The page frames that the kernel has mapped between these addresses, and how many tables
        could not be read."""
        pfn, _, unread = page_tables.mapped(self._read, self.of_kernel, first, stop)
        return pfn, unread

    def frames_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The page frame that the kernel has mapped at each address, as `page_tables.frames_at`
        has it; `page_tables.UNKNOWN` everywhere where tables are not known."""
        if self.known:
            with suppress(page_tables.TooManyTables):
                return page_tables.frames_at(self._read, self.of_kernel, addresses)
        return np.full(len(addresses), page_tables.UNKNOWN, np.int64)

    def of_process(self, pid: int) -> NDArray[np.uint64] | None:
        """The page frames that a process maps; None if it has no memory of its own, or not all of
        its tables could be read."""
        top = self._top(pid)
        return None if top is None else page_tables.user_pages(
            self._read, top, self._levels, self._memory.most_tables)

    def pieces_of_process(self, pid: int, keep: page_tables.Keep
                          ) -> Iterator[NDArray[np.uint64] | None]:
        """Those of them that are wanted, as `page_tables.user_pieces` has it."""
        top = self._top(pid)
        return iter([None]) if top is None else page_tables.user_pieces(
            self._read, top, self._levels, self._memory.most_tables, keep)

    def _top(self, pid: int) -> NDArray[np.uint64] | None:
        mine = np.flatnonzero((self._tasks["tgid"] == pid) & (self._tasks["mm"] != 0))
        return self._frame(self._tasks["pgd"][mine[:1]]) if len(mine) else None

    def of_processes(self) -> UserTables:
        """Those of all processes that are there before and afterwards: the tables of one that ended
        meanwhile may be anything by now."""
        tasks = self._tasks
        mine = np.flatnonzero((tasks["mm"] != 0) & (tasks["pgd"] >= np.uint64(self._base)))
        _, first = np.unique(tasks["mm"][mine], return_index=True)
        mine = mine[first]
        top = self._frame(tasks["pgd"][mine])
        found = page_tables.user_tables(self._read, top, self._levels, self._memory.most_tables)
        middle = found.level == _MIDDLE
        kept = self._deposited(found.pfn[middle])
        still = set(_spaces(self._memory.tasks()))
        alive = np.array([space in still for space in _spaces(tasks[mine])], bool)
        half = np.flatnonzero(page_tables.second_halves(self._read, top))
        pfn = np.concatenate([found.pfn, top[half] + np.uint64(1), *(part for part, _ in kept)])
        owner = np.concatenate([found.owner, half,
                                *(found.owner[middle][place] for _, place in kept)])
        is_top = np.zeros(len(pfn), bool)
        is_top[:len(top)] = is_top[len(found.pfn):len(found.pfn) + len(half)] = True
        good = alive[owner]
        return UserTables(pfn[good], mine[owner[good]], is_top[good],
                          int(np.count_nonzero(alive[found.unread])))

    def _deposited(self, tables: NDArray[np.uint64]) -> list[tuple[
            NDArray[np.uint64], NDArray[np.int64]]]:
        layout, anchors = self._memory.layout, self._memory.anchors
        if layout["table_deposit"] == NOT_KNOWN or layout["page_list"] == NOT_KNOWN:
            return []
        size = np.uint64(layout["page_size_of"])

        def word(pfn: NDArray[np.uint64], at: int) -> NDArray[np.uint64]:
            raw, _ = self._memory.copy(
                np.uint64(anchors.vmemmap) + pfn * size + np.uint64(at), 8)
            return raw.view(np.uint64)[:, 0]

        return list(deposited(tables, word, layout, anchors.vmemmap))


def deposited(tables: NDArray[np.uint64], word: Any, layout: dict[str, int], vmemmap: int
              ) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Tables that are kept for huge pages, one for each, until it is split: in a ring that begins
    at the page struct of the table with its entry (mm/pgtable-generic.c,
    pgtable_trans_huge_deposit). Page frames, and the place in ``tables`` of each one's.

    ``word(pfn, at)``: the words at an offset of these page structs.
    """
    size, at = np.uint64(layout["page_size_of"]), np.uint64(layout["page_list"])
    place = np.arange(len(tables))
    # at most one for each entry, and the ring has come round
    page = word(tables, layout["table_deposit"])
    first = page.copy()
    for _ in range(page_tables.ENTRIES):
        good = (page >= np.uint64(vmemmap)) & ((page - np.uint64(vmemmap)) % size == 0)
        page, place, first = page[good], place[good], first[good]
        if not len(page):
            return
        pfn = (page - np.uint64(vmemmap)) // size
        yield pfn, place
        page = word(pfn, layout["page_list"]) - at
        good = page != first
        page, place, first = page[good], place[good], first[good]


def _spaces(tasks: NDArray[Any]) -> list[tuple[int, int]]:
    """The address space of each task, and its topmost table."""
    return list(zip(tasks["mm"].tolist(), tasks["pgd"].tolist(), strict=True))
