"""When the second programs wait, and what is said of frees that were missed meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from machines import machine

from pageowner.errors import UsageError
from pageowner.model.hook_states import ACTIVE, ATTACHED, NESTED, WAITING
from pageowner.model.hook_table import HOOKS
from pageowner.model.object_hooks import OBJECT_HOOKS
from pageowner.model.unexplained import gone_owners
from pageowner.report import status_view
from pageowner.tracker import at_boot, waiting
from pageowner.tracker.control import Options, Status
from pageowner.tracker.load.calibrate import Calibration
from pageowner.tracker.load.loading import HOOK_NUMBERS
from pageowner.tracker.read import maps
from pageowner.tracker.read.missed import missed_of_objects
from pageowner.tracker.read.pinned import Pinned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., Any]

ALLOC, FREE = waiting.FIRST_PINS
KERNEL = Calibration(0, 0, 0, 0, iterators=(1, 2, 3, 4, 5, 6))


class Counted(Pinned):
    """What `waiting.wanted` looks at: a program's descriptor is its name here."""

    def __init__(self, states: dict[str, str], missed: dict[str, int], reentered: int = 0) -> None:
        bpf: Any = SimpleNamespace(program_info=lambda name: SimpleNamespace(
            recursion_misses=missed.get(name, 0)))
        names: Any = {name: name for name in waiting.FIRST_PINS.values()}
        super().__init__(bpf, "", names, {"hooks": states, "span_shift": 0, "depth": 0})
        self.reentered = reentered

    def counters(self) -> dict[str, int]:
        return {"reentered": self.reentered}


def test_each_hook_that_waits_is_a_second_program() -> None:
    assert {ALLOC, FREE} == {hook.name for hook in HOOKS if hook.name.endswith(NESTED)}
    assert waiting.FIRST_PINS == {ALLOC: "on_alloc", FREE: "on_free"}
    assert waiting.WAITING_PINS == {ALLOC: "on_nested_alloc", FREE: "on_nested_free"}


@pytest.mark.parametrize(("found", "when", "expected"), [
    (KERNEL, "auto", True),
    (KERNEL, "always", False),
    (replace(KERNEL, preemptible=True), "auto", False),
    (replace(KERNEL, iterators=()), "auto", False),
], ids=["here", "asked for", "preempted", "frames unknown"])
def test_they_wait_unless_misses_are_sure_to_come(
        found: Calibration, when: str, expected: bool) -> None:
    assert waiting.may_wait(found, when) == expected


@pytest.mark.parametrize(("missed", "reentered", "expected"), [
    ({}, 0, []), ({"on_free": 1}, 0, [FREE]), ({"on_alloc": 1}, 0, [ALLOC]),
    ({}, 1, [ALLOC, FREE])])
def test_one_missed_event_is_enough_for_the_program_of_its_kind(
        missed: dict[str, int], reentered: int, expected: list[str]) -> None:
    both = dict.fromkeys((ALLOC, FREE), WAITING)
    assert waiting.wanted(Counted(both, missed, reentered)) == expected
    attached = dict.fromkeys((ALLOC, FREE), ATTACHED)
    assert not waiting.wanted(Counted(attached, missed, reentered))


def test_one_that_waits_alone_does_not_ask_for_what_is_not_pinned() -> None:
    """Trackers of before the second program on frees waited too have no pin of the first."""
    alone = Counted({ALLOC: WAITING, FREE: ACTIVE}, {"on_alloc": 2})
    alone.fd = {"on_alloc": "on_alloc"}.__getitem__
    assert waiting.wanted(alone) == [ALLOC]


@pytest.mark.parametrize(("refused", "counters", "missed", "missed_frees"), [
    ({}, {}, 0, 0),
    ({"mm_page_free": 10, "mm_page_alloc": 5}, {}, 15, 10),
    ({"mm_page_free": 10, "mm_page_free_nested": 4}, {"nested_frees": 10}, 0, 0),
    ({"mm_page_free": 10, "mm_page_free_nested": 4}, {"nested_frees": 7}, 3, 3),
    ({"mm_page_free": 10, "mm_page_free_nested": 1, "mm_page_alloc": 9},
     {"nested_frees": 7, "nested_allocs": 9}, 3, 3),
    ({"mm_page_free": 0}, {"reentered": 5, "nested_frees": 2, "nested_allocs": 2}, 1, 1),
    ({"mm_page_free": 2, "alloc_pages_bulk": 3}, {"nested_frees": 3}, 3, 0),
    ({"mm_page_alloc": 2, "kfree": 7, "kmalloc": 1}, {}, 2, 0),
], ids=["not pinned", "none took them", "all taken", "some taken", "some of both", "before 6.1",
        "of other hooks", "of objects"])
def test_missed_is_what_no_program_took(
        refused: dict[str, int], counters: dict[str, int], missed: int, missed_frees: int,
        monkeypatch: pytest.MonkeyPatch) -> None:
    store = maps.Store.__new__(maps.Store)
    store.facts = {"object_hooks": {"kfree": ATTACHED, "kmalloc": ATTACHED}}
    monkeypatch.setattr(store, "hooks", lambda: [
        maps.Hook(name, 1, 1, count) for name, count in refused.items()])
    monkeypatch.setattr(store, "counters", lambda: dict.fromkeys(maps.COUNTERS, 0) | counters)
    assert store.missed() == missed
    assert store.missed_frees() == missed_frees


@pytest.mark.parametrize(("refused", "counters", "before", "missed"), [
    ({"kfree": 7, "kmalloc": 1, "mm_page_free": 5}, {}, {}, 8),
    ({"kfree": 7, "kfree_nested": 3}, {"objects_nested_kfree": 7}, {}, 0),
    ({"kfree": 7, "kfree_nested": 3}, {"objects_nested_kfree": 5}, {}, 2),
    ({"kfree": 700, "kfree_nested": 3}, {"objects_nested_kfree": 5}, {}, 3),
    ({"kfree": 9, "kfree_nested": 3}, {"objects_nested_kfree": 5}, {"kfree": 4}, 0),
    ({"kmalloc": 1, "kfree": 4, "kfree_nested": 4}, {"objects_nested_kfree": 9}, {}, 1),
], ids=["no second copies", "all taken", "some taken", "of objects not followed",
        "before all were attached", "of two hooks"])
def test_missed_of_objects_is_what_no_copy_took(
        refused: dict[str, int], counters: dict[str, int], before: dict[str, int], missed: int,
        monkeypatch: pytest.MonkeyPatch) -> None:
    store = maps.Store.__new__(maps.Store)
    store.facts = {"missed_before_objects": before}
    monkeypatch.setattr(store, "hooks", lambda: [
        maps.Hook(name, 1, 1, count) for name, count in refused.items()])
    monkeypatch.setattr(store, "counters", lambda: dict.fromkeys(maps.COUNTERS, 0) | counters)
    assert missed_of_objects(store) == missed


def test_each_hook_on_objects_has_a_counter_for_its_second_copy() -> None:
    """In the order of the first copies' (records.h): the programs go by that."""
    first = [name for name in maps.COUNTERS if name in {hook.seen_by for hook in OBJECT_HOOKS}]
    second = {hook.seen_by: hook.seen_by_second for hook in OBJECT_HOOKS}
    at = maps.COUNTERS.index("objects_nested_kmalloc")
    assert [second[name] for name in first] == list(maps.COUNTERS[at : at + len(first)])
    hooks = HOOK_NUMBERS
    assert [hooks[f"nested_{name}"] - hooks[name] for name in (
        "kmalloc", "cache_alloc", "percpu_alloc", "objects_in_bulk")] == [
            hooks["nested_kmalloc"] - hooks["kmalloc"]] * 4


@pytest.mark.parametrize("readings", [0, 1, 5, 1000])
def test_no_fewer_are_missed_while_events_go_on(readings: int,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """All but three of the frees that were refused are taken by the second program, and more come
    between the first ``readings``."""
    store, refused = maps.Store.__new__(maps.Store), 10
    store.facts = {}

    def passed() -> int:
        nonlocal refused, readings
        refused += 2 if readings > 0 else 0
        readings -= 1
        return refused

    monkeypatch.setattr(store, "hooks", lambda: [maps.Hook("mm_page_free", 1, 1, passed())])
    monkeypatch.setattr(store, "counters", lambda: dict.fromkeys(maps.COUNTERS, 0) | {
        "nested_frees": passed() - 3})
    exact = readings < 1000
    for read in (store.missed, store.missed_frees):
        assert read() == 3 if exact else 3 <= read() <= 6


def test_missed_frees_in_words() -> None:
    assert gone_owners(0) == ""
    assert gone_owners(1) == (
        "1 free was missed, before a second program was attached or while it was busy too:"
        " up to 1 block may show an owner that is gone")
    assert "12,345 frees were missed" in gone_owners(12345)
    assert "up to 12,345 blocks may show an owner that is gone" in gone_owners(12345)


def test_status_says_how_many_owners_may_be_gone() -> None:
    counters = dict.fromkeys(maps.COUNTERS, 0)
    status = Status(on=True, missed=9, missed_frees=7, counters=counters)
    lines = status_view._missed(status)
    assert lines[0].startswith("9 events")
    assert lines[1] == gone_owners(7)
    assert status_view.to_json(status).document["missed_frees"] == 7
    assert status_view._missed(replace(status, missed=0, missed_frees=0)) == []


def test_reports_say_how_many_owners_may_be_gone(cli: Cli, tmp_path: Path) -> None:
    snapshot = machine(3).snapshot()
    for number in (0, 7):
        counters = {**snapshot.meta.counters, "missed_frees": number}
        path = tmp_path / f"{number}.parquet"
        replace(snapshot, meta=replace(snapshot.meta, counters=counters)).save(path)
        for words in ([], ["--full"]):
            text = " ".join(cli("report", path, *words).out.decode().split())
            assert ("may show an owner that is gone" in text) == bool(number)
            assert not number or gone_owners(number) in text
        assert json.loads(cli("report", path, "--json").out)["counters"]["missed_frees"] == number


def test_the_option_is_kept_and_shown() -> None:
    assert Options().words() == []
    options = Options(second_programs="always")
    assert options.words() == ["--second-programs always"]
    assert "on --second-programs always\n" in at_boot.unit(options, ["/opt/po/bin/pageowner"])
    with pytest.raises(UsageError, match="second_programs is auto or always, not never"):
        Options(second_programs="never").check()


def test_another_word_is_a_usage_error(cli: Cli) -> None:
    done = cli("on", "--second-programs", "never")
    assert done.status == 2
    assert b"always" in done.err
