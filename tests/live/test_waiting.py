"""The second program on allocations: it waits, and comes in the middle of a load without a trace in
what was recognised."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_memo import touch, varied_load

from pageowner.hook_states import ACTIVE, ATTACHED, WAITING
from pageowner.report.tracking import to_json
from pageowner.tracker import lifecycle, waiting
from pageowner.tracker.capture import capture
from pageowner.tracker.libbpf import Libbpf
from pageowner.tracker.lifecycle import Options
from pageowner.tracker.maps import Store, open_store

pytestmark = pytest.mark.usefixtures("off")


def on(check: float = 1.0) -> None:
    lifecycle.on(Options(memo_check=check))
    with open_store() as store:
        state = store.hook_states()[waiting.HOOK]
        if state != WAITING:
            lifecycle.off()
            pytest.skip(f"it does not wait here: {state}")


def links() -> set[str]:
    with open_store() as store:
        return {hook.name for hook in store.hooks()}


def test_it_waits_until_the_kernel_has_left_out_a_run(bpf: Libbpf) -> None:
    on()
    assert waiting.HOOK not in links()
    with open_store() as store:
        first = bpf.program_info(store.fd(waiting.FIRST_PIN))
        assert waiting.is_wanted(store) == (first.recursion_misses > 0)
        assert store.hooks()[0].program_id > 0
        missed = {hook.name: hook.missed for hook in store.hooks()}
        assert missed["mm_page_alloc"] == first.recursion_misses


def test_it_comes_amid_a_load_and_no_stack_is_taken_for_another(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on()
    varied_load(tmp_path)
    monkeypatch.setattr(waiting, "is_wanted", waits)
    assert lifecycle.attend()
    assert not lifecycle.attend()
    assert waiting.HOOK in links()
    varied_load(tmp_path)
    status = lifecycle.status()
    assert status.hooks[waiting.HOOK] in (ATTACHED, ACTIVE)
    assert status.memo == "on"
    memo = status.memo_counters
    assert memo["checks"] > 10_000
    assert memo["differences"] == memo["varies"] == 0
    assert memo["hits"] > 9 * memo["misses"]
    assert to_json(status)["hooks"][waiting.HOOK] in (ATTACHED, ACTIVE)
    snapshot = capture()
    assert snapshot.meta.frames["owned"] > 0
    assert not [stack for stack in snapshot.table["stack"].combine_chunks().dictionary.to_pylist()
                if stack and "__traceiter" in stack]


def waits(store: Store) -> bool:
    return store.facts["hooks"][waiting.HOOK] == WAITING


def test_an_attempt_that_was_killed_is_finished_by_the_next(
        monkeypatch: pytest.MonkeyPatch) -> None:
    on()
    with open_store() as store:
        waiting.attach(store)  # and nobody has written so
    assert waiting.HOOK in links()
    monkeypatch.setattr(waiting, "is_wanted", waits)
    assert lifecycle.attend()
    touch()
    assert lifecycle.status().hooks[waiting.HOOK] in (ATTACHED, ACTIVE)
    assert lifecycle.off()
    assert not lifecycle.status().left
