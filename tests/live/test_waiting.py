"""The second programs: they wait, come once an event was missed, also amid a load, and leave no
trace in what was recognised."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machine import known_frames, pages_by_state
from test_memo import touch, varied_load

import pageowner
from pageowner.model.hook_states import ACTIVE, ATTACHED, WAITING
from pageowner.model.schema import SAVED
from pageowner.model.unexplained import gone_owners
from pageowner.report.status_view import draw_status, to_json
from pageowner.report.terminal import Paper
from pageowner.tracker import control, waiting
from pageowner.tracker.control import Options
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.read import single
from pageowner.tracker.read.capture import capture
from pageowner.tracker.read.maps import Store, open_store

pytestmark = pytest.mark.usefixtures("off")

HOOKS = set(waiting.FIRST_PINS)
FREE = "mm_page_free_nested"

PAGE_TABLES = """
import mmap, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for step, size in ((1 << 21, 256 << 21), (mmap.PAGESIZE, 16 << 20)):
        with mmap.mmap(-1, size) as memory:
            memory.madvise(15)  # MADV_NOHUGEPAGE
            for at in range(0, size, step):
                memory[at] = 1
"""
"""Frees many pages, and page tables: these the kernel frees in an interrupt, once no CPU uses them
any more (RCU), and now and then that interrupt finds the tracker at work on a page."""


def on(monkeypatch: pytest.MonkeyPatch, check: float = 1.0) -> None:
    """Turn tracking on with both programs waiting, and keep them so."""
    monkeypatch.setattr(waiting, "wanted", lambda _: [])
    control.on(Options(memo_check=check))
    with open_store() as store:
        states = store.hook_states()
    if any(states[hook] != WAITING for hook in HOOKS):
        control.off()
        pytest.skip(f"they do not wait here: {[states[hook] for hook in sorted(HOOKS)]}")


def links() -> set[str]:
    with open_store() as store:
        return {hook.name for hook in store.hooks()}


def waiting_ones(store: Store) -> list[str]:
    return [hook for hook in HOOKS if store.facts["hooks"][hook] == WAITING]


def test_they_wait_until_the_kernel_has_left_out_a_run(
        bpf: Libbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = waiting.wanted
    on(monkeypatch)
    assert not HOOKS & links()
    with open_store() as store:
        firsts = [bpf.program_info(store.fd(pin)) for pin in waiting.FIRST_PINS.values()]
        needed = {hook for hook, first in zip(waiting.FIRST_PINS, firsts, strict=True)
                  if first.recursion_misses}
        assert needed <= set(wanted(store)) <= HOOKS
        missed = {hook.name: hook.missed for hook in store.hooks()}
        for first, kind in zip(firsts, ("alloc", "free"), strict=True):
            assert missed[f"mm_page_{kind}"] >= first.recursion_misses


def test_they_come_amid_a_load_and_no_stack_is_taken_for_another(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch)
    varied_load(tmp_path)
    monkeypatch.setattr(waiting, "wanted", waiting_ones)
    assert control.attend()
    assert not control.attend()
    assert links() >= HOOKS
    varied_load(tmp_path)
    status = control.status()
    assert {status.hooks[hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    assert status.memo == "on"
    memo = status.memo_counters
    assert memo["checks"] > 10_000
    assert memo["differences"] == memo["varies"] == 0
    assert memo["hits"] > 9 * memo["misses"]
    assert {to_json(status).document["hooks"][hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    snapshot = capture()
    assert snapshot.meta.frames["owned"] > 0
    assert not [stack for stack in snapshot.table["stack"].combine_chunks().dictionary.to_pylist()
                if stack and "__traceiter" in stack]


@pytest.mark.parametrize("done", [(), *((hook,) for hook in sorted(HOOKS)), tuple(HOOKS)],
                         ids=["none", *sorted(HOOKS), "both"])
def test_an_attempt_that_was_killed_is_finished_by_the_next(
        monkeypatch: pytest.MonkeyPatch, done: tuple[str, ...]) -> None:
    on(monkeypatch)
    with open_store() as store:
        for hook in done:
            assert waiting._attached(store, hook)  # and nobody has written so
    assert links() & HOOKS == set(done)
    monkeypatch.setattr(waiting, "wanted", waiting_ones)
    assert control.attend()
    assert links() >= HOOKS
    touch()
    assert {control.status().hooks[hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    assert control.off()
    assert not control.status().left


def test_who_of_one_frame_brings_the_one_that_was_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a capture it would answer from records whose pages were freed unseen."""
    on(monkeypatch, 1 / 1024)
    miss_frees(40)
    with open_store() as store:
        assert FREE in store.left_out()
        pfn = store.facts["ranges"][0][0]
    assert single.look([pfn], SAVED) is None
    monkeypatch.undo()
    pageowner.who(pfn)
    assert FREE in links()
    with open_store() as store:
        assert FREE not in store.left_out()


def test_with_always_both_are_there_from_the_start() -> None:
    status = control.on(Options(second_programs="always"))
    assert {status.hooks[hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    assert links() >= HOOKS
    assert status.options.words() == ["--second-programs always"]


def miss_frees(seconds: float) -> int:
    """Have interrupts free pages while the tracker is at work for other frees; how many were missed
    so far. Skips where none was in this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        loads = [subprocess.Popen([sys.executable, "-S", "-c", PAGE_TABLES, "1"])
                 for _ in range(len(os.sched_getaffinity(0)) + 1)]
        assert not any(load.wait() for load in loads)
        with open_store() as store:
            if missed := store.missed_frees():
                return missed
    pytest.skip(f"no interrupt freed a page while the tracker was at work, in {seconds:g} s")


def test_a_free_that_was_missed_is_said_and_brings_the_second_program(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on(monkeypatch, 1 / 1024)
    missed = miss_frees(40)
    status = control.status()
    assert {status.hooks[hook] for hook in HOOKS} == {WAITING}
    assert status.missed >= status.missed_frees >= missed
    snapshot = capture()
    frames, counters = snapshot.meta.frames, snapshot.meta.counters
    assert sum(frames.values()) == known_frames()
    assert pages_by_state(snapshot) == {
        name: frames[name] for name in ("owned", "early", "untracked")}
    assert counters["missed_frees"] >= status.missed_frees

    monkeypatch.undo()
    status = control.status()
    assert status.hooks[FREE] in (ATTACHED, ACTIVE)
    assert FREE in links()
    assert status.missed_frees >= missed
    draw_status(status, Paper())
    assert gone_owners(status.missed_frees) in capsys.readouterr().out
    assert to_json(status).document["missed_frees"] == status.missed_frees
    snapshot = capture()
    assert sum(snapshot.meta.frames.values()) == known_frames()
