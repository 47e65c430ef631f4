"""Pageblocks that hold pages of another migratetype than their own, and whose these are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.analysis.keys import Key, key
from pageowner.analysis.memory import NO_ROW, Memory, spread
from pageowner.kernel import compaction
from pageowner.model.pfn_runs import SideBySide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["BINS", "COUNTED", "Mixed", "contents", "mixed"]

COUNTED = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")
"""The types of pageblocks in the kernel's order (include/linux/mmzone.h, enum migratetype)."""

BINS = ("none", "one page", "under 10 %", "10 to 50 %", "50 to 100 %", "all")
"""How much of a block, for `contents`; each without its upper end but for the last two."""


@dataclass(frozen=True)
class Mixed:
    """Which pageblocks are mixed.

    ``counts``: blocks by place in `Memory.stretches` and by type. ``exact``: the types of the
    blocks are known, so that these are the kernel's numbers. Else a block counts as mixed if both
    pages that can be moved and pages that cannot lie in it: as Movable if the former are more, as
    Unmovable (or Reclaimable) if not. Those are fewer than the kernel would count. ``foreign``:
    which allocations are of another type than their block, ``block``: the pageblock in which each
    begins (both one item an allocation). ``unjudged``: pages in blocks of known type whose own type
    is not known, as of those allocated before tracking began, and those of larger allocations in
    blocks beyond their first, whose type is not known: the kernel may count more for them.
    """

    counts: dict[tuple[int, str], int]
    exact: bool
    foreign: NDArray[np.bool_]
    block: NDArray[np.int64]
    unjudged: int = 0


def mixed(snapshot: Snapshot, memory: Memory) -> Mixed:
    """The mixed pageblocks, as /proc/pagetypeinfo counts them with page_owner on.

    mm/page_owner.c, pagetypeinfo_showmixedcount_print, of 6.12: of each pageblock of a zone the
    first allocated page whose own migratetype, from its gfp mask, is not the block's makes it
    mixed. It is counted under the block's type, which is 'Movable' for a CMA block. So a CMA block
    is mixed whatever lies in it, as no gfp mask asks for CMA; so are isolated and high-atomic
    ones. Pages on the CPUs' lists are free there and here: their record is marked so.

    Of an allocation larger than a pageblock the dump tells the type of its first block only: the
    others are not judged. (The kernel does count them: each page of it has a record there.)
    """
    block = memory.first >> memory.pageblock_order
    types = key(snapshot, "block")
    known = np.array([label in COUNTED for label in types.labels.to_pylist()], bool)
    has_row = memory.row != NO_ROW
    if known[types.codes].any():
        return _as_counted(snapshot, memory, block, types, has_row)
    return _as_seems(memory, block)


def _as_counted(snapshot: Snapshot, memory: Memory, block: NDArray[np.int64], types: Key,
                has_row: NDArray[np.bool_]) -> Mixed:
    block_type = _places(types)[types.codes][memory.row]
    own = key(snapshot, "migratetype")
    own_type = _places(own)[own.codes][memory.row]
    foreign = has_row & (block_type >= 0) & (own_type >= 0) & (own_type != block_type)
    unjudged = int(memory.pages[has_row & (block_type >= 0) & (own_type < 0)].sum())
    beyond = memory.first + memory.pages - ((block + 1) << memory.pageblock_order)
    judged = has_row & (block_type >= 0) & (own_type >= 0)
    unjudged += int(np.maximum(beyond[judged], 0).sum())
    rows = np.flatnonzero(foreign)
    where = memory.stretch_of(memory.first[rows])
    # A block across zones is counted in each.
    _, once = np.unique(block[rows] * (len(memory.stretches) + 1) + where, return_index=True)
    counts: dict[tuple[int, str], int] = {}
    cma, movable = COUNTED.index("CMA"), COUNTED.index("Movable")
    for place, kind in zip(where[once].tolist(), block_type[rows[once]].tolist(), strict=True):
        at = place, COUNTED[movable if kind == cma else kind]
        counts[at] = counts.get(at, 0) + 1
    return Mixed(counts, True, foreign, block, unjudged)


def _places(found: Key) -> NDArray[np.int64]:
    """The place in `COUNTED` of each label of a key, -1 for any other."""
    return np.array([COUNTED.index(label) if label in COUNTED else -1
                     for label in found.labels.to_pylist()] or [-1], np.int64)


def _as_seems(memory: Memory, block: NDArray[np.int64]) -> Mixed:
    """Without the blocks' types: which hold both pages that can be moved and pages that cannot."""
    foreign = np.zeros(len(block), bool)
    if not len(block):
        return Mixed({}, False, foreign, block)
    # The edges of all blocks in which anything is; nothing is between those apart.
    reach = np.maximum.accumulate((memory.first + memory.pages - 1) >> memory.pageblock_order)
    begins = np.flatnonzero(np.append(True, block[1:] > reach[:-1] + 1))
    ends = reach[np.append(begins[1:] - 1, len(reach) - 1)]
    near = SideBySide(np.stack([block[begins], ends + 2], axis=1))
    numbers = near.numbers()
    edges = numbers << memory.pageblock_order
    can, cannot = memory.moves == compaction.CAN, memory.moves == compaction.CANNOT
    movable, fixed = (spread(memory.first[mine], memory.pages[mine], edges)
                      for mine in (can, cannot))
    mostly_movable = movable > fixed
    foreign = np.where(mostly_movable[near.places(block)], cannot, can)
    several = np.flatnonzero((movable > 0) & (fixed > 0))
    counts: dict[tuple[int, str], int] = {}
    # The zone of the first page in it: a zone may begin behind its first block's beginning.
    lasts = memory.first + memory.pages - 1
    inside = np.searchsorted(lasts, numbers[several] << memory.pageblock_order)
    where = memory.stretch_of(memory.first[inside])
    for place, is_movable in zip(where.tolist(), mostly_movable[several].tolist(), strict=True):
        at = place, COUNTED[1 if is_movable else 0]
        counts[at] = counts.get(at, 0) + 1
    foreign &= np.isin(block, numbers[several])
    return Mixed(counts, False, foreign, block)


def contents(shares: dict[str, NDArray[np.int64]], size: int) -> dict[str, list[int]]:
    """How many blocks of ``size`` pages hold how much of each kind.

    ``shares``: pages of each kind by block. Gives for each kind the number of blocks in each of
    `BINS`.
    """
    found = {}
    for kind, pages in shares.items():
        bounds = [1, 2, max(-(-size // 10), 2), max(-(-size // 2), 2), max(size, 2)]
        if size == 1:
            bins = np.where(pages > 0, len(BINS) - 1, 0)
        else:
            bins = np.searchsorted(bounds, pages, side="right")
        found[kind] = [int(n) for n in np.bincount(bins, minlength=len(BINS))[:len(BINS)]]
    return found
