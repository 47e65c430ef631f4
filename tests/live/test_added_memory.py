"""Memory that was added since tracking began, on made-up page frames."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.load.loading import HOOK_NUMBERS, Sizes, Tracker, add_memory
from pageowner.tracker.read import reading
from pageowner.tracker.read.layout import SPARES
from pageowner.tracker.read.maps import OWNED, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

VMEMMAP = 0xFFFFEA0000000000
SHIFT, SPANS = 12, 64
FIRST = 16
"""The span that is there from the beginning."""
PROGRAMS = ("on_alloc", "on_free", "on_nested_alloc", "on_nested_free", "made_up", "hold_spares")


class Machine:
    """A tracker that is told of allocations."""

    def __init__(self, bpf: Libbpf, tracker: Tracker) -> None:
        assert tracker.main is not None
        self.bpf, self.tracker, self.main = bpf, tracker, tracker.main
        self.size = bpf.type_size("page")

    def run(self, program: str, *arguments: int) -> None:
        self.bpf.run(self.main.program_fd(program), *arguments)

    def alloc(self, pfn: int, order: int = 0) -> None:
        self.run("on_alloc", VMEMMAP + pfn * self.size, order, 0xCC0, 0)

    def free(self, pfn: int, order: int = 0) -> None:
        self.run("on_free", VMEMMAP + pfn * self.size, order)

    def store(self) -> Store:
        store = self.tracker.store()
        store._fds["hold_spares"] = os.dup(self.main.program_fd("hold_spares"))
        return store

    def owned(self) -> dict[int, int]:
        """Orders of the owned blocks by pfn."""
        with self.store() as store:
            return {span.first + int(i): int(span.records["order"][i]) for span in store.spans
                    for i in np.flatnonzero(span.records["state"] == OWNED)}

    def spans(self) -> list[int]:
        with self.store() as store:
            return [span.first >> SHIFT for span in store.spans]

    def out_of_range(self) -> int:
        with self.store() as store:
            return store.counters()["out_of_range"]

    def cover(self, *spans: int) -> int:
        with self.store() as store:
            made = add_memory(store, [(span << SHIFT, (span + 1) << SHIFT) for span in spans])[0]
            store.free_spares()
            return made


@pytest.fixture(params=[False, True], ids=["plain", "free_side"])
def machine(bpf: Libbpf, request: pytest.FixtureRequest) -> Iterator[Machine]:
    sizes = Sizes(span_shift=SHIFT, spans=SPANS, tasks=64, stacks=256, spares=SPARES)
    with Tracker(bpf, sizes, 16, {"vmemmap": VMEMMAP}, free_side=request.param) as tracker:
        tracker.load(*PROGRAMS)
        tracker.cover([(FIRST << SHIFT, (FIRST + 1) << SHIFT)])
        yield Machine(bpf, tracker)


def test_a_spare_keeps_what_is_seen_of_added_memory(machine: Machine) -> None:
    one, other = 20 << SHIFT, 22 << SHIFT
    machine.free(one, 10)  # as it is put online
    machine.alloc(one + 8, 3)
    machine.alloc(other + 1)
    machine.alloc(one + 5)
    machine.free(one + 5)
    assert machine.owned() == {one + 8: 3, other + 1: 0}
    assert machine.spans() == [FIRST, 20, 22]
    assert machine.out_of_range() == 0
    with machine.store() as store:
        assert store.spares_in_use()
        assert reading.pages_by_state(store.spans)["owned"] == 9
        if store.facts["options"]["free_side"]:
            freed = next(span for span in store.freed if span.first == one)
            assert freed.records["ts"][5] > freed.records["ts"][0] > 0


def test_pages_that_move_into_added_memory_keep_their_owner(machine: Machine) -> None:
    old, new = (FIRST << SHIFT) + 7, (21 << SHIFT) + 9
    machine.alloc(old)
    machine.run("made_up", HOOK_NUMBERS["migrate"], new, old, 0, 2)
    machine.free(old)
    assert machine.owned() == {new: 0}


def test_what_finds_no_spare_is_counted(machine: Machine) -> None:
    machine.alloc(20 << SHIFT)
    machine.alloc((20 + SPARES) << SHIFT)  # has the same spare
    machine.alloc((SPANS << SHIFT) + 5)  # beyond all spans, where the spares' own numbers are
    machine.alloc((SPANS + SPARES) << SHIFT)
    assert machine.owned() == {20 << SHIFT: 0}
    assert machine.out_of_range() == 3


def test_covering_moves_a_spare_to_its_span_and_frees_it(machine: Machine) -> None:
    before = {20 << SHIFT: 0, (21 << SHIFT) + 3: 0}
    for pfn in before:
        machine.alloc(pfn)
    assert machine.cover(FIRST, 20, 21, 23) == 3
    assert machine.spans() == [FIRST, 20, 21, 23]
    assert machine.owned() == before
    with machine.store() as store:
        assert not store.spares_in_use()
        keys = []
        for key, fd in store._inner_maps("spans"):
            os.close(fd)
            keys.append(key)
        assert keys == [FIRST, 20, 21, 23, *range(SPANS, SPANS + SPARES)]
    assert machine.cover(FIRST, 20, 21, 23) == 0
    for pfn in before:
        machine.free(pfn)
    machine.alloc(24 << SHIFT)  # in the spare that was span 20's, which is new
    assert machine.owned() == {24 << SHIFT: 0}
    assert machine.spans() == [FIRST, 20, 21, 23, 24]


def test_a_cover_that_was_killed_is_made_good_by_the_next(machine: Machine) -> None:
    machine.alloc(20 << SHIFT)
    machine.run("hold_spares", 0)
    machine.alloc(21 << SHIFT)
    assert machine.out_of_range() == 1, "no spare is taken while userspace works on them"
    with machine.store() as store:
        assert store.taken_spares() == {0: 20}
        assert store.spares_in_use()
    assert machine.cover(FIRST, 20) == 1
    machine.alloc(21 << SHIFT)
    assert machine.owned() == {20 << SHIFT: 0, 21 << SHIFT: 0}


def test_added_memory_is_read_though_the_facts_do_not_know_it_yet(machine: Machine) -> None:
    machine.alloc(21 << SHIFT)
    with machine.store() as store:
        store.facts["ranges"] = [[FIRST << SHIFT, (FIRST + 1) << SHIFT]]
        assert [span.first >> SHIFT for span in store.spans] == [FIRST, 21]
        assert store.span_numbers() == {FIRST}
    assert machine.cover(FIRST) == 1
    with machine.store() as store:
        store.facts.update(ranges=[[FIRST << SHIFT, (FIRST + 1) << SHIFT]], other_spans=[21])
        assert [span.first >> SHIFT for span in store.spans] == [FIRST, 21]
