"""Pages from before tracking have users and no stacks, others stacks: what asks for stacks keeps
the two apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

import pageowner
from pageowner.analysis.profile import NO_STACK, samples
from pageowner.errors import PageownerError
from pageowner.model.snapshot import Metadata, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

STACKS = [f"alloc_pages+0x1/0x2\nfunction_{number}+0x1/0x2" for number in range(5)]


@pytest.fixture
def mixed() -> Snapshot:
    """Early pages of twenty files between those of five stacks."""
    rows = range(200)
    early = [number % 2 == 0 for number in rows]
    columns: dict[str, Any] = {
        "pfn": np.arange(200, dtype=np.uint64), "order": np.zeros(200, np.uint8),
        "state": ["early" if old else "owned" for old in early],
        "stack": [None if old else STACKS[number % 5] for number, old in zip(
            rows, early, strict=True)],
        "user": [f"file /a/{number % 40}" if old else None for number, old in zip(
            rows, early, strict=True)]}
    return Snapshot.from_columns(columns, Metadata(source="made", kind="tracker"))


def without_users(snapshot: Snapshot) -> Snapshot:
    place = snapshot.table.column_names.index("user")
    column = snapshot.table["user"]
    return Snapshot(snapshot.table.set_column(place, "user", pa.nulls(len(column), column.type)),
                    snapshot.meta)


def test_each_sample_has_the_frames_of_its_stack(mixed: Snapshot, tmp_path: Path) -> None:
    found = samples(mixed)
    pages: dict[str, int] = {}
    for stack, number in zip(found.stack.tolist(), found.pages.tolist(), strict=True):
        first, end = found.stacks.first[stack], found.stacks.end[stack]
        names = [str(found.stacks.frames[code]) for code in found.stacks.codes[first:end]]
        pages[names[-1]] = pages.get(names[-1], 0) + number
    assert pages == {NO_STACK: 100, **{f"function_{number}": 20 for number in range(5)}}
    mixed.save(tmp_path / "mixed.parquet")
    pageowner.flame(tmp_path / "mixed.parquet").save_html(tmp_path / "mixed.html")
    assert b"function_4" in (tmp_path / "mixed.html").read_bytes()


def test_users_known_on_one_side_alone_are_no_change(mixed: Snapshot) -> None:
    other = without_users(mixed)
    for before, after in ((mixed, other), (other, mixed), (mixed, mixed)):
        assert pageowner.diff(before, after).changes.num_rows == 0


def test_pages_that_changed_their_user_have_changed_no_owner(mixed: Snapshot) -> None:
    one = mixed.select(user=["file /a/0"])
    changes = pageowner.diff(mixed, one).changes.to_pylist()
    assert {row["stack"]: row["lost"] for row in changes} == {
        None: 100 - one.pages, **{f"function_{number}": 20 for number in range(5)}}


def test_a_report_names_users_where_there_is_no_stack(mixed: Snapshot) -> None:
    stacks = mixed.report(users=True).column("stack").to_pylist()
    assert len(stacks) == len(set(stacks)) == 25
    assert mixed.report().column("stack").null_count == 1


def test_programs_get_no_users_for_stacks(mixed: Snapshot, tmp_path: Path) -> None:
    pageowner.export(mixed, tmp_path / "owners.json", format="json", by="stack")
    owners = json.loads((tmp_path / "owners.json").read_text())
    owners = owners if isinstance(owners, list) else owners["owners"]
    assert sum(owner["stack"] is None for owner in owners) == 1
    assert not [held.stack for held in mixed.stacks() if ": " in held.stack]


def test_flags_are_no_users_where_these_were_not_looked_for(mixed: Snapshot) -> None:
    flags = Snapshot(mixed.table.set_column(
        mixed.table.column_names.index("page_flags"), "page_flags",
        pa.array([1 << 7] * 200, pa.uint64())), mixed.meta)
    assert None not in flags.report("user")["user"].to_pylist()
    assert without_users(flags).report("user")["user"].to_pylist() == [None]


def test_a_side_without_any_page_has_no_unknown_users(mixed: Snapshot) -> None:
    assert pageowner.diff(mixed.select(state="untracked"), mixed, "user").changes.num_rows


def test_users_of_one_side_alone_are_not_compared(mixed: Snapshot) -> None:
    with pytest.raises(PageownerError, match="does not say who has each page"):
        pageowner.diff(mixed, without_users(mixed), "user")
    assert pageowner.diff(mixed, mixed, "user").changes.num_rows == 0
