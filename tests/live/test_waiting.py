"""The second programs: they wait, come once an event was missed, also amid a load, and leave no
trace in what was recognised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine import known_frames
from test_memo import touch, varied_load

from pageowner.analysis.unexplained import gone_owners
from pageowner.hook_states import ACTIVE, ATTACHED, WAITING
from pageowner.report.tracking import to_json
from pageowner.tracker import lifecycle, waiting
from pageowner.tracker.capture import capture
from pageowner.tracker.libbpf import Libbpf
from pageowner.tracker.lifecycle import Options
from pageowner.tracker.maps import Store, open_store

pytestmark = pytest.mark.usefixtures("off")

HOOKS = set(waiting.FIRST_PINS)


def on(monkeypatch: pytest.MonkeyPatch, check: float = 1.0) -> None:
    """Turn tracking on with both programs waiting, and keep them so."""
    monkeypatch.setattr(waiting, "is_wanted", lambda _: False)
    lifecycle.on(Options(memo_check=check))
    with open_store() as store:
        states = store.hook_states()
    if any(states[hook] != WAITING for hook in HOOKS):
        lifecycle.off()
        pytest.skip(f"they do not wait here: {[states[hook] for hook in sorted(HOOKS)]}")


def links() -> set[str]:
    with open_store() as store:
        return {hook.name for hook in store.hooks()}


def waits(store: Store) -> bool:
    return any(store.facts["hooks"][hook] == WAITING for hook in HOOKS)


def test_they_wait_until_the_kernel_has_left_out_a_run(
        bpf: Libbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = waiting.is_wanted
    on(monkeypatch)
    assert not HOOKS & links()
    with open_store() as store:
        firsts = [bpf.program_info(store.fd(pin)) for pin in waiting.FIRST_PINS.values()]
        assert asked(store) == any(first.recursion_misses for first in firsts)
        missed = {hook.name: hook.missed for hook in store.hooks()}
        for first, kind in zip(firsts, ("alloc", "free"), strict=True):
            assert missed[f"mm_page_{kind}"] >= first.recursion_misses


def test_they_come_amid_a_load_and_no_stack_is_taken_for_another(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch)
    varied_load(tmp_path)
    monkeypatch.setattr(waiting, "is_wanted", waits)
    assert lifecycle.attend()
    assert not lifecycle.attend()
    assert links() >= HOOKS
    varied_load(tmp_path)
    status = lifecycle.status()
    assert {status.hooks[hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    assert status.memo == "on"
    memo = status.memo_counters
    assert memo["checks"] > 10_000
    assert memo["differences"] == memo["varies"] == 0
    assert memo["hits"] > 9 * memo["misses"]
    assert {to_json(status)["hooks"][hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    snapshot = capture()
    assert snapshot.meta.frames["owned"] > 0
    assert not [stack for stack in snapshot.table["stack"].combine_chunks().dictionary.to_pylist()
                if stack and "__traceiter" in stack]


@pytest.mark.parametrize("done", [(), tuple(HOOKS)[:1], tuple(HOOKS)],
                         ids=["none", "one", "both"])
def test_an_attempt_that_was_killed_is_finished_by_the_next(
        monkeypatch: pytest.MonkeyPatch, done: tuple[str, ...]) -> None:
    on(monkeypatch)
    with open_store() as store:
        for hook in done:
            assert waiting._attached(store, hook)  # and nobody has written so
    assert links() & HOOKS == set(done)
    monkeypatch.setattr(waiting, "is_wanted", waits)
    assert lifecycle.attend()
    assert links() >= HOOKS
    touch()
    assert {lifecycle.status().hooks[hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    assert lifecycle.off()
    assert not lifecycle.status().left


def test_with_always_both_are_there_from_the_start() -> None:
    status = lifecycle.on(Options(second_programs="always"))
    assert {status.hooks[hook] for hook in HOOKS} <= {ATTACHED, ACTIVE}
    assert links() >= HOOKS
    assert status.options.words() == ["--second-programs always"]
