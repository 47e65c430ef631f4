"""`serve` of a directory of ``record --objects`` judges growth as ``leaks`` of that directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from served import HOSTILE  # noqa: F401  # skips where the extra is not installed
from test_leaks import LEAK, Machine

import pageowner
from pageowner.errors import UsageError
from pageowner.model.metadata import Metadata
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import OBJECTS
from pageowner.server import answers, sources
from pageowner.server.gathering import stack_id
from pageowner.storage.recording import Recorder

if TYPE_CHECKING:
    from pathlib import Path

S = 10**9
ONE_IN, SIZE = 64, 192
CALL = "__x64_sys_openat+0x1/0x2\ndo_syscall_64+0x1/0x2"
FILE, DENTRY, FEW = (f"kmem_cache_alloc+0x1/0x2\n{name}+0x1/0x2\n{outer}" for name, outer in (
    ("alloc_empty_file", CALL), ("__d_alloc", CALL), ("rare", "worker_thread+0x1/0x2")))


def objects(second: int) -> Snapshot:
    """Files with their dentries, a leak that is small in bytes; and few objects of one kind, which
    may be chance where one in many is followed."""
    births = [(stack, born, size) for stack, every, size in (
        (FILE, 2, SIZE), (DENTRY, 2, SIZE), (FEW, 20, 1 << 14))
        for born in range(-30, second, every)]
    stacks, born, sizes = zip(*births, strict=True)
    rows = len(births)
    return Snapshot.from_columns({
        "address": np.arange(rows, dtype=np.uint64) * SIZE, "cache": ["filp"] * rows,
        "comm": ["leaker"] * rows, "tgid": np.full(rows, 7, np.int32),
        "ts_ns": (np.array(born, np.int64) + 1000).astype(np.uint64) * np.uint64(S),
        "stack": list(stacks), "blocks": np.full(rows, ONE_IN, np.uint64),
        "amount": np.array(sizes, np.uint64) * np.uint64(ONE_IN)},
        Metadata(kind=OBJECTS, page_size=1, boot_id="b", clock_ns=(1000 + second) * S,
                 extra={"objects": {"share": ONE_IN}}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "recorded"
    found.mkdir(mode=0o700)
    recorder = Recorder(found, 600, 7 * 86400)
    for look in range(13):
        recorder.add(objects(look * 5), 1.7e9 + look * 600)
    return found


def test_growth_of_objects_is_what_leaks_says(folder: Path) -> None:
    rows = pageowner.leaks(folder).owners.to_pylist()
    assert [(row["kind"], len(row["with"])) for row in rows] == [("leak", 1)]
    here = sources.Series(folder)
    growth = here.figures()["growth"]
    assert [(owner.kind, owner.stack) for owner in growth] == [
        ("leak", stack_id(rows[0]["stack"]))]
    assert growth[0].rate == pytest.approx(rows[0]["rate"] / 3600)
    asked = json.loads(answers.leaks(answers.Context(here, here), {}).body)["owners"]
    assert [owner["gained"] for owner in asked] == [rows[0]["gained"]]
    for least in ("9999999", "1000000000", "10000000000"):
        assert json.loads(answers.leaks(answers.Context(here, here), {"min": least}).body)[
            "owners"] == []
    for wrong in ("0", "-1", "9" * 5000):
        with pytest.raises(UsageError):
            answers.leaks(answers.Context(here, here), {"min": wrong})


def test_few_objects_whose_frames_are_in_order_are_all_there(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 600, 7 * 86400)
    for look, number in enumerate((2, 3)):
        few = objects(look).table.slice(0, number)
        few = few.set_column(few.column_names.index("pfn"), "pfn",
                             pa.array(range(number), pa.uint64()))
        recorder.add(Snapshot(few, objects(look).meta), 1.7e9 + look * 600)
    assert pageowner.read(tmp_path).table.num_rows == 3


def test_a_capture_that_comes_while_another_is_read_is_not_taken_for_it(
        folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = sources.Series(folder)
    before = here.captures()[:-1]
    monkeypatch.setattr(here, "captures", lambda: before)
    assert here.at(None).meta.clock_ns == objects(55).meta.clock_ns


def test_memory_is_shown_where_captures_of_two_kinds_are_no_series(folder: Path) -> None:
    machine = Machine()
    machine.add(LEAK, [1.0], 1e9)
    machine.at(70).save(folder / "20331212T000000.000Z.parquet")
    here = sources.Series(folder)
    for _ in range(2):
        found = json.loads(answers.figures(answers.Context(here, here), {}).body)
        assert found["states"]["owned"] == 4096
        assert "a series is of one kind" in found["notes"][0]
