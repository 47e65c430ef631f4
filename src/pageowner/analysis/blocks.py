"""Every aligned block of an order: free, to be cleared by compaction, or blocked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.analysis.keys import key
from pageowner.analysis.memory import NO_ROW, TYPES, Memory, spread
from pageowner.errors import PageownerError
from pageowner.kernel import compaction
from pageowner.model.pfn_runs import SideBySide, joined
from pageowner.system import memory_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["BLOCKED", "CLEARABLE", "FREE", "STATES", "UNKNOWN", "Blocks", "blocks", "in_the_way",
           "kinds", "reachable", "taken"]

STATES = ("free", "clearable", "blocked", "unknown")
FREE, CLEARABLE, BLOCKED, UNKNOWN = range(len(STATES))
"""What a block is:

- ``free``: no page of it is in use
- ``clearable``: all pages in use can be moved (see `pageowner.kernel.compaction`)
- ``blocked``: a page in it cannot be moved, was never given to the page allocator, or is not in
  the same zone
- ``unknown``: nothing known blocks it, but of some page it is not known; or the source does not
  tell a free block from no memory at all
"""

_MOST = 1 << 28
_EACH = 150  # bytes that a block takes while it is looked at, and 9 for each stretch


@dataclass(frozen=True)
class Blocks:
    """Blocks of 2**order frames, those without any frame of the page allocator left out.

    One item a block: ``number`` (first pfn >> order), ``state`` (a place in `STATES`), ``place``
    (of its zone in `Memory.stretches`), and pages: ``movable`` (``cache`` of them are page cache
    that reclaim can drop), ``stuck`` (in use and not to be moved), ``unsure`` (movability unknown),
    ``held`` (never given to the page allocator), ``free`` (nothing is known to be there).
    ``across``: it reaches into another zone.
    """

    order: int
    number: NDArray[np.int64]
    state: NDArray[np.uint8]
    movable: NDArray[np.int64]
    cache: NDArray[np.int64]
    stuck: NDArray[np.int64]
    unsure: NDArray[np.int64]
    held: NDArray[np.int64]
    free: NDArray[np.int64]
    place: NDArray[np.int64]
    across: NDArray[np.bool_]

    def count(self, place: int | None = None) -> dict[str, int]:
        """Blocks by state, of one zone or of all."""
        state = self.state if place is None else self.state[self.place == place]
        numbers = np.bincount(state, minlength=len(STATES)).tolist()
        return dict(zip(STATES, numbers, strict=True))

    def kept_by_one(self) -> int:
        """How many would be free or clearable without one single page."""
        others = (self.held > 0) | (self.unsure > 0) | self.across
        return int(np.count_nonzero((self.stuck == 1) & ~others))


def _edges(memory: Memory, order: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The edges of all blocks in which there is memory, and which two of them have a block between
    them: not those to both sides of a hole."""
    runs = joined((stretch.start >> order, -(-stretch.end >> order))
                  for stretch in memory.stretches)
    number = int((runs[:, 1] - runs[:, 0]).sum())
    if number > _MOST:
        raise PageownerError(f"{number:,} blocks of order {order} are too many to look at one"
                             " by one: ask for a larger order")
    memory_limit.check(number * (_EACH + 9 * len(memory.stretches)),
                       f"{number:,} blocks of order {order}")
    runs[:, 1] += 1
    edges = SideBySide(runs).numbers()
    inside = np.ones(max(len(edges) - 1, 0), bool)
    inside[np.cumsum(runs[:-1, 1] - runs[:-1, 0]) - 1] = False
    return edges << order, inside


def _not_given(memory: Memory) -> NDArray[np.int64]:
    """Runs of frames held back or outside of all zones, joined."""
    if not memory.sees_free:
        return memory.held
    runs, behind = [(run[0], run[1]) for run in memory.held.tolist()], 0
    for start, end in sorted((stretch.start, stretch.end) for stretch in memory.stretches):
        runs.append((behind, start))
        behind = max(behind, end)
    return joined([*runs, (behind, 1 << 60)])


def blocks(memory: Memory, order: int) -> Blocks:
    """Every aligned block of ``order``, what is in it and so what it is.

    free + clearable + blocked + unknown are all blocks; the last is 0 where every frame is known.
    Raises PageownerError if there are too many.
    """
    edges, inside = _edges(memory, order)
    size = 1 << order
    moves = compaction.at_order(memory.moves, memory.order, order, memory.pageblock_order,
                                memory.max_order, memory.moves_large)
    pages = {}
    for what in (compaction.CAN, compaction.CANNOT, compaction.UNKNOWN):
        mine = moves == what
        pages[what] = spread(memory.first[mine], memory.pages[mine], edges)
    mine = memory.cache & (moves == compaction.CAN)
    cache = spread(memory.first[mine], memory.pages[mine], edges)
    apart = _not_given(memory)
    held = spread(apart[:, 0], apart[:, 1] - apart[:, 0], edges)
    used = pages[compaction.CAN] + pages[compaction.CANNOT] + pages[compaction.UNKNOWN]
    within = np.stack([
        spread(np.array([stretch.start]), np.array([stretch.end - stretch.start]), edges)
        for stretch in memory.stretches] or [np.zeros(max(len(edges) - 1, 0), np.int64)])
    place = within.argmax(axis=0)
    # One zone may be several stretches, where those of several nodes lie in turn.
    names = [(stretch.node, stretch.zone) for stretch in memory.stretches]
    zone = np.array([names.index(name) for name in names] or [0])
    across = ((within > 0) & (zone[:, None] != zone[place][None, :])).any(axis=0)
    state = np.full(len(used), FREE, np.uint8)
    state[used > 0] = CLEARABLE
    state[pages[compaction.UNKNOWN] > 0] = UNKNOWN
    if not memory.sees_free:
        left = spread(memory.left[:, 0], memory.left[:, 1] - memory.left[:, 0], edges)
        state[(used == 0) & (left == 0)] = UNKNOWN
    state[(pages[compaction.CANNOT] > 0) | (held > 0) | across] = BLOCKED
    real = inside & (held < size)
    return Blocks(
        order, (edges[:-1] >> order)[real], state[real], pages[compaction.CAN][real], cache[real],
        pages[compaction.CANNOT][real], pages[compaction.UNKNOWN][real], held[real],
        np.maximum(size - held - used, 0)[real], place[real], across[real])


def in_the_way(memory: Memory, found: Blocks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which allocations cannot be moved out of which blocks: places in ``memory`` and places in
    ``found``, one pair for each block that an allocation lies in."""
    moves = compaction.at_order(memory.moves, memory.order, found.order, memory.pageblock_order,
                                memory.max_order, memory.moves_large)
    stuck = np.flatnonzero(moves == compaction.CANNOT)
    first = memory.first[stuck] >> found.order
    number = ((memory.first[stuck] + memory.pages[stuck] - 1) >> found.order) - first + 1
    if bool((number > 1).any()):
        who = np.repeat(stuck, number)
        nth = np.arange(len(who)) - np.repeat(np.cumsum(number) - number, number)
        where = np.repeat(first, number) + nth
    else:
        who, where = stuck, first
    at = np.searchsorted(found.number, where)
    there = at < len(found.number)
    there[there] = found.number[at[there]] == where[there]
    return who[there], at[there]


def taken(memory: Memory, found: Blocks) -> int:
    """How many blocks are nothing but a movable folio of the wanted order or larger."""
    whole = (memory.order >= found.order) & (memory.moves == compaction.CAN)
    edges = np.append(found.number, found.number[-1:] + 1) << found.order
    pages = spread(memory.first[whole], memory.pages[whole], edges)
    return int(np.count_nonzero((pages == 1 << found.order) & (found.state == BLOCKED)))


def kinds(memory: Memory, found: Blocks) -> dict[str, NDArray[np.int64]]:
    """Pages of each block by what they were allocated as (`TYPES`), ``free`` and ``held``."""
    edges = np.append(found.number, found.number[-1:] + 1) << found.order
    shares = {}
    for place, name in enumerate(TYPES):
        mine = memory.kind == place
        # Blocks left out lie between some edges, but nothing is in those.
        shares[name] = spread(memory.first[mine], memory.pages[mine], edges)
    return shares | {"free": found.free, "held": found.held}


def reachable(snapshot: Snapshot, memory: Memory, found: Blocks, reclaim: bool = False) -> int:
    """How many of the clearable blocks compaction can empty with the free memory there is.

    What is moved needs room: free pages of the same zone in other blocks that are neither free nor
    cleared, and of a pageblock of type Movable or CMA (mm/compaction.c, suitable_migration_target)
    where the types are known. The blocks with least to move come first. With ``reclaim`` page
    cache need not be moved: it is dropped, and what it took elsewhere is room as well.

    An estimate: pages that turn out to be pinned, and what the watermarks keep free, make it fewer.
    """
    open_ = _open(snapshot, memory, found)
    room = np.where(open_, found.free, 0) + (found.cache if reclaim else 0)
    move = found.movable - (found.cache if reclaim else 0)
    total = 0
    for place in np.unique(found.place).tolist():
        mine = found.place == place
        clear = np.flatnonzero(mine & (found.state == CLEARABLE))
        clear = clear[np.argsort(move[clear] + room[clear], kind="stable")]
        there = int(room[mine & (found.state != FREE)].sum())
        need = np.cumsum(move[clear] + room[clear])
        total += int(np.searchsorted(need, there, side="right"))
    return total


def _open(snapshot: Snapshot, memory: Memory, found: Blocks) -> NDArray[np.bool_]:
    """Blocks into which compaction may move pages: none of their pageblocks is known to be of
    another type."""
    types = key(snapshot, "block")
    bad = np.array([label is not None and label not in ("Movable", "CMA", "Unknown")
                    for label in types.labels.to_pylist()] or [False], bool)
    rows = np.flatnonzero(memory.row != NO_ROW)
    rows = rows[bad[types.codes[memory.row[rows]]]]
    closed = memory.first[rows] >> max(memory.pageblock_order, found.order)
    if found.order < memory.pageblock_order:
        return ~np.isin(found.number >> (memory.pageblock_order - found.order), closed)
    return ~np.isin(found.number, closed)
