"""What `serve` makes of looks at a running tracker: sums that add up, and growth over a window that
goes on. tests/live has the tracker itself."""

from __future__ import annotations

import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from looks import PIPE, START, look
from served import HOSTILE  # noqa: F401  # skips where the extra is not installed

from pageowner.errors import PageownerError
from pageowner.model.live import Health, LiveBlocks
from pageowner.server import gathering, sources
from pageowner.server.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.model.live import Look

S = 10**9
PAGE = os.sysconf("SC_PAGE_SIZE")
COUNTERS = {"allocs": 10, "nested_allocs": 1, "bulk": 200, "frees": 4, "nested_frees": 0}


class Tracker:
    """A tracker as `LiveReader` shows it, on which pipes leak 10 MiB at every tenth look."""

    def __init__(self) -> None:
        self.at = 0
        self.off = False
        self.health = Health({"owned": 9000, "early": 5, "untracked": 7, "free": 100}, 9, 10, 3, 2,
                             1, 50, 1 << 20)
        self.store = SimpleNamespace(counters=lambda: COUNTERS, bpf=None, fd=lambda name: 0,
                                     facts={"since_ns": START})

    def counts(self, fields: list[str]) -> Look:
        if self.off:
            raise PageownerError("tracking was turned off")
        self.at += 1
        return look(self.at * 60.0, [4000, 300, 2000, 7, 100 + 2560 * (self.at // 10), 900, 3])

    def container_names(self, paths: list[str | None]) -> dict[str, str]:
        return {}

    def blocks(self) -> LiveBlocks:
        births = np.concatenate([np.full(100, -500.0), *(
            np.full(2560, look * 60.0 - 1) for look in range(10, self.at + 1, 10))])
        rows = len(births)
        return LiveBlocks(
            START + self.at * 60 * S,
            {"stack": (np.zeros(rows, np.int32), [PIPE]),
             "task": (np.zeros(rows, np.int32), [("leaker", 4, 4)]),
             "migratetype": (np.zeros(rows, np.int32), ["Unmovable"])},
            np.ones(rows, np.int64), (START + births * S).astype(np.uint64), {"untracked": 7})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> tuple[sources.Machine, Tracker]:
    tracker = Tracker()

    @contextmanager
    def reader() -> Iterator[Any]:
        yield tracker

    monkeypatch.setattr("pageowner.api.watch.live_reader", reader)
    monkeypatch.setattr("pageowner.server.sources.is_tracking", lambda: not tracker.off)
    monkeypatch.setattr("pageowner.tracker.load.memo.read_counters",
                        lambda *_: {"differences": 0, "checks": 8})
    return sources.Machine(3600 * S), tracker


def test_a_look_adds_up(machine: tuple[sources.Machine, Tracker]) -> None:
    here, tracker = machine
    found = here.figures()
    Figures(source=here.name, tracking=True, **found)
    total = int(tracker.counts([]).pages.sum()) * PAGE
    assert sum(found["subsystems"].values()) == total
    assert sum(owner.bytes for owner in found["stacks"]) + found["other_stacks"] == total
    assert sum(found["cgroups"].values()) + found["other_cgroups"] == total
    assert found["states"]["untracked"] == 7 * PAGE
    assert not any(c in name for name in found["cgroups"] for c in "\x1b\n")
    assert found["health"]["missed"] == 3
    assert found["health"]["allocs"] == 211
    assert found["since_ns"] == START


def test_growth_is_judged_over_a_window_that_goes_on(
        machine: tuple[sources.Machine, Tracker]) -> None:
    """Two watches overlap: at any time after the first half an hour one has seen as much."""
    here, _ = machine
    seen = []
    for number in range(200):
        found = here.figures()
        assert len(here._watches) <= 2
        if number >= 40:
            assert found["watched"] >= 1700
            assert found["watched"] <= 3700
        seen.append([owner for owner in found.get("growth", []) if owner.kind == "leak"])
    assert all(len(leaks) == 1 for leaks in seen[70:])
    (leak,) = seen[-1]
    assert leak.subsystem == "pipes"
    assert leak.rate == pytest.approx(2560 * PAGE / 600, rel=0.3)


def test_tracking_that_ends_is_told_and_begins_anew(
        machine: tuple[sources.Machine, Tracker]) -> None:
    here, tracker = machine
    for _ in range(6):
        here.figures()
    assert here.watched()[0] is not None
    tracker.off = True
    assert set(here.figures()) == {"taken"}
    assert not here.tracking
    tracker.off = False
    assert here.figures()["stacks"]
    assert here.watched() == (None, None)


def test_names_are_printable_and_end() -> None:
    assert gathering.name_of("a\x1b[2Jb\n") == "a\\x1b[2Jb\\x0a"
    assert len(gathering.name_of("x" * 5000)) == 200
    assert gathering.name_of("x" * 5000) == gathering.name_of("x" * 5000)
    assert gathering.stack_id(None) == "none"
    assert gathering.stack_id("f+0x1/0x2\ng+0x3/0x4") == gathering.stack_id("f+0x9/0x2\ng")


def test_cgroups_with_the_same_beginning_keep_their_own_memory_and_pods() -> None:
    """As the cgroups of containers in a deep tree: only their ends tell them apart."""
    parent = "/kubepods.slice/" + "deep/" * 50
    paths = [f"{parent}pod{digit * 8}-1111-1111-1111-{digit * 12}/{digit * 64}" for digit in "12"]
    cgroups = dict(zip(paths, (10, 20), strict=True))
    found = gathering._named({}, cgroups, [], {})
    assert sorted(found["cgroups"].values()) == [10, 20]
    assert all(len(name) <= 200 for name in found["cgroups"])
    pods = {number: found["containers"][name] for name, number in found["cgroups"].items()}
    assert pods[10][1] == "1" * 12
    assert pods[20][1] == "2" * 12
