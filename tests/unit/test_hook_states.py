"""What is said of hooks, and of untracked pages that none of them explains."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pageowner.tracker.bpf as package
from pageowner.errors import PageownerError
from pageowner.kernel import pageflags
from pageowner.model.hook_states import ACTIVE, ATTACHED, WAITING, is_whole
from pageowner.model.hook_states import in_words as state_in_words
from pageowner.model.hook_table import BY_NAME, FEXIT_HOOKS, HOOKS, LOST
from pageowner.model.unexplained import in_words, unexplained
from pageowner.tracker.load.object_hooks import OBJECT_HOOKS
from pageowner.tracker.read import layout
from pageowner.tracker.read.maps import COUNTERS
from pageowner.tracker.read.pinned import Pinned
from pageowner.tracker.read.seen import with_seen

BPF = Path(package.__file__).parent
WHOLE = dict.fromkeys(("alloc_pages_bulk", "folio_migrate_flags", "alloc_contig_range"), ATTACHED)
LRU = pageflags.bit("lru") | pageflags.bit("anon")


def test_each_hook_has_a_counter_that_tells_whether_it_has_seen_something() -> None:
    counters = {hook.seen_by for hook in HOOKS} | {
        hook.seen_around for hook in HOOKS if hook.around}
    assert counters <= set(COUNTERS)


def test_the_hooks_of_the_table_are_those_of_the_programs() -> None:
    source = "".join(path.read_text() for path in BPF.glob("*.bpf.[ch]"))
    programs = {program for hook in HOOKS for program in (*hook.programs, *hook.programs_around)}
    programs |= {hook.program for hook in OBJECT_HOOKS}
    defined = re.compile(r"^(?:int |HELD\(\"[^\"]*\", )(on_\w+)", re.MULTILINE)
    assert programs == set(defined.findall(source))
    assert set(FEXIT_HOOKS) <= set(layout.HOOKS)
    assert set(LOST) == {hook.name for hook in HOOKS if hook.lost}
    assert len(BY_NAME) == len(HOOKS)
    for hook in HOOKS:
        assert {hook.instead_of, hook.around} <= {"", *BY_NAME}
        assert set(hook.explains) <= set(pageflags.KINDS)


def test_an_attached_hook_is_active_once_it_has_seen_something() -> None:
    states = {"split_page": ATTACHED, "alloc_pages_bulk": "refused: no", "split_folio": ATTACHED}
    counters = dict.fromkeys(COUNTERS, 0) | {"ran_split_page": 1, "bulk": 7}
    assert with_seen(states, counters) == {**states, "split_page": ACTIVE}


@pytest.mark.parametrize(("frozen", "counter"), [
    (None, "contig"), ("missing: no", "contig"), (ATTACHED, "ran_contig_around")])
def test_a_hook_around_another_is_not_active_by_what_that_one_saw(
        frozen: str | None, counter: str) -> None:
    states = {"alloc_contig_range": ATTACHED} | (
        {"alloc_contig_frozen": frozen} if frozen else {})
    for name in ("contig", "ran_contig_around"):
        said = with_seen(states, {name: 1})["alloc_contig_range"]
        assert said == (ACTIVE if name == counter else ATTACHED)


def test_states_in_words() -> None:
    assert state_in_words(ATTACHED) == "attached, not seen yet"
    assert state_in_words("refused: no") == "refused: no"
    assert all(is_whole(state) for state in (ACTIVE, ATTACHED, WAITING))
    assert not any(is_whole(f"{state}: x") for state in ("partly", "blind", "refused", "missing"))


def _of(flags: list[int], orders: list[int], hooks: dict[str, str],
        counters: dict[str, int] | None = None) -> list[tuple[str, int, int]]:
    found = unexplained(np.array(flags, "u8"), np.array(orders, "u1"), ["Normal"] * len(flags),
                        [None] * len(flags), hooks, counters or {})
    return [(one["kind"], one["order"], one["pages"]) for one in found]


def test_with_all_hooks_no_untracked_page_is_explained() -> None:
    slab = int(pageflags.bit("slab") | pageflags.bit("compound_head"))
    assert _of([0, slab, int(LRU), 0], [0, 3, 0, 0], WHOLE) == [
        ("slab", 3, 8), ("kernel", 0, 2), ("anonymous", 0, 1)]


@pytest.mark.parametrize(("lacking", "left"), [
    ("alloc_pages_bulk", [("slab", 0, 1), ("anonymous", 0, 1), ("kernel", 2, 4)]),
    ("folio_migrate_flags", [("slab", 0, 1)]),
])
def test_a_missing_hook_explains_what_it_would_have_seen(
        lacking: str, left: list[tuple[str, int, int]]) -> None:
    found = _of([0, int(pageflags.bit("slab")), int(LRU), 0], [0, 0, 0, 2],
                WHOLE | {lacking: "refused: no"})
    assert sorted(found) == sorted(left)


def test_lost_events_explain_as_many_untracked_pages_as_they_can_leave() -> None:
    assert _of([0] * 8, [0] * 8, WHOLE, {"missed_in_interrupts": 1}) == []
    assert _of([0] * 9, [0] * 9, WHOLE, {"missed_in_interrupts": 1}) == [("kernel", 0, 9)]


def test_what_nothing_explains_is_to_be_reported() -> None:
    groups = [{"kind": "hugetlb", "order": 18, "zone": "Normal", "block": "CMA", "pages": 262144},
              {"kind": "slab", "order": 0, "zone": "DMA32", "block": None, "pages": 3}]
    text = in_words(groups, "8.1.0", {})
    assert text.startswith("262,147 untracked pages that no missing hook explains: 262,144 hugetlb"
                           " of order 18 in Normal CMA, 3 slab in DMA32. Kernel 8.1.0 ")
    assert "please report" in text
    assert "please report" not in in_words(groups, "8.1.0", {"unseen_frees": 12})


@pytest.mark.parametrize("damaged", [
    None, [], "no", 7, [1], [{}], [{"pages": "many"}], [{"pages": 1}], {"pages": 1}])
def test_what_a_file_says_in_its_place_is_no_reason_to_end(damaged: object) -> None:
    assert in_words(damaged, None, {}) == ""


def test_facts_that_are_written_meanwhile_are_read_until_they_are_whole() -> None:
    whole = [b'{"a": 1}\0\0', b'{"a": 22}\0']
    torn = whole[0][:6] + whole[1][6:]
    told = iter([whole[0], torn, torn, whole[1], whole[1]])
    bpf: Any = SimpleNamespace(lookup=lambda *_: next(told))
    with open(os.devnull) as file:
        store = Pinned(bpf, "/sys/fs/bpf/x", {"config": os.dup(file.fileno())},
                       {"span_shift": 1, "depth": 1})
    with store:
        assert store._refresh() == whole[1]
        assert store.facts["a"] == 22
        bpf.lookup = lambda *_: b"{"
        with pytest.raises(PageownerError, match="pageowner off, then on"):
            store._refresh()
