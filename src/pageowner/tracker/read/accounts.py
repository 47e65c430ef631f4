"""What each page frame of one span is, from its record and its flags before and after.

Every page frame that exists ends in exactly one class, so that the accounts close by construction;
what makes them true is the order of reading: flags, records, flags. A page that was free both
times is free, whatever its record says (the record is stale, and counted); one that was free only
once changed hands meanwhile, and its record decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import flag_bits, pageflags
from pageowner.tracker.read.maps import EARLY, FILTERED, OWNED, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["CLASSES", "Account", "Blocks", "account", "block_heads", "covered", "spoken_for",
           "unsure"]

CLASSES = ("absent", "free", "owned", "early", "untracked", "reserved", "filtered", "in_motion")
"""What a frame can be; ``absent`` frames do not exist, ``reserved`` ones were never given to the
page allocator, ``filtered`` ones were left out by a filter of ``on``; ``in_motion`` are those whose
record never stood still."""
ABSENT, FREE, IS_OWNED, IS_EARLY, UNTRACKED, RESERVED, IS_FILTERED, IN_MOTION = range(
    len(CLASSES))
_SPREAD = 12
"""Blocks of higher orders are so large that each may be looked at by itself."""

_OF_STATE = {OWNED: IS_OWNED, FILTERED: IS_FILTERED, WRITTEN: IN_MOTION}
"""The classes of pages in a block, by the state of its record."""
_CLASS = np.array([_OF_STATE.get(state, 0) for state in range(WRITTEN + 1)], np.uint8)

_NOPAGE = pageflags.bit("nopage")
_BUDDY = pageflags.bit("buddy")
_HEAD = pageflags.bit("compound_head")
_TAIL = pageflags.bit("compound_tail")
NEVER_GIVEN = np.uint64(flag_bits.NEVER_GIVEN)


@dataclass
class Blocks:
    """Owned blocks of a span: ``place`` of the first frame in the span, ``order``, and ``record``,
    the place of the record that speaks for it (another one where a block was found split)."""

    place: NDArray[np.int64]
    order: NDArray[np.uint8]
    record: NDArray[np.int64]


@dataclass
class Account:
    """The classes of all frames (uint8, see `CLASSES`), the owned blocks, and how many blocks were
    found split past every hook (``split``).

    ``stale`` are the first frames of blocks that seem to be free, in part at least, or that a
    younger one overlaps; a page that was taken and freed again between the readings looks so too.
    ``beyond`` are pages that owned blocks hold behind the end of the span: (its class, pages).
    """

    classes: NDArray[np.uint8]
    blocks: Blocks
    stale: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    split: int = 0
    beyond: list[tuple[int, int]] = field(default_factory=list)


def account(records: NDArray[np.void], before: NDArray[np.uint64], after: NDArray[np.uint64],
            comp_gfp: int, carried: Iterable[tuple[int, int]] = (),
            deferred: Iterable[tuple[int, int]] = (),
            outside: Iterable[tuple[int, int]] = ()) -> Account:
    """The account of one span.

    ``records`` (`maps.RECORD`), ``before`` and ``after`` (bits of /proc/kpageflags) have one item
    a frame; memory may end earlier, then the flags are shorter. ``comp_gfp`` is this kernel's
    __GFP_COMP, ``carried`` what earlier spans' blocks hold here, from its first frame on;
    ``deferred`` (first, behind the last) are frames not handed to the page allocator yet,
    ``outside`` those in no range of memory: firmware's, or holes. Kernels since 6.14 give no flag
    at all for a hole, where older ones gave nopage. A block that begins with nopage is none: its
    memory was taken away, and its record stands.
    """
    size = min(len(before), len(after))
    records, before, after = records[:size], before[:size], after[:size]
    state = records["state"]
    absent = (after & _NOPAGE) != 0
    free_before, free_after = (before & _BUDDY) != 0, (after & _BUDDY) != 0
    free_twice = free_before & free_after

    heads = block_heads(state)
    # A record outlives the memory that was taken away: it was allocated for that, and never freed.
    heads = heads[~absent[heads]]
    heads, overlapped = _without_overlaps(records, heads)
    orders = records["order"][heads]
    result = Account(np.zeros(size, np.uint8), Blocks(heads, orders, heads))
    result.stale = overlapped
    _take_apart(result, records, before, after, free_twice, comp_gfp)

    covered = _cover(result, state, size, carried)
    classes = result.classes
    classes[:] = UNTRACKED
    classes[free_before | free_after] = FREE
    early = (state == EARLY) & (covered == 0)
    classes[early & ~free_twice] = IS_EARLY
    classes[(after & NEVER_GIVEN) != 0] = RESERVED
    for start, stop in deferred:
        part = classes[start:stop]
        part[(part == UNTRACKED) | (part == IS_EARLY)] = RESERVED
    for start, stop in outside:
        part = classes[start:stop]
        mine = (part == UNTRACKED) | (part == IS_EARLY)
        part[mine] = np.where(after[start:stop][mine] == 0, ABSENT, RESERVED)
    owned = covered != 0
    classes[owned] = _CLASS[covered[owned]]
    classes[absent] = ABSENT
    return result


def spoken_for(records: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which frames of a window have a record over them."""
    heads = block_heads(records["state"])
    ends = heads + (np.int64(1) << records["order"][heads].astype(np.int64))
    spoken: NDArray[np.bool_] = covered(heads, ends, len(records)) | (records["state"] == EARLY)
    return spoken


def block_heads(state: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where blocks that were seen allocated begin, by the states of records."""
    return np.flatnonzero((state == OWNED) | (state == FILTERED) | (state == WRITTEN))


def covered(heads: NDArray[np.int64], ends: NDArray[np.int64],
            length: int) -> NDArray[np.bool_]:
    """Which of so many frames lie in blocks, by where these begin and end."""
    edges = np.zeros(length + 1, np.int32)
    np.add.at(edges, heads, 1)
    np.add.at(edges, np.minimum(ends, length), -1)
    inside: NDArray[np.bool_] = np.cumsum(edges[:-1]) > 0
    return inside


def _without_overlaps(records: NDArray[np.void],
                      heads: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of blocks that overlap only the youngest is true: the free of the others was missed."""
    lost = [np.zeros(0, np.int64)]
    while len(heads) > 1:
        ends = heads + (np.int64(1) << records["order"][heads].astype(np.int64))
        clash = np.flatnonzero(ends[:-1] > heads[1:])
        if not len(clash):
            break
        older = records["ts"][heads[clash]] <= records["ts"][heads[clash + 1]]
        drop = np.unique(np.where(older, clash, clash + 1))
        lost.append(heads[drop])
        heads = np.delete(heads, drop)
    return heads, np.concatenate(lost)


def _take_apart(result: Account, records: NDArray[np.void], before: NDArray[np.uint64],
                after: NDArray[np.uint64], free_twice: NDArray[np.bool_], comp_gfp: int) -> None:
    """Blocks in part free, or compound no more, become what the flags show: smaller blocks.

    A block allocated with __GFP_COMP is one compound page as long as it is whole.
    """
    size = len(free_twice)
    place = result.blocks.place
    part_free, split = _doubtful(records, result.blocks, before, after, free_twice, comp_gfp)
    ends = np.minimum(place + (np.int64(1) << result.blocks.order.astype(np.int64)), size)
    wrong = np.flatnonzero(part_free | split)
    if not len(wrong):
        return
    result.stale = np.concatenate([result.stale, place[part_free]])
    result.split += int((split & ~part_free).sum())
    shape = pageflags.compound_order(after)
    keep = np.delete(np.arange(len(place)), wrong)
    places, orders, sources = [place[keep]], [result.blocks.order[keep]], [place[keep]]
    for number in wrong:
        inside = np.arange(place[number], ends[number])
        inside = inside[(shape[inside] >= 0) & ~free_twice[inside]]
        room = np.frexp((ends[number] - inside).astype(np.float64))[1] - 1  # log2, rounded down
        fitting = np.minimum(shape[inside].astype(np.int64), room)
        places.append(inside)
        orders.append(fitting.astype(np.uint8))
        sources.append(np.full(len(inside), place[number]))
    all_places = np.concatenate(places)
    by_place = np.argsort(all_places, kind="stable")
    result.blocks = Blocks(all_places[by_place], np.concatenate(orders)[by_place],
                           np.concatenate(sources)[by_place])


def unsure(records: NDArray[np.void], before: NDArray[np.uint64],
           comp_gfp: int) -> NDArray[np.int64]:
    """First frames of blocks, and early frames, of which these flags alone do not say what further
    ones would: those of all others make no difference to `account`.

    A block that is free nowhere now is not free in both readings, and one that looks whole now
    looks whole in one of them.
    """
    state = records["state"]
    free = (before & _BUDDY) != 0
    heads, _ = _without_overlaps(records, block_heads(state))
    part_free, split = _doubtful(records, Blocks(heads, records["order"][heads], heads),
                                 before, before, free, comp_gfp)
    return np.concatenate([heads[part_free | split], np.flatnonzero(free & (state == EARLY))])


def _doubtful(records: NDArray[np.void], blocks: Blocks, before: NDArray[np.uint64],
              after: NDArray[np.uint64], free_twice: NDArray[np.bool_],
              comp_gfp: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which blocks are free in part, and which are compound no more."""
    size = len(free_twice)
    part_free = free_twice[blocks.place]
    split = np.zeros(len(part_free), bool)
    large = np.flatnonzero(blocks.order)
    if not len(large):
        return part_free, split
    place, order = blocks.place[large], blocks.order[large].astype(np.int64)
    ends = np.minimum(place + (np.int64(1) << order), size)
    part_free[large] = _in_blocks(free_twice, place, ends) > 0
    compound = (records["gfp_mask"][place] & np.uint32(comp_gfp)) != 0
    whole_head = ((before[place] | after[place]) & _HEAD) != 0
    # the last page of a block that is still whole is a tail in at least one reading
    last = np.clip(ends - 1, 0, size - 1)
    whole_tail = ((before[last] | after[last]) & _TAIL) != 0
    found = compound & ~(whole_head & whole_tail)
    # ... and two compound pages in it mean that it was split into smaller compound pages
    inner = _in_blocks((before & after & _HEAD) != 0, place, ends)
    split[large] = found | ((order > 1) & compound & (inner > 1))
    return part_free, split


def _in_blocks(chosen: NDArray[np.bool_], place: NDArray[np.int64],
               ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the chosen frames are in each block; blocks in order, none in another."""
    where = np.flatnonzero(chosen)
    count: NDArray[np.int64] = np.searchsorted(where, ends) - np.searchsorted(where, place)
    return count


def _cover(result: Account, state: NDArray[np.uint8], size: int,
           carried: Iterable[tuple[int, int]]) -> NDArray[np.uint8]:
    """The state of the block over each frame; 0 where no block is."""
    place, order = result.blocks.place, result.blocks.order
    kinds = state[result.blocks.record]
    covered = np.zeros(size, np.uint8)
    covered[place] = kinds
    for larger in np.flatnonzero(np.bincount(order, minlength=1)[1:]) + 1:
        mine = order == larger
        begin, kind = place[mine], kinds[mine]
        inside = begin + (1 << int(larger)) <= size
        if larger <= _SPREAD:
            covered[begin[inside, None] + np.arange(1 << int(larger))] = kind[inside, None]
        else:
            inside[:] = False
        for first, what in zip(begin[~inside].tolist(), kind[~inside].tolist(), strict=True):
            end = first + (1 << int(larger))
            covered[first:end] = what
            if end > size:
                result.beyond.append((what, end - size))
    for what, pages in carried:
        covered[:pages] = what
        if pages > size:
            result.beyond.append((what, pages - size))
    return covered
