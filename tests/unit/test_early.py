"""What was in use before tracking began, where hooks are attached one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from pageowner.kernel import pageflags
from pageowner.tracker.read import early
from pageowner.tracker.read.maps import EARLY, EARLY_WORD, NONE, OWNED, RECORD, Span

LRU, BUDDY = pageflags.bit("lru"), pageflags.bit("buddy")


class Machine:
    """Records and flags of some frames, and what the kernel's side of `settle` does to them."""

    def __init__(self, flags: dict[int, int], first: int = 0, size: int = 2048) -> None:
        self.flags = np.zeros(size, "u8")
        self.spans = [Span(first, np.zeros(size, RECORD))]
        self.records = self.spans[0].records
        for pfn, bits in flags.items():
            self.flags[pfn] = bits

    def read_flags(self, ranges: list[tuple[int, int]]):
        for start, end in ranges:
            yield start, self.flags[start:end]

    def unused(self, pfns: np.ndarray) -> np.ndarray:
        return np.ones(len(pfns), bool)

    def settle(self, first: int, chosen: np.ndarray, mark: bool = False) -> None:
        state = self.records["state"][first:first + len(chosen)]
        state[chosen & (state == (NONE if mark else EARLY))] = EARLY if mark else NONE


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine({1: LRU, 2: BUDDY, 3: LRU, 700: LRU, **dict.fromkeys(range(1024, 1032), LRU)})
    monkeypatch.setattr(early, "read_flags", made.read_flags)
    return made


def test_a_page_that_no_hook_saw_taken_while_they_were_attached_is_early(machine: Machine) -> None:
    machine.records["state"][[1, 2]] = EARLY
    early.settle(machine, [(0, 2048)])
    assert np.flatnonzero(machine.records["state"] == EARLY).tolist() == [1, 3, 700,
                                                                        *range(1024, 1032)]
    assert EARLY_WORD >> 8 == EARLY


def test_pages_of_a_block_that_a_hook_saw_are_not(machine: Machine) -> None:
    machine.records["state"][1024] = OWNED
    machine.records["order"][1024] = 3
    early.settle(machine, [(0, 2048)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [1, 3, 700, 1024]


def test_a_block_that_reaches_into_the_next_span_speaks_for_its_pages_there(
        machine: Machine) -> None:
    machine.spans[:] = [Span(0, machine.records[:1024]), Span(1024, machine.records[1024:])]
    machine.records["state"][0] = OWNED
    machine.records["order"][0] = 11
    early.settle(machine, [(0, 2048)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [0]


def test_a_block_that_is_taken_while_its_pages_are_marked_wins(
        machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record appears between the look at the records and the marking."""
    unmarked = machine.settle

    def settle(first: int, chosen: np.ndarray, mark: bool = False) -> None:
        if mark:
            machine.records["state"][1024] = OWNED
            machine.records["order"][1024] = 3
        unmarked(first, chosen, mark)

    monkeypatch.setattr(machine, "settle", settle)
    early.settle(machine, [(0, 2048)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [1, 3, 700, 1024]


def test_a_page_that_is_freed_before_it_is_marked_is_not_early(
        machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook sees the free, and finds no record to end: the mark would stay on a free page."""
    unmarked = machine.settle

    def settle(first: int, chosen: np.ndarray, mark: bool = False) -> None:
        if mark:
            machine.flags[3], machine.flags[700] = BUDDY, 0
        unmarked(first, chosen, mark)

    monkeypatch.setattr(machine, "settle", settle)
    early.settle(machine, [(0, 2048)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [1, *range(1024, 1032)]


@pytest.mark.parametrize("hole", [(8, 512), (512, 512)])
def test_a_block_in_another_piece_of_memory_does_not_speak_for_the_pages_of_this_one(
        machine: Machine, hole: tuple[int, int]) -> None:
    """A span's frames are looked at in pieces: between holes, and so many at once."""
    machine.records["state"][1800] = OWNED
    early.settle(machine, [(0, hole[0]), (hole[1], 2048)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [1, 3, 700, *range(1024, 1032),
                                                                1800]


def test_frames_outside_of_memory_are_left_alone(machine: Machine) -> None:
    early.settle(machine, [(2, 1000), (1024, 1028)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [3, 700, *range(1024, 1028)]


def test_frames_that_the_page_allocator_was_not_given_are_nobodys(machine: Machine) -> None:
    early.settle(machine, [(0, 2048)], [(600, 1026)])
    assert np.flatnonzero(machine.records["state"]).tolist() == [1, 3, *range(1026, 1032)]
