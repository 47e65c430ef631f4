"""Damaged and foreign files in a fleet's store: left out, told in a line, and nothing with them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fleets import START, WHEN, capture, pushed

from pageowner import Fleet, Snapshot
from pageowner.fleet import layout
from pageowner.fleet.compaction import compact
from pageowner.fleet.layout import digits
from pageowner.fleet.store import Store, StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = START + 30 * 86400


@pytest.mark.parametrize("damage", ["half", "empty", "flipped"])
def test_a_damaged_file_is_left_out_and_told_in_one_line(few: Snapshot, tmp_path: Path,
                                                         damage: str) -> None:
    good = [capture(few, f"db{number}", seed=number, share=0.5) for number in range(3)]
    bad = capture(few, "bad", share=0.5)
    store = pushed(tmp_path, [*good, bad])
    path, = store.rglob(f"owners/**/{digits(bad.number)}.parquet")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[300:310] = bytes(10)
    path.write_bytes(b"" if damage == "empty" else bytes(content) if damage == "flipped" else
                     content[:len(content) // 2])
    found = Fleet(store).report(**WHEN)
    assert found.machines == 3
    note, = found.notes
    assert "\n" not in note
    assert note.startswith(f"{path}: damaged, left out: ")
    done = compact(Store(str(store)), NOW)
    assert done.captures == 3
    assert len(done.damaged) == 1
    assert path.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def with_a_wrong_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[300:310] = bytes(10)
    path.write_bytes(content)


def foreign(path: Path) -> None:
    pq.write_table(pa.table({"mine": [1]}), path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, with_a_wrong_page, foreign, a_folder])
@pytest.mark.parametrize("large", ["owners/day=2026-11-20/hour=00/owners", "stacks/stacks"])
def test_a_large_file_that_cannot_be_read_keeps_no_other_from_compaction(
        few: Snapshot, tmp_path: Path, damage: Callable[[Path], None], large: str) -> None:
    def small(pattern: str) -> list[Path]:
        return list((place / layout.INCOMING).parent.rglob(pattern))

    def asked() -> list[dict[str, int]]:
        return Fleet(store.place).query(
            "SELECT count(DISTINCT capture) AS n FROM owners LEFT JOIN stacks USING (stack_id)",
            **WHEN).to_pylist()

    captures = [capture(few, host, hour=hour, share=0.5) for host in ("a", "b") for hour in (0, 1)]
    place = pushed(tmp_path, captures[:2])
    store = Store(str(place))
    compact(store, NOW)
    pushed(tmp_path, captures[2:])
    path = place / f"v1/{large}.parquet"
    damage(path)
    left = small("hour=00/*.parquet" if "hour" in large else "stacks/*.parquet")
    done = [compact(store, NOW) for _ in range(2)]
    assert [[text.startswith(f"{path}: ") for text in one.damaged] for one in done] == [[True]] * 2
    assert sum(one.captures for one in done) == (1 if "hour" in large else 2)
    assert left
    assert sorted(small("*.parquet")) == sorted(left)
    if damage in (cut, with_a_wrong_page):  # what is still there by itself is asked
        assert asked() == [{"n": 4}]
    path.rmdir() if path.is_dir() else path.unlink()
    for _ in range(2):
        assert compact(store, NOW).damaged == ()
    assert small("*.parquet") == []
    assert asked() == [{"n": 4}]


def test_a_file_of_a_bucket_that_does_not_arrive_is_not_called_damaged(
        few: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(path: str) -> bytes:
        if Path(path).stem == digits(late.number):
            raise StoreAway(f"{store.place}: cannot read: timed out")
        return Store.get(store, path)

    @contextmanager
    def opened(path: str) -> Iterator[None]:
        raise OSError("timed out")
        yield

    first, second, late = (capture(few, host, share=0.5) for host in ("first", "second", "late"))
    store = Store(str(pushed(tmp_path, [first])))
    compact(store, NOW)
    pushed(tmp_path, [second, late])
    for name, value in (("is_local", False), ("get", get), ("open", opened)):
        monkeypatch.setattr(store, name, value)
    done = compact(store, NOW)
    assert (done.captures, done.damaged) == (1, ())
    path, = (tmp_path / "store" / layout.INCOMING).rglob(f"{digits(late.number)}.parquet")
    assert done.away == (f"{path}: cannot read: timed out",)


def test_a_file_of_other_captures_than_its_name_says_is_not_added_again_and_again(
        few: Snapshot, tmp_path: Path) -> None:
    place = pushed(tmp_path, [capture(few, host, share=0.5) for host in ("a", "b")])
    first, second = sorted((place / layout.INCOMING).rglob("hour=00/*.parquet"))
    first.write_bytes(second.read_bytes())
    done = [compact(Store(str(place)), NOW * 2) for _ in range(2)]
    assert [one.captures for one in done] == [1, 0]
    assert done[1].damaged == (f"{first}: has not the one capture that its name says",)
    assert (first.exists(), second.exists()) == (True, False)


@pytest.mark.parametrize(("column", "value", "why"), [
    ("pages", "many", "column pages has type string"), ("comm", b"\xff", "Invalid UTF8")])
def test_a_file_with_columns_of_other_types_is_left_out(few: Snapshot, tmp_path: Path, column: str,
                                                        value: str | bytes, why: str) -> None:
    """A machine that sends nonsense keeps nobody from asking about the others."""
    good, bad = (capture(few, host, share=0.5) for host in ("good", "bad"))
    store = pushed(tmp_path, [good, bad])
    path, = store.rglob(f"owners/**/{digits(bad.number)}.parquet")
    table = pq.read_table(path)
    place = table.column_names.index(column)
    values = pa.array([value] * table.num_rows)
    if isinstance(value, bytes):
        values = pa.Array.from_buffers(pa.string(), len(values), values.buffers())
    pq.write_table(table.set_column(place, column, values), path)
    found = Fleet(store).report("comm", **WHEN)
    assert found.machines == 1
    note, = found.notes
    assert note.startswith(f"{path}: damaged, left out: ")
    assert why in note
    done = compact(Store(str(store)), NOW)
    assert done.captures == 1
    assert why in done.damaged[0]
