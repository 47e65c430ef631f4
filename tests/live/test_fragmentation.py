"""What frag says of this machine, beside what its kernel says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from socket_buffers import fill

import pageowner
from pageowner.analysis.blocks import blocks
from pageowner.analysis.fragmentation import fragmentation, huge, indices
from pageowner.analysis.memory import memory
from pageowner.kernel import free_area, pageflags, zones
from pageowner.kernel.meminfo import pcp_pages

if TYPE_CHECKING:
    from pageowner import Snapshot

EXTFRAG = Path("/sys/kernel/debug/extfrag")
TRIES = 20


def test_indices_are_those_that_the_kernel_prints() -> None:
    if not os.path.isdir(EXTFRAG):
        pytest.skip("no indices are shown here: no debugfs, no compaction, or not to this user")
    for _ in range(TRIES):
        before = zones.parse_buddyinfo(zones.read_text("/proc/buddyinfo"))
        told = {name: (EXTFRAG / name).read_text() for name in ("unusable_index", "extfrag_index")}
        if zones.parse_buddyinfo(zones.read_text("/proc/buddyinfo")) == before:
            break
    else:
        pytest.skip("free memory never stood still between two readings")
    for name, key in (("unusable_index", "unusable"), ("extfrag_index", "fragmentation")):
        for line in told[name].splitlines():
            words = line.replace(",", "").split()
            if (int(words[1]), words[3]) not in before:
                continue  # a zone without pages
            counts = before[int(words[1]), words[3]]
            ours = [f"{number // 1000 if number >= 0 else -1}.{abs(number) % 1000:03d}"
                    for number in indices(counts)[key]]
            assert ours == words[4:]


def test_free_blocks_by_page_flags_are_the_kernels_but_for_what_moved() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to read page flags")
    known = zones.running().zones
    before = zones.parse_buddyinfo(zones.read_text("/proc/buddyinfo"))
    counted = free_area.by_order(pageflags.read(), known)
    after = zones.parse_buddyinfo(zones.read_text("/proc/buddyinfo"))
    for zone in known:
        ours, one, two = (free_area.free_pages(found[zone.node, zone.name])
                          for found in (counted, before, after))
        assert min(one, two) - 0.05 * zone.managed <= ours <= max(one, two) + 0.05 * zone.managed


class Free(NamedTuple):
    """Free pages: on the lists of the zones, and with those on the lists of the CPUs."""

    of_zones: int
    of_all: int


def free_now() -> Free:
    of_zones = sum(map(free_area.free_pages, zones.parse_buddyinfo(
        zones.read_text("/proc/buddyinfo")).values()))
    return Free(of_zones, of_zones + pcp_pages(zones.read_text("/proc/zoneinfo")))


class Around(NamedTuple):
    """A capture, and what was free just before and after it."""

    snapshot: Snapshot
    free: tuple[Free, Free]


@pytest.fixture(scope="module")
def around(tracking: None) -> Around:
    """This machine, after a task has filled socket buffers, which cannot be moved."""
    pairs = [socket.socketpair() for _ in range(64)]
    for left, _ in pairs:
        fill(left)
    try:
        before = free_now()
        return Around(pageowner.read(), (before, free_now()))
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.fixture(scope="module")
def live(around: Around) -> Snapshot:
    return around.snapshot


def test_a_live_capture_knows_what_is_free(live: Snapshot) -> None:
    seen = memory(live)
    assert seen.sees_free
    for order in (3, 9, 10, 18):
        found = blocks(seen, order)
        states = found.count()
        assert sum(states.values()) == len(found.number)
        total = found.movable + found.stuck + found.unsure + found.held + found.free
        assert (total == 1 << order).all()
    nine = blocks(seen, 9)
    # frames of the zones that are in no row and not held back are those counted free
    pages = int(seen.pages.sum())
    frames = live.meta.frames
    assert pages == frames["owned"] + frames["early"] + frames["untracked"]
    assert int(nine.free.sum()) == pytest.approx(frames["free"], rel=0.001)


@pytest.fixture(scope="module")
def by_subsystem(live: Snapshot) -> dict[str, Any]:
    return fragmentation(live, "subsystem")


def test_free_memory_is_told_as_the_kernel_lists_it(around: Around,
                                                    by_subsystem: dict[str, Any]) -> None:
    found = by_subsystem
    # others take and free memory while the capture goes on
    for pages, free in (
            (sum(zone["pages"] for zone in found["free"]), [now.of_zones for now in around.free]),
            (around.snapshot.meta.frames["free"], [now.of_all for now in around.free])):
        assert 0.95 * min(free) <= pages <= 1.05 * max(free)
    assert not found["mixed_exact"]
    assert found["polluters"]


@pytest.fixture(scope="module")
def in_the_way(live: Snapshot) -> dict[str, Any]:
    return huge(live, 9, "pid", want=3)


def test_who_holds_socket_buffers_is_said_to_be_in_the_way(in_the_way: dict[str, Any]) -> None:
    mine = [one for one in in_the_way["blockers"] if one["pid"] == os.getpid()]
    assert mine
    assert mine[0]["blocking_pages"] > 2000


def test_fragmentation_events_are_those_that_were_counted(live: Snapshot) -> None:
    counters = live.meta.counters
    told = live.meta.extra["extfrag"]
    # The counter is read later than the events.
    assert sum(one["count"] for one in told) <= counters["extfrag"]
    assert counters["extfrag_full"] == 0
    for one in told:
        assert one["migratetype"] != one["fallback_migratetype"]
        assert one["order"] <= 10
        assert 0 < one["last_ns"] <= (live.meta.clock_ns or 0)
        assert one["count"] > 0


def test_a_saved_capture_says_the_same(live: Snapshot, by_subsystem: dict[str, Any],
                                       in_the_way: dict[str, Any], tmp_path: Path) -> None:
    live.save(tmp_path / "now.parquet")
    again = pageowner.read(tmp_path / "now.parquet")
    assert huge(again, 9, "pid", want=3) == in_the_way
    assert fragmentation(again, "subsystem") == by_subsystem


def test_the_command_asks_this_machine(tracking: None) -> None:
    done = subprocess.run([sys.executable, "-m", "pageowner", "frag", "--order", "9", "--json"],
                          capture_output=True, check=True, text=True)
    states = json.loads(done.stdout)["states"]
    assert set(states) == {"free", "clearable", "blocked", "unknown"}
    assert sum(states.values()) > 0
