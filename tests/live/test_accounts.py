"""The accounts close: every page frame of this machine is in exactly one place, idle or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from machine import (
    Frees,
    free_frames,
    known_frames,
    managed_frames,
    memory_cgroup,
    pages_by_state,
)

from pageowner.errors import PageownerError
from pageowner.kernel import pageflags
from pageowner.model.hook_states import is_whole
from pageowner.model.snapshot import STATES, Snapshot

_LOAD_SECONDS = 4


@dataclass
class Taken:
    """A capture, and what the kernel said meanwhile: managed frames before and after, the least
    and the most free frames."""

    snapshot: Snapshot
    managed: tuple[int, int]
    free: tuple[int, int]
    most_stale: int | None


def _take(frees: Frees | None) -> Taken:
    from pageowner.sources.source import read

    free, done = [free_frames()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            free.append(free_frames())

    before = managed_frames()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if frees:
            frees.capture_begins()
        snapshot = read()
    finally:
        done.set()
        watcher.join()
    most_stale = frees and frees.most_stale(snapshot.meta.counters["stale_pages"])
    return Taken(snapshot, (before, managed_frames()), (min(free), max(free)), most_stale)


@pytest.fixture(scope="module")
def frees(tracking: None) -> Frees | None:
    try:
        return Frees()
    except PageownerError:
        return None


@pytest.fixture(scope="module", params=["idle", "loaded"])
def taken(request: pytest.FixtureRequest, frees: Frees | None,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    """A capture of this machine as it is, and one while forks, copies, builds and reclaim go on."""
    if request.param == "idle":
        yield _take(frees)
        return
    place = tmp_path_factory.mktemp("load")
    with memory_cgroup("accounts", 48 << 20) as cgroup:
        load = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("load.py"), place, str(cgroup or "")],
            start_new_session=True)
        try:
            time.sleep(_LOAD_SECONDS)
            yield _take(frees)
            assert load.poll() is None, "the load ended by itself"
        finally:
            os.killpg(load.pid, signal.SIGKILL)
            load.wait()


def test_every_page_frame_is_in_exactly_one_account(taken: Taken) -> None:
    frames = taken.snapshot.meta.frames
    assert set(frames) == {"free", "owned", "early", "untracked", "reserved"}
    assert sum(frames.values()) == known_frames()


def test_the_rows_hold_the_pages_of_their_account(taken: Taken) -> None:
    frames = taken.snapshot.meta.frames
    assert pages_by_state(taken.snapshot) == {state: frames[state] for state in STATES}
    assert frames["owned"] > 0
    assert frames["early"] > 0


@pytest.mark.parametrize("by", ["state", "stack", "comm,order", "subsystem", "memcg,state"])
def test_a_report_sums_up_to_the_accounts(taken: Taken, by: str) -> None:
    frames = taken.snapshot.meta.frames
    report = taken.snapshot.report(by=by)
    assert sum(report["pages"].to_pylist()) == sum(frames[state] for state in STATES)
    if by == "state":
        pages = dict(zip(report["state"].to_pylist(), report["pages"].to_pylist(), strict=True))
        assert pages == {state: frames[state] for state in STATES if frames[state]}


def test_no_page_is_in_two_rows(taken: Taken) -> None:
    table = taken.snapshot.table
    pfn = table["pfn"].to_numpy().astype("i8")
    end = pfn + (1 << table["order"].to_numpy().astype("i8"))
    assert (end[:-1] <= pfn[1:]).all()


def test_what_was_never_given_to_the_allocator_is_reserved(taken: Taken) -> None:
    """Frames that exist are managed or reserved; some machines are given memory as they run."""
    reserved, known = taken.snapshot.meta.frames["reserved"], known_frames()
    assert known - taken.managed[1] <= reserved <= known - taken.managed[0]


def test_free_pages_are_as_many_as_the_kernel_counts(taken: Taken) -> None:
    """Within what changes while a capture reads, and a hundredth: the machine goes on working."""
    free, slack = taken.snapshot.meta.frames["free"], taken.managed[1] // 100
    assert taken.free[0] - slack <= free <= taken.free[1] + slack


def test_untracked_pages_are_few_and_say_what_they_are(taken: Taken) -> None:
    """Less than one in a thousand; each has the flags that tell its kind, and the snapshot says
    which hooks are missing. On a kernel with all hooks only an interrupt's pages can be left."""
    meta = taken.snapshot.meta
    assert meta.frames["untracked"] < taken.managed[1] / 1000
    rows = taken.snapshot.select(state=("untracked",))
    assert rows.table["page_flags"].null_count == 0
    named = rows.report(by="subsystem")["subsystem"].to_pylist()
    assert all(name.endswith("(untracked)") for name in named)
    missing = [name for name, state in meta.hooks.items() if not is_whole(state)]
    if not missing:
        assert meta.frames["untracked"] <= 4 * meta.counters["missed_in_interrupts"]


def test_records_of_free_pages_are_those_whose_free_was_lost(taken: Taken) -> None:
    if taken.most_stale is None:
        pytest.skip("this kernel does not count the pages that are freed")
    assert taken.snapshot.meta.counters["stale_pages"] <= taken.most_stale


def test_gfp_flags_have_names_beside_pages_that_have_no_mask(taken: Taken) -> None:
    owned = taken.snapshot.report(by=["gfp", "state"]).to_pylist()
    names = {row["gfp"] for row in owned if row["state"] == "owned"}
    assert names
    assert not [name for name in names if name.startswith("0x")]
    assert {row["gfp"] for row in owned if row["state"] == "early"} == {None}
    assert taken.snapshot.select(gfp=("__GFP_ZERO",)).pages


def test_nothing_found_no_room(taken: Taken) -> None:
    counters = taken.snapshot.meta.counters
    full = ("stacks_full", "stacks_failed", "tasks_full", "out_of_range", "bulk_missed")
    assert {name: counters[name] for name in full if counters[name]} == {}


def test_early_pages_are_told_apart_by_what_they_are(taken: Taken) -> None:
    kinds = taken.snapshot.select(state=("early",)).report(by="subsystem")
    names = set(kinds["subsystem"].to_pylist())
    assert {"slab (early)", "page cache (early)", "anonymous memory (early)",
            "page tables (early)"} <= names


def test_no_row_is_of_a_free_page(taken: Taken) -> None:
    flags = taken.snapshot.table["page_flags"].to_numpy()
    assert not (flags & (pageflags.bit("buddy") | pageflags.bit("nopage"))).any()
