"""The model behind `top`: a row says what was counted, by any key and through any filter."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from looks import ANON, CACHE, DENTRY, HOSTILE, KINDS, PIPE, look, series

from pageowner.analysis.filters import Filter
from pageowner.analysis.live import GROUPS, ORDERS, Live, Question, field_of, question
from pageowner.errors import UsageError
from pageowner.model.live import Look
from pageowner.tracker.read.live_users import LiveUsers


def shown(by: str = "stack", asked: Question | None = None, looks: list[Look] | None = None
          ) -> Live:
    live = Live(by, asked)
    for one in looks or series():
        live.add(one)
    return live


def test_rows_are_sums_of_the_last_look_the_largest_first() -> None:
    rows, number = shown().rows()
    assert number == 5
    assert [(row.label, row.pages) for row in rows] == [
        (CACHE, 4300 + 1200), (PIPE, 100 + 256 * 11), (ANON, 2000 + 7), (DENTRY, 790 * 2),
        (None, 3)]
    assert [row.blocks for row in rows] == [4600, 2916, 2007, 790, 3]


def test_the_same_pages_by_every_key() -> None:
    expected = sum(int(pages) for pages in series()[-1].pages)
    for by in (*GROUPS, "module", "frame", "pid", "tid", "order"):
        rows, _ = shown(by).rows()
        assert sum(row.pages for row in rows) == expected, by
        assert shown(by).total()[0] == expected


def test_change_counts_from_the_first_look_or_from_zero() -> None:
    live = shown()
    by_stack = {row.label: row for row in live.rows()[0]}
    assert by_stack[PIPE].change == 256 * 11
    assert by_stack[DENTRY].change == -220
    assert live.total()[1] == 256 * 11 - 220 + 300 - 500
    live.begin_anew()
    assert {row.change for row in live.rows()[0]} == {0}
    assert live.seconds == 0
    live.add(look(24, [0, 0, 0, 0, 3000, 0, 0]))
    assert {row.label: row.change for row in live.rows()[0]} == {PIPE: 3000 - 2916}


def test_rate_is_over_ten_seconds_and_allocations_since_the_last_look() -> None:
    rows = {row.label: row for row in shown().rows()[0]}
    assert rows[PIPE].rate == 128  # 256 pages each 2 s
    assert rows[PIPE].allocs == 128
    assert rows[PIPE].frees == 0
    # 600 blocks came and the sum rose from 2,000 to 2,000: as many went
    assert rows[ANON].allocs == 300
    assert rows[ANON].frees == 300
    assert rows[DENTRY].frees == 5
    assert rows[CACHE].rate == (4300 - 4300) / 10


def test_one_look_alone_claims_no_rates() -> None:
    live = shown(looks=series(1))
    assert {(row.change, row.rate, row.allocs, row.frees) for row in live.rows()[0]} == {
        (0, 0, 0, 0)}
    assert Live().rows() == ([], 0)
    assert Live().total() == (0, 0)


def test_series_holds_the_last_looks_and_zero_where_an_owner_was_not_there() -> None:
    live = Live("comm", looks=3)
    for n in range(5):
        live.add(look(n, [0, 0, 0, 0, n if n > 2 else 0, 0, 1]))
    rows = {row.label: row.series for row in live.rows()[0]}
    assert rows == {"leaker": [0, 3, 4], None: [1, 1, 1]}


@pytest.mark.parametrize(("order", "first"), [
    ("size", CACHE), ("change", PIPE), ("rate", PIPE), ("allocs", ANON), ("frees", ANON)])
def test_orders(order: str, first: str) -> None:
    assert order in ORDERS
    assert shown().rows(order)[0][0].label == first


def test_an_owner_that_gave_all_back_is_among_the_largest_changes() -> None:
    live = shown(looks=[look(0, [5000, 0, 0, 0, 1, 0, 0]), look(2, [0, 0, 0, 0, 9, 0, 0])])
    assert [(row.label, row.change) for row in live.rows("change")[0]] == [
        (CACHE, -5000), (PIPE, 8)]
    assert [row.label for row in live.rows("size")[0]] == [PIPE]


def test_another_key_has_its_history_at_once() -> None:
    live = shown()
    live.ask(by="comm")
    rows = {row.label: row for row in live.rows()[0]}
    assert rows["leaker"].series == [100 + 256 * n for n in range(12)]
    assert rows["leaker"].change == 2816


def test_a_field_that_older_looks_lack_begins_anew() -> None:
    live = Live()
    for one in series(3):
        live.add(dataclasses.replace(one, fields={
            name: one.fields[name] for name in ("stack", "task")}))
    live.ask(by="memcg")
    assert live.needs() == {"stack", "task", "memcg"}
    assert live.looks == 0
    assert live.rows() == ([], 0)
    live.add(series()[3])
    assert live.looks == 1
    assert live.rows()[0][0].label == "/build.slice"


def test_a_field_that_only_the_first_look_had_begins_anew() -> None:
    live = Live("memcg", looks=4)
    for number, one in enumerate(series(8)):
        live.ask(by="memcg" if number < 2 else "stack")
        live.add(one if number < 2 else dataclasses.replace(one, fields={
            name: one.fields[name] for name in ("stack", "task")}))
    live.ask(by="memcg")
    assert (live.looks, live.seconds, live.rows()) == (0, 0.0, ([], 0))


def test_filters_mean_what_they_mean_in_report() -> None:
    def labels(text: str, by: str = "stack") -> list[object]:
        return [row.label for row in shown(by, question(text)).rows()[0]]

    assert labels("comm=tar") == [DENTRY, CACHE]
    assert labels("comm=TA*") == [DENTRY, CACHE]
    assert labels("comm=tar,leaker") == []  # a name with a comma is a name
    assert labels("comm=tar comm=leaker", "comm") == ["leaker", "tar"]
    assert labels("stack=anon_pipe_*") == [PIPE]
    assert labels("subsystem='page cache'") == [CACHE]
    assert labels("pid=100,0x190", "comm") == ["cc1", "leaker"]
    assert labels("order=1,2") == [DENTRY, CACHE]
    assert labels("--order=1 cgroup=/") == [DENTRY]
    assert labels("pipe") == [PIPE]
    assert labels("PAGE CACHE") == [CACHE]  # both texts are there
    assert labels("'page cache' tar") == [CACHE]
    assert labels("build", "memcg") == ["/build.slice"]
    assert labels("nobody") == []


def test_typed_words_come_on_top_of_the_options() -> None:
    asked = question("order=0", Filter(comm="tar"))
    assert asked.chosen == Filter(comm="tar", order=0)
    assert question("").chosen == Filter()
    assert question("order=0 order=1,2 comm=a comm=b").chosen == Filter(
        comm=("a", "b"), order=(0, 1, 2))
    # what is typed by a name takes the place of what was chosen by it
    assert question("comm=java", Filter(comm="bash", pid=5)).words() == "pid=5 comm=java"


@pytest.mark.parametrize("text", ["order=0,1 subsystem='page cache' subsystem=a older=5m x",
                                  """comm="it's one" 'two words'""", ""])
def test_what_is_chosen_is_told_in_words_that_choose_it(text: str) -> None:
    asked = question(text)
    assert question(asked.words()) == asked


@pytest.mark.parametrize("text", ["colour=red", "order=x", "order=1,", "comm=", "older=soon",
                                  "state=early", "=1"])
def test_a_wrong_filter_says_so(text: str) -> None:
    with pytest.raises(UsageError):
        question(text)


def test_ages_are_for_the_next_look() -> None:
    live = shown()
    live.ask(asked=question("older=5m"))
    assert live.looks == 0  # what was counted before is not of that age


def test_parts_are_the_stacks_of_an_owner() -> None:
    parts, number = shown("comm").parts("tar", 1)
    assert number == 2
    assert [(part.stack, part.pages, part.blocks) for part in parts] == [(DENTRY, 1580, 790)]
    assert shown("comm").parts("nobody", 8) == ([], 0)
    assert sum(part.pages for part in shown("comm").parts(None, 8)[0]) == 3
    assert shown("comm", question("order=2")).parts("tar", 8)[1] == 1


def test_keys_that_records_do_not_tell_are_refused() -> None:
    assert field_of("task") == "task"
    assert field_of("cgroup") == "memcg"
    for wrong in ("reason", "block", "state"):
        with pytest.raises(UsageError, match="report --by"):
            field_of(wrong)
    with pytest.raises(UsageError, match="choose from"):
        Live("colour")


def test_hostile_names_are_labels_like_others() -> None:
    rows = {row.label: row.pages for row in shown("comm").rows()[0]}
    assert rows[HOSTILE] == 7
    assert len(KINDS) == 7


def test_pages_without_a_record_are_told_of_by_user_alone() -> None:
    seen = look(0, [10, 0, 5, 0, 0, 0, 0])
    users = (np.array([0, 0, 1, 0, 0, 0, 0, 2, 0], np.int32),
             ["slab dentry", "process 9 (x)", "file /big"])
    fields = {name: (np.append(codes, [len(labels)] * 2).astype(np.int32), [*labels, None])
              for name, (codes, labels) in seen.fields.items()}
    seen = replace(seen, fields={**fields, "user": users}, unrecorded=2,
                   pages=np.append(seen.pages, [900, 30]), blocks=np.append(seen.blocks, [2, 30]),
                   born=np.append(seen.born, [0, 0]))
    by_user, by_stack = Live("user"), Live("stack")
    for live in (by_user, by_stack):
        live.add(seen)
    assert {row.label: row.pages for row in by_user.rows()[0]} == {
        "file /big": 900, "slab dentry": 40, "process 9 (x)": 5}
    assert by_stack.total()[0] == 15
    by_stack.ask(asked=question("user=file*"))
    assert [(row.label, row.pages) for row in by_stack.rows()[0]] == [(None, 900)]


def test_blocks_without_a_record_are_those_outside_of_recorded_ones() -> None:
    users = LiveUsers(np.array([0, 8, 16, 17, 40], np.uint64), np.array([4, 8, 1, 1, 2]),
                      np.array([0, 1, 1, 0, 2], np.int32), ["a", "b", "c"], 100)
    codes, pages, blocks = users.without([(np.array([0, 8]), np.array([2, 8])),
                                          (np.array([17]), np.array([4]))])
    assert (codes.tolist(), pages.tolist(), blocks.tolist()) == ([1, 2], [1, 2], [1, 1])
    before, since = np.full(6, 99, np.uint64), np.array([99, 100, 99, 101, 99, 99], np.uint64)
    asked = np.array([0, 3, 4, 15, 41, 42])
    assert users.of(asked, before).tolist() == [0, 0, -1, 1, 2, -1]
    # what was allocated since they were looked for may be another's
    assert users.of(asked, since).tolist() == [0, -1, -1, -1, 2, -1]
    everything = users.without([])
    assert int(everything[1].sum()) == 16
