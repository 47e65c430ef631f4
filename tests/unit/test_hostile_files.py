"""Snapshots and series made by hand to do harm: read, or refused in one line; never a traceback,
never minutes, never gigabytes. `scripts/fuzz` asks all questions to all of them."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asking import python

import pageowner
from pageowner import PageownerError
from pageowner.analysis.shorten import LINES, LONGEST, short, shortened
from pageowner.model.metadata import SCHEMA_VERSION, Metadata
from pageowner.system import memory_limit

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import handmade
import hostile
from sound import of_tracker, written

from pageowner.model import saved_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Done

MADE = handmade.files()

BIG = 10_000_000


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> hostile.Files:
    made = hostile.Files(tmp_path_factory.mktemp("hostile"))
    hostile.preload(made)
    return made


def asked(there: hostile.Files, name: str, *verb: str) -> hostile.End:
    """How a question to a hand-made file ends; asserts that it ends well."""
    path = there.folder / f"{list(MADE).index(name)}.parquet"
    if not path.exists():
        MADE[name](path)
    end = there.ask(verb, path)
    assert hostile.why_wrong(end) == "", f"{name}: {' '.join(verb)}"
    return end


def refused(there: hostile.Files, name: str, *verb: str, says: str = "") -> None:
    end = asked(there, name, *verb)
    assert end.status == 1
    assert end.err.count(b"\n") == 1
    assert says in end.err.decode()


@pytest.mark.parametrize("odd", ["true", "float", "30 digits", "list", "objects"])
@pytest.mark.parametrize("verb", [("map", "F"), ("frag", "F"), ("map", "F", "--html", "O")])
def test_a_zone_whose_name_is_no_text_is_refused_in_one_line(
        there: hostile.Files, odd: str, verb: tuple[str, ...]) -> None:
    refused(there, f"zones.0.name is {odd}", *verb, says="zones[0].name")


@pytest.mark.parametrize("place", ["start_pfn", "spanned"])
@pytest.mark.parametrize("odd", ["minus", "2^62", "2^63", "2^64", "400 digits"])
@pytest.mark.parametrize("verb", [("map", "F"), ("frag", "F", "--order", "9", "--want", "3")])
def test_a_zone_beyond_all_memory_is_refused_in_one_line(
        there: hostile.Files, place: str, odd: str, verb: tuple[str, ...]) -> None:
    refused(there, f"zones.0.{place} is {odd}", *verb, says="zones[0]")


@pytest.mark.parametrize("name", ["comm", "pid", "stack", "order", "count", "last_ns"])
@pytest.mark.parametrize("odd", ["lists", "objects", "400 digits", "float"])
def test_fragmentation_events_of_odd_types_are_refused_in_one_line(
        there: hostile.Files, name: str, odd: str) -> None:
    for verb in (("frag", "F"), ("frag", "F", "--by", "comm", "--json")):
        refused(there, f"extra.extfrag.0.{name} is {odd}", *verb, says=f"extra.extfrag[0].{name}")


@pytest.mark.parametrize("name", ["free of many orders", "free is much", "many free"])
def test_free_blocks_that_no_memory_has_cost_neither_time_nor_memory(
        there: hostile.Files, name: str) -> None:
    refused(there, f"metadata: {name}", "frag", "F", says="extra.memory")


@pytest.mark.parametrize("odd", ["30 digits", "400 digits", "minus", "float"])
def test_a_counter_of_thirty_digits_is_not_shown_as_it_is(there: hostile.Files, odd: str) -> None:
    for verb in (("report", "F"), ("report", "F", "--json", "--by", "comm,stack")):
        refused(there, f"counters.damaged is {odd}", *verb, says="counters")


@pytest.mark.parametrize("name", ["deep", "deeper", "deep zones"])
def test_nested_json_does_not_break_a_save(there: hostile.Files, name: str) -> None:
    asked(there, f"metadata: {name}", "save", "O", "F")


@pytest.mark.parametrize("place", ["host", "source", "kernel", "zones.0.name"])
def test_a_name_that_is_no_unicode_breaks_no_picture(there: hostile.Files, place: str) -> None:
    refused(there, f"{place} is surrogate", "map", "F", "--png", "O", says="not Unicode")
    asked(there, f"{place} is byte", "map", "F", "--png", "O")


@pytest.mark.parametrize("name", [
    "filtered runs: all memory", "held runs: a bomb", "filtered runs: a million",
    "zones: 1,000 over each other", "zones: all memory", "zones: 64 TiB apart", "zones: 16 TiB",
    "pfn is spread", "pfn of a dump is spread", "rows all over each other"])
@pytest.mark.parametrize("verb", [
    ("frag", "F"), ("frag", "F", "--order", "9", "--want", "3"), ("map", "F"),
    ("map", "F", "--html", "O", "--by", "comm")])
def test_memory_as_large_as_can_be_said_costs_neither_time_nor_memory(
        there: hostile.Files, name: str, verb: tuple[str, ...]) -> None:
    asked(there, name, *verb)


def test_many_rows_in_a_small_file_are_held_against_the_memory_that_there_is(
        there: hostile.Files) -> None:
    refused(there, "60 million rows", "report", "F", says="available")


@pytest.mark.parametrize("verb", [
    ("report", "F", "--full"), ("flame", "F", "--svg", "O"), ("map", "F", "--html", "O"),
    ("flame", "F", "--html", "O", "--by", "comm,memcg"), ("report", "F", "--json", "--by",
                                                          "comm,stack"),
    ("export", "F", "--format", "pprof", "-o", "O"), ("export", "F", "--format", "json")])
@pytest.mark.parametrize("name", ["comm is 10 MB", "stack is 10 MB", "stack is 10 MB of frames",
                                  "memcg is 30 of 1 MB"])
def test_ten_megabytes_of_a_name_are_not_shown(
        there: hostile.Files, name: str, verb: tuple[str, ...]) -> None:
    end = asked(there, name, *verb)
    assert end.status == 0
    assert end.wrote < BIG


def test_a_long_name_is_kept_by_a_save(there: hostile.Files) -> None:
    path, copy = there.folder / "long.parquet", there.folder / "copy.parquet"
    MADE["comm is 10 MB"](path)
    assert hostile.run(("save", str(copy), str(path)), there.folder).status == 0
    assert pageowner.read(copy).table["comm"].equals(pageowner.read(path).table["comm"])


def test_long_names_stay_different_when_they_are_shown() -> None:
    one, other = "n" * BIG + "a", "n" * BIG + "b"
    assert short(one) != short(other)
    assert "10,000,001 characters" in short(one)
    assert len(short(one)) < LONGEST + 100
    text = short("f+0x1/0x2\n" * 5000, by_line=True)
    assert text.count("\n") == LINES
    assert "3,977 more lines" in text
    for sound in ("", "n", "n" * LONGEST, "f\n" * (LINES - 1)):
        assert short(sound, by_line=True) == sound


def test_sound_texts_are_not_copied(sample61: pageowner.Snapshot) -> None:
    assert shortened(sample61).table is sample61.table


@pytest.mark.parametrize("name", sorted(random.Random(18).sample(sorted(MADE), 60)))
def test_some_questions_to_hand_made_files_end_well(there: hostile.Files, name: str) -> None:
    asked(there, name, *random.Random(name).choice(hostile.VERBS))


def test_an_end_that_must_not_be_would_be_noticed() -> None:
    assert hostile.why_wrong(hostile.End(1, b"", b"pageowner: no\n", 1, 100)) == ""
    for wrong in (hostile.End(1, b"", b"Traceback (most", 1, 100), hostile.End(-9, b"", b"", 1, 1),
                  hostile.End(-14, b"", b"", 60, 100), hostile.End(0, b"x", b"", 1, 2000),
                  hostile.End(1, b"", b"", 1, 100), hostile.End(1, b"", b"x" * 9000, 1, 100)):
        assert hostile.why_wrong(wrong)


def test_sound_hand_made_files_are_read(there: hostile.Files) -> None:
    for name in ("sound", "a sound dump", "series: sound"):
        assert asked(there, name, "report", "F").status == 0


# -- metadata ------------------------------------------------------------------------------------


def test_every_field_of_the_metadata_has_a_shape_in_the_file() -> None:
    assert [field.name for field in fields(Metadata)] == list(
        saved_metadata.Saved.__struct_fields__)


def test_metadata_comes_back_as_it_was() -> None:
    _, said = of_tracker()
    meta = Metadata(**{name: value for name, value in said.items() if name != "schema"})
    assert Metadata.from_json(meta.to_json()) == meta
    assert Metadata.from_json(Metadata().to_json()) == Metadata()


def test_a_file_name_that_is_not_utf8_is_kept_as_escapes() -> None:
    meta = Metadata(source=os.fsdecode(b"/d\xff\xc3.txt"), host="\\xff", kernel="\\udcff")
    again = Metadata.from_json(meta.to_json())
    assert (again.source, again.host, again.kernel) == ("/d\\xff\\xc3.txt", "\\xff", "\\udcff")
    # as older versions wrote it
    old = json.dumps({"schema": SCHEMA_VERSION, "source": "\udcff 😀 \\ud800"}).encode()
    assert Metadata.from_json(old).source == "\\xff 😀 \\ud800"


def test_what_is_wrong_is_named_in_plain_words() -> None:
    with pytest.raises(PageownerError, match=r"damaged: zones\[0\]\.name: expected `str"):
        Metadata.from_json(b'{"schema":1,"zones":[{"start_pfn":1,"spanned":1,"name":7}]}')


# -- memory --------------------------------------------------------------------------------------


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, meta = of_tracker(20_000)
    written(tmp_path / "s.parquet", table, meta)
    monkeypatch.setattr(memory_limit, "available", lambda: 10_000)
    with pytest.raises(PageownerError,
                       match=r"s\.parquet: its 20,000 rows would take .* available"):
        pageowner.read(tmp_path / "s.parquet")


def test_available_memory_is_what_the_machine_the_cgroup_and_the_limits_leave() -> None:
    code = ("import resource; from pageowner.system import memory_limit;"
            "free = memory_limit.available();"
            "assert free > 1 << 20; import os;"
            "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30));"
            "assert memory_limit.available() < 2 << 30; print(free)")
    free = int(python(code))
    total = next(int(line.split()[1]) << 10 for line in
                 Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert free <= total * 4  # swap included


def test_a_text_said_many_times_is_held_once(tmp_path: Path) -> None:
    """Plain text of 1 GB, as another program may read it, is a dictionary here."""
    rows = 10_000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["n" * 100_000])
    table = pa.table({"pfn": pa.array(range(rows), pa.uint64()),
                      "order": pa.array([0] * rows, pa.uint8()), "comm": text})
    schema = pa.schema([*list(table.schema)[:2], pa.field("comm", pa.string())])
    with pq.ParquetWriter(tmp_path / "x.parquet", schema.with_metadata(
            {b"pageowner": Metadata().to_json()}), compression="zstd") as writer:
        for at in range(0, rows, 2_000):
            writer.write_table(table.slice(at, 2_000).cast(schema))
    before = pa.total_allocated_bytes()
    assert pageowner.read(tmp_path / "x.parquet").table.num_rows == rows
    assert pa.total_allocated_bytes() - before < 100 << 20


# -- warnings ------------------------------------------------------------------------------------


@pytest.fixture
def strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


_ONE_BY_ONE = """
import gc, json, sys
from pageowner.cli import main

for words in json.loads(sys.argv[1]):
    print("$", *words, file=sys.stderr, flush=True)
    status = main(words)
    gc.collect()
    print("=", status, file=sys.stderr, flush=True)
"""


def strictly(commands: list[list[str]]) -> tuple[list[str], str]:
    """Run commands in one Python for which each warning is an error, and what is left open gives
    one; returns their statuses, and all that was said."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _ONE_BY_ONE, json.dumps(commands)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return re.findall(r"^= (\d+)$", done.stderr, re.MULTILINE), done.stderr


def test_no_verb_leaves_a_file_open(there: hostile.Files) -> None:
    path = there.folder / "sound.parquet"
    statuses, said = strictly([list(there.words(verb, path)) for verb in hostile.VERBS])
    assert "Warning" not in said, said
    assert "Traceback" not in said, said
    assert len(statuses) == len(hostile.VERBS)


def test_no_dump_is_left_open(some_records: Path, tmp_path: Path) -> None:
    import gzip
    import lzma

    import zstandard

    text = some_records.read_bytes()[:200_000]
    commands = []
    for name, pack in {"plain": bytes, "xz": lzma.compress, "gz": gzip.compress,
                       "zst": zstandard.ZstdCompressor().compress}.items():
        path = str(tmp_path / name)
        Path(path).write_bytes(pack(text))
        commands += [[*verb, path] for verb in (
            ["report"], ["report", "--older", "1s"], ["frag"], ["diff", path])]
    statuses, said = strictly(commands)
    assert "Warning" not in said, said
    assert statuses == ["0"] * len(commands), said


def test_a_file_that_is_left_open_would_be_noticed() -> None:
    code = _ONE_BY_ONE.replace("main(words)", "open('/dev/null') and 0")
    assert code != _ONE_BY_ONE
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code, "[[]]"],
                          capture_output=True, text=True)
    assert "ResourceWarning" in done.stderr


def test_a_series_of_one_dump_says_what_is_wrong_and_nothing_of_none(
        some_records: Path, cli: Callable[..., Done]) -> None:
    done = cli("leaks", *[some_records] * 4)
    assert done.status == 2
    assert b"not later than the previous snapshot" in done.err
    assert b"None" not in done.err
