"""``pageowner export``: every format is read by its readers, and all have the same sums."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import shutil
import subprocess
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import go_pprof
import jsonschema
import pyarrow.parquet as pq
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields

import pageowner
from pageowner.analysis.profile import LABELS, NO_STACK, samples
from pageowner.analysis.subsystems import functions
from pageowner.model.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done
    from pageowner import Snapshot

FORMATS = ("pprof", "folded", "speedscope", "json", "csv", "parquet")
EVIL = "e;v il\x1b[2J\n\u202e</script> 7"

# The messages of google/pprof's proto/profile.proto: field, number, type (i, u: 64 bits, b: bool)
SCHEMA = {
    "Profile": "*sample_type 1 ValueType, *sample 2 Sample, *mapping 3 Mapping,"
               " *location 4 Location, *function 5 Function, *string_table 6 s,"
               " drop_frames 7 i, keep_frames 8 i, time_nanos 9 i, duration_nanos 10 i,"
               " period_type 11 ValueType, period 12 i, *comment 13 i, default_sample_type 14 i",
    "ValueType": "type 1 i, unit 2 i",
    "Sample": "*location_id 1 u, *value 2 i, *label 3 Label",
    "Label": "key 1 i, str 2 i, num 3 i, num_unit 4 i",
    "Mapping": "id 1 u, memory_start 2 u, memory_limit 3 u, file_offset 4 u, filename 5 i,"
               " build_id 6 i, has_functions 7 b, has_filenames 8 b, has_line_numbers 9 b,"
               " has_inline_frames 10 b",
    "Location": "id 1 u, mapping_id 2 u, address 3 u, *line 4 Line, is_folded 5 b",
    "Line": "function_id 1 u, line 2 i",
    "Function": "id 1 u, name 2 i, system_name 3 i, filename 4 i, start_line 5 i",
}


def profile_class() -> Any:
    field_type = descriptor_pb2.FieldDescriptorProto
    kinds = {"i": field_type.TYPE_INT64, "u": field_type.TYPE_UINT64, "b": field_type.TYPE_BOOL,
             "s": field_type.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(
        name="profile.proto", package="perftools.profiles", syntax="proto3")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            word, number, kind = field.split()
            message.field.add(
                name=word.strip("*"), number=int(number),
                label=field_type.LABEL_REPEATED if "*" in word else field_type.LABEL_OPTIONAL,
                type=kinds.get(kind, field_type.TYPE_MESSAGE),
                type_name=None if kind in kinds else f".perftools.profiles.{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("perftools.profiles.Profile"))


def decoded(raw: bytes) -> tuple[list[tuple[list[str], list[int], dict[str, Any]]], Any]:
    """The samples of a pprof file, frames outermost first, as its schema reads them."""
    whole = profile_class().FromString(gzip.decompress(raw))
    assert not len(unknown_fields.UnknownFieldSet(whole))
    text = whole.string_table
    assert text[0] == ""
    assert len(set(text)) == len(text)
    function = {one.id: text[one.name] for one in whole.function}
    mapping = {one.id: text[one.filename] for one in whole.mapping}
    location = {}
    for one in whole.location:
        (line,) = one.line
        module = mapping[one.mapping_id]
        name = function[line.function_id]
        location[one.id] = name if module == "vmlinux" else f"{name} [{module}]"
    assert 0 not in location
    found = []
    for one in whole.sample:
        # pprof drops a label that has neither text nor number nor unit
        labels = {text[label.key]: text[label.str] if label.str else label.num
                  for label in one.label if label.str or label.num or label.num_unit}
        assert len(labels) == len(one.label)
        found.append(([location[place] for place in reversed(one.location_id)], list(one.value),
                      labels))
    return found, whole


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "hostile"
    pageowner.Snapshot.from_columns(
        {"order": [0, 3, 1], "comm": [EVIL, None, "b"], "tgid": [1, None, 0],
         "stack": [f"f\x1b+0x1/0x2 [{EVIL[:2]}]\n<script>;x+0x3/0x4", None, "g+0x1/0x1"],
         "state": ["owned", "early", "owned"]},
        Metadata(source="x\x1b", page_size=65536, taken_at="2026-01-02T03:04:05+00:00")).save(path)
    return path


@pytest.mark.parametrize("words", [[], ["--by", "comm"], ["--by", "stack,order"],
                                   ["--state", "owned", "--order", "0"]])
def test_sums_are_equal_in_all_formats(words: list[str], text61: Path, tmp_path: Path,
                                       cli: Callable[..., Done]) -> None:
    report = json.loads(cli("report", text61, "--json", *[word for word in words if word not in (
        "--by", "comm", "stack,order")]).out)
    expected = (report["bytes"], report["pages"], report["blocks"])
    out = {kind: cli("export", text61, "--format", kind, *words).out for kind in FORMATS}
    found, _ = decoded(out["pprof"])
    pages, blocks, size = (sum(column) for column in zip(*(one[1] for one in found), strict=True))
    assert (size, pages, blocks) == expected
    for unit, value in zip(("bytes", "pages", "blocks"), expected, strict=True):
        lines = cli("export", text61, "--format", "folded", "--unit", unit, *words).out
        assert sum(int(line.rpartition(b" ")[2]) for line in lines.splitlines()) == value
    profiles = json.loads(out["speedscope"])["profiles"]
    assert tuple(sum(profile["weights"]) for profile in profiles) == expected
    assert tuple(profile["endValue"] for profile in profiles) == expected
    rows = json.loads(out["json"])
    read = list(csv.DictReader(io.StringIO(out["csv"].decode())))
    table = pq.read_table(io.BytesIO(out["parquet"])).to_pylist()
    for owners in (rows, read, table):
        assert tuple(sum(int(owner[name]) for owner in owners)
                     for name in ("bytes", "pages", "blocks")) == expected
    assert [{**one, "stack": one["stack"] and one["stack"].split("\n")} if "stack" in one else one
            for one in table] == rows
    assert [{name: "" if value is None else str(value) for name, value in one.items()}
            for one in table] == read


def test_pprof_has_every_stack_with_its_labels(sample61: Snapshot, text61: Path,
                                               cli: Callable[..., Done]) -> None:
    found, whole = decoded(cli("export", text61, "--format", "pprof").out)
    told: Counter[tuple[object, ...]] = Counter()
    for frames, (pages, _, _), labels in found:
        told[(*frames, *(labels.get(name) for name in LABELS))] += pages
    expected: Counter[tuple[object, ...]] = Counter()
    for row in sample61.table.to_pylist():
        frames = [str(function) for function in reversed(functions(row["stack"]))]
        expected[(*frames, *(row[name] for name in LABELS))] += 1 << row["order"]
    assert told == expected
    text = whole.string_table
    assert [(text[one.type], text[one.unit]) for one in whole.sample_type] == [
        ("pages", "count"), ("blocks", "count"), ("bytes", "bytes")]
    assert text[whole.default_sample_type] == "bytes"
    assert all(one.has_functions for one in whole.mapping)


def test_the_pprof_tool_reads_it(big: Snapshot, dump_text: Path, tmp_path: Path,
                                 cli: Callable[..., Done]) -> None:
    if why := go_pprof.missing():
        pytest.skip(why)
    path = tmp_path / "memory.pb.gz"
    assert cli("export", dump_text, "--format", "pprof", "-o", path).status == 0

    pprof = partial(go_pprof.pprof, tmp_path)
    top = pprof("-top", "-sample_index=pages", "-unit=count", str(path))
    assert f"of {big.pages} total" in top
    pages = big.report(by="comm").to_pylist()[0]
    tags = pprof("-tags", "-sample_index=pages", str(path))
    assert re.search(rf"^ *{pages['pages']}\.0 .*: {pages['comm']}$", tags, re.MULTILINE)
    single = sum(row["pages"] for row in big.report(by="order").to_pylist() if not row["order"])
    assert re.search(rf"^ *{single}\.0 .*: 0$", tags, re.MULTILINE)  # kept though it is a zero
    assert "Type: bytes" in pprof("-top", str(path))


def test_speedscope_matches_its_published_schema(data: Path, text61: Path, hostile: Path,
                                                 cli: Callable[..., Done]) -> None:
    with lzma.open(data / "speedscope/file-format-schema.json.xz") as file:
        schema = json.load(file)
    for source in (text61, hostile):
        said = json.loads(cli("export", source, "--format", "speedscope", "--by", "comm").out)
        jsonschema.validate(said, schema)
        for one in said["profiles"]:
            assert len(one["samples"]) == len(one["weights"])
            assert max(map(max, one["samples"])) < len(said["shared"]["frames"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**said, "profiles": [{}]}, schema)


def test_folded_and_speedscope_have_the_same_chains(text61: Path, cli: Callable[..., Done]) -> None:
    said = json.loads(cli("export", text61, "--format", "speedscope", "--by", "comm,stack").out)
    names = [f"{one['name']} [{one['file']}]" if "file" in one else one["name"]
             for one in said["shared"]["frames"]]
    chains: Counter[str] = Counter()
    for sample, weight in zip(said["profiles"][0]["samples"], said["profiles"][0]["weights"],
                              strict=True):
        chains[";".join(names[frame] for frame in sample)] += weight
    lines = cli("export", text61, "--format", "folded", "--by", "comm").out.decode().splitlines()
    assert dict(line.rsplit(" ", 1) for line in lines) == {
        chain: str(weight) for chain, weight in chains.items()}
    assert any(line.startswith("postgres;asm_exc_page_fault;exc_page_fault;") for line in lines)


def test_a_flame_graph_tool_reads_folded(text61: Path, sample61: Snapshot,
                                         cli: Callable[..., Done]) -> None:
    tool = shutil.which("flamegraph.pl")
    if tool is None:
        pytest.skip("flamegraph.pl is not on PATH (github.com/brendangregg/FlameGraph)")
    folded = cli("export", text61, "--format", "folded", "--unit", "pages").out
    drawn = subprocess.run([tool, "--countname", "pages"], input=folded, capture_output=True,
                           check=True)
    assert drawn.stderr == b""
    assert f"<title>all ({sample61.pages:,} pages, 100%)</title>".encode() in drawn.stdout


def test_a_dump_counted_and_a_snapshot_read_export_the_same(
        some_records: Path, tmp_path: Path, cli: Callable[..., Done]) -> None:
    saved = tmp_path / "saved"
    pageowner.read(some_records).save(saved)
    for kind in ("folded", "json", "csv"):
        assert cli("export", some_records, "--format", kind).out == cli(
            "export", saved, "--format", kind).out


def test_hostile_names_stay_in_their_place(hostile: Path, cli: Callable[..., Done]) -> None:
    lines = cli("export", hostile, "--format", "folded", "--by", "comm,pid").out.decode()
    assert lines.splitlines() == [
        f"-;-;{NO_STACK};early 524288", "b;0;g 131072",
        "e:v il\\x1b[2J\\x0a\\u202e</script> 7;1;<script>:x;f\\x1b [e:] 65536"]
    found, whole = decoded(cli("export", hostile, "--format", "pprof").out)
    assert {labels.get("comm") for _, _, labels in found} == {
        None, "b", "e;v il\\x1b[2J\\x0a\\u202e</script> 7"}
    assert whole.time_nanos == 1767323045 * 10**9
    assert [whole.string_table[one] for one in whole.comment] == ["source: x\\x1b"]
    assert [one["comm"] for one in json.loads(cli("export", hostile, "--format", "json").out)
            ] == [None, "b", EVIL]


def test_a_file_is_written_whole_or_not_at_all(text61: Path, tmp_path: Path,
                                               cli: Callable[..., Done]) -> None:
    for kind in FORMATS:
        path = tmp_path / kind
        done = cli("export", text61, "--format", kind, "-o", path)
        assert (done.status, done.out) == (0, b"")
        assert done.err.startswith(f"{path}: ".encode())
        assert path.read_bytes() == cli("export", text61, "--format", kind).out
        done = cli("export", text61, "--format", kind, "-o", tmp_path / "no" / kind)
        assert done.status == 1
        assert done.err.count(b"\n") == 1
    old = tmp_path / "old"
    old.write_bytes(b"as it was")
    assert cli("export", tmp_path / "missing", "--format", "csv", "-o", old).status == 1
    assert old.read_bytes() == b"as it was"


def test_a_dash_is_standard_output(text61: Path, tmp_path: Path, cli: Callable[..., Done],
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("export", text61, "--format", "folded", "-o", "-")
    assert done == cli("export", text61, "--format", "folded")
    assert done.out
    done = cli("dump", text61, "-o", "-")
    assert done == cli("dump", text61)
    assert done.out
    assert list(tmp_path.iterdir()) == []


def test_wrong_words(text61: Path, cli: Callable[..., Done]) -> None:
    for words, why in (([], b"--format"), (["--format", "svg"], b"svg"),
                       ([], b"Choose from: pprof, folded, speedscope, json, csv, parquet; see"),
                       (["--format", "csv", "--unit", "pages"], b"--unit is for folded"),
                       (["--format", "csv", "--by", "x"], b"cannot group by")):
        done = cli("export", text61, *words)
        assert done.status == 2
        assert why in done.err


def test_nothing_is_exported_well_too(tmp_path: Path, cli: Callable[..., Done]) -> None:
    path = tmp_path / "none"
    pageowner.Snapshot.from_columns({"order": []}, Metadata()).save(path)
    assert len(samples(pageowner.read(path))) == 0
    for kind in FORMATS:
        assert cli("export", path, "--format", kind).status == 0
    assert json.loads(cli("export", path, "--format", "json").out) == []
    assert decoded(cli("export", path, "--format", "pprof").out)[0] == []
