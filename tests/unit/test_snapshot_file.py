"""The saved snapshot: small, whole or absent, readable without us, refused when it is not one."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from refusing import refused

import pageowner
from pageowner import PageownerError
from pageowner.model.snapshot import METADATA_KEY, SCHEMA, SCHEMA_VERSION, Metadata
from pageowner.sources.page_owner_text import write
from pageowner.storage import parquet
from pageowner.storage.parquet import ORDER_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done
    from pageowner import Snapshot


@pytest.fixture(scope="module")
def saved(big: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "big.parquet"
    big.save(path)
    return path


def test_a_saved_dump_is_under_a_hundredth_of_its_text(saved: Path, dump_text: Path) -> None:
    assert saved.stat().st_size * 100 < dump_text.stat().st_size


def test_a_saved_snapshot_comes_back_equal_with_all_that_is_known(
        big: Snapshot, saved: Path) -> None:
    again = pageowner.read(saved)
    assert again.meta == big.meta
    assert again.table.schema.equals(SCHEMA)
    assert again.table.equals(big.table)
    assert again.pages == big.pages == 200_176


def of_a_machine(rows: int = 40_000) -> pageowner.Snapshot:
    """Rows such as a capture has: two of three in use since before, of many kinds; the others
    allocated by four tasks in turns, each page somewhere."""
    rng = np.random.default_rng(7)
    owned = rng.random(rows) < 1 / 3
    unknown = pa.array(~owned)
    place = rng.permutation(rows)
    burst = place // 500 % 4

    def coded(codes: np.ndarray, texts: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(
            pa.array(codes.astype("i4"), mask=np.asarray(~owned)), pa.array(texts))

    tasks = ["cc1", "make", "dd", "sh"]
    return pageowner.Snapshot.from_columns({
        "pfn": np.arange(rows, dtype="u8") * 2 + 4096,
        "order": np.where(owned, 0, rng.integers(0, 3, rows)).astype("u1"),
        "state": pc.if_else(unknown, "early", "owned"),
        "ts_ns": pa.array((place * 9000 + rng.integers(0, 5000, rows)).astype("u8"),
                          mask=~owned),
        "pid": pa.array(burst.astype("i4") + 100, mask=~owned),
        "comm": coded(burst, tasks),
        "stack": coded(burst, [f"alloc+0x1/0x2\n{task}+0x1/0x2" for task in tasks]),
        "page_flags": rng.choice(np.array([0x6c, 0x80, 0x828], "u8"), rows),
    }, Metadata(page_size=4096))


def test_rows_are_packed_by_what_is_alike_and_come_back_by_pfn(tmp_path: Path) -> None:
    snapshot, path = of_a_machine(), tmp_path / "now.parquet"
    snapshot.save(path)
    assert pageowner.read(path).table.equals(snapshot.table)
    pq.write_table(snapshot.table, plain := tmp_path / "plain.parquet", compression="zstd",
                   column_encoding=dict.fromkeys(("pfn", "ts_ns"), "DELTA_BINARY_PACKED"),
                   use_dictionary=[name for name in SCHEMA.names if name not in ("pfn", "ts_ns")])
    assert path.stat().st_size < 0.9 * plain.stat().st_size
    assert pq.read_schema(path).metadata[ORDER_KEY] == b"pfn"


def test_several_row_groups_come_back_as_one_table(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 1000)
    snapshot, path = of_a_machine(5500), tmp_path / "now.parquet"
    snapshot.save(path)
    assert pq.read_metadata(path).num_row_groups == 6
    assert pageowner.read(path).table.equals(snapshot.table)


@pytest.mark.parametrize("pfns", [[5, 3, 9], [3, 3, 4], [None, 3, 4]])
def test_rows_that_do_not_stand_in_pfn_order_stay_as_they_stand(
        tmp_path: Path, pfns: list[int | None]) -> None:
    """As of a dump whose lines of pfns were cut away, or of several dumps in one."""
    snapshot = pageowner.Snapshot.from_columns(
        {"pfn": pfns, "order": [0, 0, 0], "ts_ns": [3, 2, 1]}, Metadata())
    snapshot.save(path := tmp_path / "kept.parquet")
    assert ORDER_KEY not in pq.read_schema(path).metadata
    assert pageowner.read(path).table.equals(snapshot.table)


def test_nobody_else_can_read_a_saved_snapshot(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_duckdb_alone_answers_pages_by_comm(saved: Path, dump_text: Path) -> None:
    code = ("import duckdb, json, sys; rows = duckdb.sql(f\"select comm, sum(1::bigint << "
            "\\\"order\\\") from '{sys.argv[1]}' group by comm\").fetchall();"
            "assert 'pageowner' not in sys.modules; print(json.dumps([(c, int(n)) for c, n in "
            "rows]))")
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, check=True)
    pages: Counter[str] = Counter()
    for order, comm in re.findall(
            rb"^Page allocated via order (\d+), [^\n]*, tgid \d+ \(([^\n]*)\), ts ",
            dump_text.read_bytes(), re.MULTILINE):
        pages[comm.decode()] += 1 << int(order)
    assert dict(json.loads(done.stdout)) == dict(pages)


def test_metadata_can_be_read_with_parquet_alone(saved: Path) -> None:
    said = json.loads(pq.read_schema(saved).metadata[METADATA_KEY])
    assert said["schema"] == 1
    assert said["pageblock_order"] == 9
    assert said["counters"]["damaged"] == 0


def with_metadata(few_saved: Path, path: Path, text: bytes | None) -> Path:
    table = pq.read_table(few_saved)
    pq.write_table(table.replace_schema_metadata(
        None if text is None else {METADATA_KEY: text}), path)
    return path


def test_a_snapshot_of_a_newer_schema_asks_for_an_upgrade(few_saved: Path, tmp_path: Path) -> None:
    said = json.loads(pq.read_schema(few_saved).metadata[METADATA_KEY])
    text = json.dumps({**said, "schema": SCHEMA_VERSION + 1}).encode()
    assert "upgrade" in refused(with_metadata(few_saved, tmp_path / "newer.parquet", text))


def test_fields_that_this_version_does_not_know_do_no_harm(few_saved: Path, tmp_path: Path) -> None:
    said = json.loads(pq.read_schema(few_saved).metadata[METADATA_KEY])
    text = json.dumps({**said, "colour": "blue"}).encode()
    path = with_metadata(few_saved, tmp_path / "more.parquet", text)
    assert pageowner.read(path).meta == pageowner.read(few_saved).meta


def test_another_programs_parquet_is_named_as_such(few_saved: Path, tmp_path: Path) -> None:
    other = with_metadata(few_saved, tmp_path / "other.parquet", None)
    assert "not a pageowner snapshot" in refused(other)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    assert "not a pageowner snapshot" in refused(tmp_path / "foreign.parquet")


@pytest.mark.parametrize("change", [
    {"schema": "one"}, {"schema": None}, {"page_size": "4096"}, {"page_size": 0},
    {"page_size": True}, {"pageblock_order": -1}, {"pageblock_order": 99}, {"source": None},
    {"source": 5}, {"counters": []}, {"counters": {"damaged": "many"}}, {"zones": {}},
    {"zones": [{"name": "Normal"}]}, {"zones": [1]},
    {"clock_ns": "now"}, {"frames": {"free": 1.5}}, {"clock_ns": 1 << 63}, {"clock_ns": -1},
    {"page_size": 10**400}, {"extra": {"damage": 5}}, {"extra": {"damage": [5]}},
    {"extra": {"damage": "ab"}}, {"extra": {"damage": [["0", "cut"]]}},
    {"extra": {"damage": [[0]]}},
])
def test_damaged_metadata_is_refused_in_one_line(
        few_saved: Path, tmp_path: Path, change: dict[str, object]) -> None:
    said = json.loads(pq.read_schema(few_saved).metadata[METADATA_KEY])
    text = json.dumps({**said, **change}).encode()
    assert "damaged" in refused(with_metadata(few_saved, tmp_path / "bad.parquet", text))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"])
def test_metadata_that_is_no_object_is_refused_in_one_line(
        few_saved: Path, tmp_path: Path, text: bytes) -> None:
    assert "damaged" in refused(with_metadata(few_saved, tmp_path / "bad.parquet", text))


def test_columns_of_another_kind_are_refused_in_one_line(few_saved: Path, tmp_path: Path) -> None:
    metadata = pq.read_schema(few_saved).metadata
    table = pq.read_table(few_saved)
    rows = table.num_rows
    changed = {
        "text for a number": table.set_column(0, "pfn", pa.array(["x"] * rows)),
        "an impossible time": table.set_column(
            table.column_names.index("ts_ns"), "ts_ns",
            pa.array([(1 << 64) - 1] * rows, pa.uint64())),
        "an impossible order": table.set_column(1, "order", pa.array([63] * rows, pa.uint8())),
        "no order": table.set_column(1, "order", pa.nulls(rows, pa.uint8())),
        "twice": table.append_column("pfn", table["pfn"]),
    }
    for name, one in changed.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(one.replace_schema_metadata(metadata), path)
        assert "column" in refused(path)


def test_a_snapshot_cut_short_anywhere_is_refused_in_one_line(
        few_saved: Path, tmp_path: Path) -> None:
    whole = few_saved.read_bytes()
    path = tmp_path / "cut.parquet"
    for size in [4, 5, 8, 12, *range(100, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refused(path)


def test_flipped_bytes_are_refused_or_change_nothing(few_saved: Path, tmp_path: Path) -> None:
    whole = few_saved.read_bytes()
    expected = pageowner.read(few_saved).table
    path = tmp_path / "flipped.parquet"
    chance = random.Random(612)
    refusals = []
    for _ in range(250):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            damaged[chance.randrange(4, len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            found = pageowner.read(path)
        except PageownerError as error:
            refusals.append(str(error))
        else:
            # what no checksum covers: statistics, versions, names of encodings
            assert found.table.num_rows <= expected.num_rows
            found.report(by="comm,stack")
    assert len(refusals) > 150
    assert not any("\n" in message for message in refusals)


def test_a_file_in_a_folder_named_like_a_partition_gains_no_column(
        few_saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "comm=intruder"
    folder.mkdir()
    shutil.copy(few_saved, folder / "_hidden")
    assert pageowner.read(folder / "_hidden").table.equals(pageowner.read(few_saved).table)


def test_a_packed_snapshot_is_read_too(few_saved: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "small.parquet.gz"
    path.write_bytes(gzip.compress(few_saved.read_bytes()))
    assert pageowner.read(path).table.equals(pageowner.read(few_saved).table)
    path.write_bytes(gzip.compress(few_saved.read_bytes())[:-5000])
    assert "truncated" in refused(path)


def test_columns_that_are_left_out_are_null_and_no_rows_are_no_error(tmp_path: Path) -> None:
    nothing = pageowner.Snapshot.from_columns({"pfn": [], "order": []}, Metadata())
    assert nothing.table.schema.equals(SCHEMA)
    assert nothing.pages == 0
    assert nothing.report(by="comm").num_rows == 0
    nothing.save(tmp_path / "nothing.parquet")
    assert pageowner.read(tmp_path / "nothing.parquet").table.equals(nothing.table)
    one = pageowner.Snapshot.from_columns({"pfn": [7], "order": [2]}, Metadata())
    assert one.table["comm"].null_count == 1
    assert one.report(by="comm,stack,subsystem")["pages"].to_pylist() == [4]
    text = io.BytesIO()
    write(one, text)
    assert text.getvalue() == (b"Page allocated via order 2, mask 0x0\n"
                               b"PFN 0x7 type Unmovable Block 0 type Unknown Flags 0x0()\n\n")


@pytest.mark.parametrize("document", ["README.md", "docs/snapshot.md"])
def test_queries_shown_in_the_documents_run(document: str, saved: Path) -> None:
    import duckdb

    text = (Path(__file__).parents[2] / document).read_text()
    queries = re.findall(r"^SELECT .*?;", text, re.MULTILINE | re.DOTALL)
    assert queries
    for query in queries:
        assert duckdb.sql(query.rstrip(";").replace("now.parquet", str(saved))).fetchall()


def test_a_dump_is_not_written_over_by_a_snapshot(
        some_records: Path, tmp_path: Path, cli: Callable[..., Done]) -> None:
    dump = tmp_path / "dump.txt"
    dump.write_bytes(some_records.read_bytes())
    for words in ([dump], [dump, dump], [dump, some_records]):
        done = cli("save", *words)
        assert done.status == 2
        assert b"exists and is not a snapshot" in done.err
    assert dump.read_bytes() == some_records.read_bytes()
    new = tmp_path / "new.parquet"
    assert cli("save", new, dump).status == cli("save", new, dump).status == 0


def test_a_pipe_that_somebody_reads_is_written(
        some_records: Path, tmp_path: Path, cli: Callable[..., Done]) -> None:
    pipe, whole = tmp_path / "pipe", tmp_path / "whole.parquet"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert cli("save", pipe, some_records).status == 0
        assert reader.stdout is not None
        whole.write_bytes(reader.stdout.read())
    assert pageowner.read(whole).table.equals(pageowner.read(some_records).table)


def test_page_owner_sort_refuses_a_saved_snapshot(
        saved: Path, cli: Callable[..., Done]) -> None:
    done = cli("sort", saved, "-")
    assert done.status == 1
    assert b"is a saved snapshot" in done.err
    assert done.out == b""


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "data/snapshots").iterdir()),
                         ids=lambda path: path.stem)
def test_a_snapshot_that_an_older_version_wrote_is_still_read(path: Path) -> None:
    snapshot = pageowner.read(path)
    assert (snapshot.table.num_rows, snapshot.pages) == (90, 94)
    assert snapshot.meta.counters["damaged"] == 1
    assert snapshot.report(by="comm,stack")["pages"].to_pylist()[0] > 1


def test_nothing_that_a_capture_says_is_dropped_when_its_file_is_read() -> None:
    import inspect
    import re

    from pageowner.model.saved_metadata import Extra
    from pageowner.tracker.read import capture

    source = inspect.getsource(capture)
    written = set(re.findall(r'\.extra\["(\w+)"\]', source))
    written |= set(re.findall(r'"(\w+)":', source[source.index("extra={"):].split("})")[0]))
    assert {"memory", "unexplained", "since_ns"} <= written
    assert written <= set(Extra.__struct_fields__)


def test_what_is_said_of_a_source_is_said_of_its_saved_capture(
        some_records: Path, tmp_path: Path, cli: Callable[..., Done]) -> None:
    twice, file = tmp_path / "twice.txt", tmp_path / "a.parquet"
    twice.write_bytes(2 * some_records.read_bytes())
    made = pageowner.read(twice)
    assert made.meta.extra["left_out"]
    made.meta.extra |= {"read_while_running": True, "kernels_own": True, "not_from_memory": "why"}
    made.save(file)
    assert pageowner.read(file).meta == made.meta
    assert cli("save", file, twice).status == 0
    assert b"come again" in cli("report", file).err


def test_a_row_group_holds_no_texts_but_its_own(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 100)
    monkeypatch.setattr(parquet, "_FEW_TEXTS", 5)
    stacks = [None if pfn % 17 == 3 else f"f{pfn % 271}+0x1/0x2" for pfn in range(450)]
    made = pageowner.Snapshot.from_columns({
        "pfn": list(range(450)), "order": [0] * 450, "stack": stacks,
        "comm": ["a"] * 449 + [None], "ts_ns": [pfn * 7919 % 1000 for pfn in range(450)]},
        Metadata(kind="page_owner"))
    made.save(tmp_path / "a.parquet")
    assert parquet.read(tmp_path / "a.parquet").table.to_pydict() == made.table.to_pydict()
    with pq.ParquetFile(tmp_path / "a.parquet", read_dictionary=["stack"]) as file:
        texts = [file.read_row_group(group, ["stack"])["stack"].chunk(0).dictionary
                 for group in range(file.num_row_groups)]
    assert len(texts) == 5
    assert sum(map(len, texts)) < 271 + 5


def test_row_groups_without_a_text_come_back(tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    # as those of pages that were in use before: one after another, since rows lie by their time
    monkeypatch.setattr(parquet, "_ROWS", 100)
    monkeypatch.setattr(parquet, "_FEW_TEXTS", 5)
    made = pageowner.Snapshot.from_columns({
        "pfn": list(range(450)), "order": [0] * 450,
        "stack": [f"f{pfn}+0x1/0x2" if pfn % 3 else None for pfn in range(450)],
        "ts_ns": [pfn + 1 if pfn % 3 else None for pfn in range(450)]}, Metadata(kind="tracker"))
    made.save(tmp_path / "a.parquet")
    assert parquet.read(tmp_path / "a.parquet").table.to_pydict() == made.table.to_pydict()


FLIP = """
import struct, sys, pageowner
path = sys.argv[1]
whole = open(path, "rb").read()
begin = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]
tried = 0
for place in range(begin, len(whole) - 8):
    if whole[place] != 2:
        continue
    open(path, "wb").write(whole[:place] + bytes([90]) + whole[place + 1:])
    try:
        pageowner.read(path)
    except pageowner.PageownerError:
        pass
    tried += 1
print(tried)
"""


def test_damaged_statistics_of_sizes_end_in_an_error_not_in_the_process(tmp_path: Path) -> None:
    """Arrow throws an exception of C++ that nobody catches where it looks at such a column."""
    path = tmp_path / "a.parquet"
    pageowner.Snapshot.from_columns({
        "pfn": list(range(40)), "order": [0] * 40, "stack": ["f+0x1/0x2"] * 40,
        "comm": ["a"] * 40, "ts_ns": list(range(40))}, Metadata(kind="page_owner")).save(path)
    done = subprocess.run([sys.executable, "-c", FLIP, path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
