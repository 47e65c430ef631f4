"""Damaged dumps: whatever is cut, spliced or spoilt is counted, and nothing ends in a traceback.

`scripts/fuzz` runs the same checks a million times.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pageowner

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import dumps
import mutations
import questions
import snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

POOL = [*dumps.records()[::23], *dumps.FORMATS]
PARTS = st.lists(st.one_of(
    st.sampled_from(POOL), st.sampled_from(dumps.BITS), st.binary(max_size=12),
    st.sampled_from(POOL).flatmap(lambda record: st.tuples(
        st.integers(0, len(record)), st.integers(0, len(record))).map(
            lambda cut: record[min(cut):max(cut)]))), max_size=8).map(b"".join)
SOON = settings(max_examples=150, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.too_slow])
"""The same cases in each run: chance is for scripts/fuzz."""


@SOON
@given(PARTS)
def test_every_piece_of_a_damaged_dump_is_a_record_or_counted(text: bytes) -> None:
    dumps.check(text)


@SOON
@given(PARTS, st.lists(st.integers(1, 400), min_size=1, max_size=3))
def test_a_damaged_dump_reads_the_same_however_it_arrives(text: bytes, sizes: list[int]) -> None:
    dumps.check_arrival(text, dumps.check(text), sizes)


@settings(SOON, max_examples=60)
@given(PARTS)
def test_a_damaged_dump_goes_all_the_way_to_a_report_and_back(text: bytes) -> None:
    dumps.check_snapshot(text)


def test_mutated_snapshots_and_series_are_read_or_refused_in_one_line() -> None:
    seen = snapshots.run(400, 1, limit=False)
    assert seen["snapshots"] + seen["series"] == 400
    assert seen["... that were read"] > 50
    assert seen["... that were refused"] > 100


def test_what_a_read_snapshot_must_not_hold_would_be_noticed() -> None:
    pool = mutations.Pool()
    questions.check_promises(pool.sound)
    for name, values in (("order", [60]), ("node", [-1]), ("state", ["x"]), ("pfn", [1 << 52])):
        columns = {"order": [0], name: values}
        with pytest.raises(AssertionError):
            questions.check_promises(pageowner.Snapshot.from_columns(columns, pageowner.Metadata()))


def test_spoilt_snapshots_and_sorted_dumps_end_well(tmp_path: Path) -> None:
    assert dumps.run(520, 0)["inputs"] == 520


@pytest.mark.parametrize(("text", "expected"), [
    (b"", 0), (b"\n\n\n", 0), (b" \n\n \t\n", 0), (b"x", 1), (b"x\ny\n\nz\n", 2),
    (dumps.START, 1), (dumps.START + b"\n" + dumps.START, 2), (b"x\n" + dumps.START, 2),
    (dumps.FORMATS[0] * 3, 3), (dumps.FORMATS[5], 1), (dumps.FORMATS[5] + b"x\n\n", 2),
    (dumps.FORMATS[0][:-1] + dumps.FORMATS[0], 2),
    (dumps.FORMATS[0] + b"log\n" + dumps.FORMATS[0], 3),
])
def test_the_rule_of_counting_is_what_it_says(text: bytes, expected: int) -> None:
    # cut before every line that begins a record and behind every empty line; blank pieces and
    # empty lines in names count for nothing
    assert dumps.pieces(text) == expected
    raw = dumps.check(text)
    assert len(raw.kind) + raw.damaged == expected


@pytest.mark.parametrize("spoil", [
    lambda raw: raw.kind.pop(), lambda raw: raw.__setattr__("damaged", raw.damaged + 1)])
def test_a_record_lost_or_counted_twice_would_be_noticed(
        spoil: Callable[[object], None], monkeypatch: pytest.MonkeyPatch) -> None:
    real = dumps.parsed

    def wrong(text: bytes) -> object:
        raw = real(text)
        spoil(raw)
        return raw

    monkeypatch.setattr(dumps, "parsed", wrong)
    with pytest.raises(AssertionError):
        dumps.check(dumps.FORMATS[0] * 2)


def test_mutations_leave_both_sound_and_damaged_records() -> None:
    chance = random.Random(1)
    raws = [dumps.check(dumps.mutated(chance, POOL)) for _ in range(300)]
    assert sum(len(raw.kind) for raw in raws) > 200
    assert sum(raw.damaged for raw in raws) > 200
