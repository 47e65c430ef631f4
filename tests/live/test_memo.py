"""Stacks that the memo recognises are those that the unwinder finds, on this machine's kernel."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from socket_buffers import fill

from pageowner.kernel.symbol_text import Lines
from pageowner.tracker import control
from pageowner.tracker.control import Options
from pageowner.tracker.load import memo
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.load.loading import Sizes, Tracker
from pageowner.tracker.read import timings
from pageowner.tracker.read.maps import Store, map_array, stack_type

pytestmark = pytest.mark.usefixtures("bpf")

PAGES = 4096


def counters(store: Store) -> dict[str, int]:
    return memo.read_counters(store.bpf, store.fd("memo_states"), store.fd("counters"))


def needs_memo(store: Store) -> None:
    if store.facts["memo"] != "on":
        pytest.skip(f"this kernel has no memo: {store.facts['memo']}")


def touch(pages: int = PAGES) -> None:
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        memory.madvise(15)  # MADV_NOHUGEPAGE
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def varied_load(folder: Path) -> None:
    """System calls, faults from user and kernel mode, forks, files and sockets."""
    for i in range(20):
        touch(512)
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
        (folder / f"file-{i}").write_bytes(bytes(1 << 20))
        # Read into memory that nobody has touched: the kernel itself faults, inside read().
        with mmap.mmap(-1, 1 << 20) as fresh, open(folder / f"file-{i}", "rb", 0) as file:
            file.readinto(fresh)
        left, right = socket.socketpair()
        with left, right:
            fill(left)
        os.unlink(folder / f"file-{i}")


def all_checked(store: Store) -> dict[str, int]:
    """The counters where each hit is checked, when no other CPU is between a hit and its
    check; a check left out would stay so."""
    for _ in range(100):
        now = counters(store)
        if now["checks"] == now["hits"]:
            break
    return now


@pytest.mark.parametrize("depth", [1, 16, 64])
def test_every_recognised_stack_is_what_the_unwinder_finds(tmp_path: Path, depth: int) -> None:
    with control.tracking(Options(memo_check=1, depth=depth)) as store:
        needs_memo(store)
        varied_load(tmp_path)
        now = all_checked(store)
    assert now["hits"] > 10_000
    assert now["checks"] == now["hits"]
    assert now["differences"] == 0


def test_nearly_all_stacks_are_recognised(tmp_path: Path) -> None:
    with control.tracking() as store:
        needs_memo(store)
        varied_load(tmp_path)
        before = counters(store)
        varied_load(tmp_path)
        now = {name: value - before[name] for name, value in counters(store).items()}
    assert now["hits"] > 0.8 * (now["hits"] + now["misses"])


@pytest.mark.parametrize(("check", "least", "most"), [(0, 0, 0), (1 / 16, 1 / 32, 1 / 8)])
def test_as_many_are_checked_as_asked_for(check: float, least: float, most: float) -> None:
    with control.tracking(Options(memo_check=check)) as store:
        needs_memo(store)
        touch()
        now = counters(store)
    assert now["hits"] > PAGES // 2
    assert least * now["hits"] <= now["checks"] <= most * now["hits"]


def test_learning_that_takes_long_goes_on_the_next_time(tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    filters = control._filters
    monkeypatch.setattr(control, "_filters", lambda options: {**filters(options),
                                                                "most_looked": 600})
    with control.tracking(Options(memo_check=1)) as store:
        needs_memo(store)
        varied_load(tmp_path)
        first = counters(store)
        touch()
        before = counters(store)
        touch()
        now = all_checked(store)
    # Of whatever else the machine does there are always stacks that have not come often enough yet:
    # what is learned by then is our own.
    assert first["long"] > 0
    assert now["hits"] - before["hits"] > 0.9 * PAGES
    assert now["checks"] == now["hits"]
    assert now["differences"] == 0


def test_what_takes_long_is_timed_where_it_is_asked_for(tmp_path: Path) -> None:
    with control.tracking(timed=True) as store:
        varied_load(tmp_path)
        found = timings.read(store)
        now, memos = store.counters(), counters(store)
    assert 0 < found["alloc"].events <= now["allocs"]
    assert 0 < found["free"].events <= now["frees"]
    assert found["unwind"].events >= found["learn"].events
    if store.facts["memo"] == "on":
        assert 0 < found["learn"].events <= memos["misses"]
        assert 0 < found["learn"].quantile(0.5) <= found["learn"].longest
    with control.tracking() as store, pytest.raises(ValueError, match="does not record"):
        timings.read(store)


def test_a_wrong_stack_turns_the_memo_off_at_once() -> None:
    """Make every stack in the depot another, behind the memo's back."""
    with control.tracking(Options(memo_check=1)) as store:
        needs_memo(store)
        touch()
        assert counters(store)["differences"] == 0
        fd = store.fd("stacks")
        stacks = map_array(fd, stack_type(store.depth), store.bpf.map_info(fd).max_entries, True)
        used = np.flatnonzero(stacks["n"])
        stacks["frames"][used, 0] += 1
        touch()
        first = counters(store)
        assert first["differences"] >= 1
        touch()
        later = counters(store)
    assert first["differences"] <= os.cpu_count() * 7, "each CPU may be in the middle of one"
    assert {name: later[name] - first[name] for name in ("hits", "misses", "checks")} == {
        "hits": 0, "misses": 0, "checks": 0}


def test_without_it_each_stack_is_unwound() -> None:
    with control.tracking(Options(memo=False)) as store:
        touch()
        assert not any(counters(store).values())
        assert store.facts["memo"] == "off"
        assert (store.stacks["n"] > 3).any()


def test_a_program_that_is_not_on_a_stack_gets_none_from_it(bpf: Libbpf) -> None:
    """BPF_PROG_TEST_RUN has its arguments elsewhere in memory."""
    plan = control._plan_memo(bpf, Options(), Lines.read())
    if plan.why_not:
        pytest.skip(f"this kernel has no memo: {plan.why_not}")
    with Tracker(bpf, Sizes(12, 64, 64, 256), 16, {}, memo=plan) as tracker:
        main = tracker.load("on_alloc", "made_up")
        for _ in range(3):
            bpf.run(main.program_fd("on_alloc"), 64, 0, 0, 0)
        now = memo.read_counters(bpf, main.map_fd("memo_states"), main.map_fd("counters"))
    assert (now["hits"], now["misses"], now["other_stack"]) == (0, 3, 3)
