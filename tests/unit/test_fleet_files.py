"""Which files of a fleet's store hold the captures of a time: each capture once, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleets import WHEN, capture, pushed

from pageowner import Fleet, PageownerError, Snapshot
from pageowner.fleet.compaction import compact
from pageowner.fleet.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("longest", ["400000d", "9999999h", "999999999999999d"])
def test_a_time_longer_than_since_1970_is_for_ever(few: Snapshot, tmp_path: Path, longest: str,
                                                   ) -> None:
    """A year of less than four digits comes after 2026 as text."""
    fleet = Fleet(pushed(tmp_path, [capture(few, "a", share=0.5)]))
    when = {**WHEN, "since": longest}
    assert fleet.expire(longest) == 0
    assert fleet.report("comm", **when).machines == 1
    with pytest.raises(PageownerError, match="no captures from 1970-01-01 00:00 UTC to 2026-12-20"):
        Fleet(tmp_path / "nothing").report("comm", **when)


def test_copies_beside_the_files_of_captures_count_nothing_twice(few: Snapshot, tmp_path: Path,
                                                                 ) -> None:
    captures = [capture(few, "a", hour=hour, share=0.5) for hour in range(2)]
    store = pushed(tmp_path, captures)
    compact(Store(str(store)), captures[0].taken + 7000)  # the first hour
    pages = sum(sum(one.owners["pages"].to_pylist()) for one in captures)
    kept = list(store.rglob("owners/**/*.parquet"))
    assert len(kept) == 3
    for path in kept:
        for name in (f"{path.name}.bak", f"{path.name}~", f".{path.name}.Ab12Cd"):
            (path.parent / name).write_bytes(path.read_bytes())
    notes: list[str] = []
    count = "SELECT sum(pages) AS pages FROM owners"
    assert Fleet(store).query(count, **WHEN, notes=notes.append).to_pylist() == [{"pages": pages}]
    assert notes == []
    (kept[0].parent / "owners-old.parquet").write_bytes(kept[0].read_bytes())
    assert Fleet(store).query(count, **WHEN, notes=notes.append).to_pylist() == [{"pages": pages}]
    assert notes == ["files whose names are no capture's, left out: 1, such as"
                     f" {kept[0].parent}/owners-old.parquet"]


def test_a_capture_in_two_compacted_hours_counts_once(few: Snapshot, tmp_path: Path) -> None:
    """It was sent again after a clock was set."""
    one, other = (capture(few, host, share=0.5) for host in ("one", "other"))
    fleet = Fleet(pushed(tmp_path, [one, one.moved(7200), other]))
    notes: list[str] = []
    sql = "SELECT host, hour, sum(pages) AS pages FROM owners GROUP BY ALL ORDER BY host"
    asked = fleet.query(sql, **WHEN)
    for time in (one.taken + 86400, one.taken + 1e9):
        compact(Store(str(fleet.store)), time)
    assert not list(tmp_path.rglob("incoming/owners/**/*.parquet"))
    assert fleet.query(sql, **WHEN, notes=notes.append) == asked
    assert notes == ["captures that lie in several hours, and count once: 1"]
    found = fleet.report("comm", **WHEN)
    assert (found.captures, found.machines, found.notes) == (2, 2, notes)
    assert sum(found.owners["pages"].to_pylist()) == sum(
        sum(each.owners["pages"].to_pylist()) for each in (one, other))


def test_what_does_not_fit_into_memory_is_written_to_a_folder_that_is_removed(
        few: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(pushed(tmp_path, [capture(few, "a", share=0.5)]))
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    asked = "SELECT current_setting('temp_directory') AS folder FROM captures"
    assert fleet.query(asked, **WHEN)["folder"].to_pylist()[0].startswith(f"{folder}/pageowner.")
    path, = (tmp_path / "store").rglob("incoming/owners/**/*.parquet")
    path.write_bytes(b"")
    assert not fleet.query(asked, **WHEN).num_rows
    assert list(folder.iterdir()) == []
