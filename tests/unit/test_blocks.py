"""Blocks of an order, frame by frame; and what compaction can move."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

import numpy as np
import pytest
from machines import STUCK, TYPES, Machine, Page, machine

from pageowner.analysis.blocks import STATES, blocks, in_the_way, kinds, reachable
from pageowner.analysis.memory import memory, spread
from pageowner.errors import PageownerError
from pageowner.kernel import compaction, pageflags
from pageowner.model.pfn_runs import joined, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from pageowner import Snapshot

ORDERS = (*range(12), 18)


@pytest.fixture(scope="module")
def before(data: Path) -> np.ndarray:
    with lzma.open(data / "6.12-fragmented/kpageflags.before.xz") as file:
        return np.frombuffer(file.read(), np.uint64)


@pytest.mark.parametrize("order", ORDERS)
def test_every_block_of_a_real_machine_is_free_clearable_or_blocked(
        big: Snapshot, before: np.ndarray, order: int) -> None:
    found = blocks(memory(big, before), order)
    held = np.zeros(len(before), bool)
    for name in ("reserved", "nopage", "offline", "hwpoison"):
        held |= before & pageflags.bit(name) != 0
    real = int((~held.reshape(-1, 1 << order)).any(axis=1).sum())
    states = found.count()
    assert states["free"] + states["clearable"] + states["blocked"] == real
    assert states["unknown"] == 0
    total = found.movable + found.stuck + found.unsure + found.held + found.free
    assert (total == 1 << order).all()


@pytest.mark.parametrize("order", ORDERS)
def test_a_dump_alone_says_of_which_blocks_it_knows_nothing(big: Snapshot, order: int) -> None:
    found = blocks(memory(big), order)
    states = found.count()
    assert states["free"] == 0
    assert sum(states.values()) == len(found.number)
    # what has no record at all, and nothing else: this dump's pages are all of a known kind
    pfn = big.table["pfn"].to_numpy().astype(np.int64)
    pages = np.left_shift(1, big.table["order"].to_numpy().astype(np.int64))
    covered = np.zeros(len(found.number) + 1, np.int64)
    low = int(found.number[0])
    np.add.at(covered, (pfn >> order) - low, 1)
    np.add.at(covered, ((pfn + pages - 1) >> order) + 1 - low, -1)
    assert states["unknown"] == int((np.cumsum(covered[:-1]) == 0).sum())


def test_with_the_flags_no_block_is_free_in_which_the_dump_has_a_record(
        big: Snapshot, before: np.ndarray) -> None:
    alone, with_flags = blocks(memory(big), 9), blocks(memory(big, before), 9)
    free = with_flags.number[with_flags.state == STATES.index("free")]
    assert len(free) == 30
    unknown = alone.number[alone.state == STATES.index("unknown")]
    assert np.isin(free, unknown).all()


def test_flags_of_another_machine_or_time_are_noticed(big: Snapshot, before: np.ndarray) -> None:
    with pytest.raises(PageownerError, match="not of the same machine"):
        memory(big, before[: 1 << 17])
    assert not memory(big, before).notes
    idle = np.full(len(before), pageflags.bit("buddy"), np.uint64)
    assert "of another time" in memory(big, idle).notes[0]


def by_frame(made: Machine, order: int) -> dict[str, int]:
    at, size = made.owner_at(), 1 << order
    counts = dict.fromkeys(STATES, 0)
    limit = min(order, made.pageblock_order) if order <= 10 else order
    for first in range(0, made.frames, size):
        frames = range(first, min(first + size, made.frames))
        if all(pfn in made.held for pfn in frames):
            continue
        zones = {name for name, start, end in made.zones for pfn in frames if start <= pfn < end}
        pages = [at[pfn] for pfn in frames if at[pfn]]
        if (len(zones) > 1 or any(pfn in made.held for pfn in frames) or len(frames) < size
                or any(page.what in STUCK or page.order >= limit or
                       (page.what == "batch" and page.order >= made.pageblock_order)
                       for page in pages if page)):
            counts["blocked"] += 1
        else:
            counts["clearable" if pages else "free"] += 1
    return counts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("order", [0, 1, 2, 4, 5, 7, 10, 12])
def test_blocks_are_what_their_frames_say(seed: int, order: int) -> None:
    made = machine(seed)
    assert blocks(memory(made.snapshot()), order).count() == by_frame(made, order)


def test_a_single_page_keeps_a_block_only_if_nothing_else_does(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TYPES, "batch", None)  # whether it moves is not known
    made = Machine(96, 4, [("DMA", 0, 24), ("Normal", 24, 96)], held={75})
    made.pages = [Page(pfn, 0, what, "a") for pfn, what in (
        (3, "buffer"), (20, "buffer"), (33, "buffer"), (40, "batch"), (50, "buffer"),
        (52, "cache"), (70, "buffer"), (82, "buffer"), (83, "buffer"))]
    # the first and the fourth; others are of two zones, unsure, held or of two pages
    assert blocks(memory(made.snapshot()), 4).kept_by_one() == 2


@pytest.mark.parametrize("seed", range(4))
def test_who_is_in_the_way_is_every_page_that_cannot_be_moved(seed: int) -> None:
    made = machine(seed, largest=2)
    seen = memory(made.snapshot())
    for order in (4, 5):
        found = blocks(seen, order)
        who, at = in_the_way(seen, found)
        told = {(made.pages[int(seen.row[one])].pfn, int(found.number[where]))
                for one, where in zip(who, at, strict=True)}
        assert told == {(page.pfn, page.pfn >> order) for page in made.pages
                        if page.what in STUCK}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_in_a_block_adds_up_to_the_block(seed: int) -> None:
    made = machine(seed)
    seen = memory(made.snapshot())
    for order in (2, 4, 6):
        found = blocks(seen, order)
        assert (sum(kinds(seen, found).values()) == 1 << order).all()


def test_what_is_moved_needs_room() -> None:
    made = machine(1, kinds=("anonymous",), largest=1)
    snapshot = made.snapshot()
    seen = memory(snapshot)
    found = blocks(seen, 4)
    clear = found.state == STATES.index("clearable")
    reached = reachable(snapshot, seen, found)
    assert 0 < reached < clear.sum()
    for place in range(len(seen.stretches)):  # no zone takes another's pages
        mine = found.place == place
        room = found.free[mine & (found.state != STATES.index("free"))].sum()
        most = np.cumsum(np.sort((found.movable + found.free)[mine & clear]))
        assert (most <= room).sum() <= reached


def test_dropped_page_cache_needs_no_room() -> None:
    made = machine(2, kinds=("cache",), largest=1)
    snapshot = made.snapshot()
    seen = memory(snapshot)
    found = blocks(seen, 4)
    everything = int((found.state == STATES.index("clearable")).sum())
    assert reachable(snapshot, seen, found) < everything
    assert reachable(snapshot, seen, found, reclaim=True) == everything


@pytest.mark.parametrize(("flags", "lru"), [
    ("0x2003c(referenced|uptodate|dirty|lru|swapbacked|node=0|zone=0)", True),
    ("0x40(head|node=0|zone=0)", False), ("0x0()", False), ("0x8(uptodate)", False),
    ("    U L          ", True), ("  RU              ", False), ("0x40", None), (None, None),
])
def test_lru_is_read_off_the_flags_of_every_kernels_dump(flags: str | None,
                                                         lru: bool | None) -> None:
    assert compaction.by_text(flags) is lru


def test_what_is_not_known_to_move_or_to_stay_is_unknown() -> None:
    order = np.zeros(5, np.uint8)
    lru = np.array([-1, -1, 0, 1, 0], np.int8)
    movable = np.array([-1, 0, -1, 0, 0], np.int8)
    known = compaction.movability(order, lru, movable, 9)
    assert known.tolist() == [compaction.UNKNOWN] * 3 + [compaction.CAN, compaction.CANNOT]
    bits = np.array([int(pageflags.bit(name)) if name else 0
                     for name in ("slab", "anon", "", "huge", "")], np.uint64)
    assert compaction.by_flags(bits, known).tolist() == [
        compaction.CANNOT, compaction.CAN, compaction.UNKNOWN, compaction.CANNOT,
        compaction.CANNOT]


def test_a_huge_page_is_moved_only_for_a_gigantic_one() -> None:
    known, order = np.array([compaction.CAN] * 2, np.uint8), np.array([9, 3], np.uint8)
    can, cannot = compaction.CAN, compaction.CANNOT
    for wanted, moves in ((9, [cannot, can]), (10, [cannot, can]), (18, [can] * 2),
                          (3, [cannot] * 2)):
        assert compaction.at_order(known, order, wanted, 9, 10).tolist() == moves
    single = np.array([9, 0], np.uint8)
    for wanted, moves in ((9, [cannot, can]), (2, [cannot, can]), (18, [can] * 2)):
        assert compaction.at_order(known, single, wanted, 9, 10, False).tolist() == moves
    assert compaction.at_order(known, order, 9, 9, 10, False).tolist() == [cannot] * 2
    assert [compaction.moves_large_folios(release) for release in (
        None, "6.1.0-28-amd64", "6.8.12", "6.9.0", "7.3.4")] == [True, False, False, True, True]


def test_runs_survive_being_saved() -> None:
    runs = joined([(5, 9), (0, 2), (9, 12), (11, 20), (30, 30), (1 << 40, (1 << 40) + 1)])
    assert runs.tolist() == [[0, 2], [5, 20], [1 << 40, (1 << 40) + 1]]
    again = unpack(pack(runs))
    assert again is not None
    assert again.tolist() == runs.tolist()
    assert unpack(pack(joined([]))).tolist() == []  # type: ignore[union-attr]
    for bad in (None, 5, "", "????", "AAAA", pack(runs)[:-8], pack(np.array([[9, 3]]))):
        assert unpack(bad) is None


def test_runs_are_counted_between_edges() -> None:
    first, pages = np.array([2, 8, 20]), np.array([3, 8, 1])
    assert spread(first, pages, np.array([0, 4, 8, 12, 16, 20, 24])).tolist() == [2, 1, 4, 4, 0, 1]
    assert spread(first[:0], pages[:0], np.array([0, 4, 8])).tolist() == [0, 0]
