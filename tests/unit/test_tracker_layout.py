"""What the two halves of the tracker share is the same in both, and the object is what the source
gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pageowner.tracker.bpf as package
from pageowner.model import tracking
from pageowner.tracker.load import calibrate, loading, memo
from pageowner.tracker.read import extfrag, layout, maps, objects, timings
from pageowner.tracker.users import layout as users
from pageowner.tracker.users import memory

TRACKER = Path(package.__file__).parent
ROOT = Path(__file__).parents[2]
HEADER = re.sub(r"/\*.*?\*/", "", "".join(
    (TRACKER / name).read_text() for name in ("records.h", "page_users.h")), flags=re.DOTALL)
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "s32": 4, "char": 1}


def define(name: str) -> int:
    match = re.search(rf"#define {name} (\d+)", HEADER)
    assert match
    return int(match[1])


def enum_values(name: str) -> list[str]:
    """Names of an enum whose values are given."""
    match = re.search(rf"enum {name} \{{(.*?)\}};", HEADER, re.DOTALL)
    assert match
    return re.findall(r"(\w+) = ", match[1])


def struct(name: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each member, naturally aligned."""
    match = re.search(rf"struct {name} \{{(.*?)\}};", HEADER, re.DOTALL)
    assert match
    members, at = {}, 0
    for kind, member, count in re.findall(r"(\w+) (\w+)(?:\[(\w+)\])?;", match[1]):
        n = 1 if not count else int(count) if count.isdigit() else define(count)
        at += -at % SIZES[kind]
        members[member] = (at, SIZES[kind] * n)
        at += SIZES[kind] * n
    return members


def test_what_the_halves_say_of_each_other_is_what_they_say(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "layout_of_records.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    for kept in (Path(layout.__file__), TRACKER / "ran.h"):
        assert (tmp_path / kept.name).read_text() == kept.read_text(), (
            f"run scripts/build-bpf and commit {kept.name}")


@pytest.mark.parametrize(("name", "dtype"), [
    ("record", maps.RECORD),
    ("freed", maps.FREED),
    ("task", maps.TASK),
    ("stack", maps.stack_type(layout.MAX_DEPTH)),
    ("question", maps.QUESTION),
    ("object", objects.OBJECT),
    ("object_cache", objects.CACHE),
    ("sighting", calibrate.SIGHTING),
    ("timing", timings.TIMING),
    ("hot", maps.HOT),
    ("extfrag", extfrag.VALUE),
    ("request", users.REQUEST),
    ("layout", users.LAYOUT),
    ("anchor", users.ANCHOR),
    ("file", users.FILE),
    ("cache", users.CACHE),
    ("task_found", users.TASK),
    ("area", users.AREA),
    ("pool", users.POOL),
])
def test_a_struct_is_laid_out_the_same(name: str, dtype: np.dtype) -> None:
    members = struct(name)
    assert dtype.fields is not None
    assert {field: (at, kind.itemsize) for field, (kind, at, *_) in dtype.fields.items()} == members
    at, size = list(members.values())[-1]
    assert dtype.itemsize == at + size


def test_a_record_takes_24_bytes_a_page_and_the_free_side_16() -> None:
    assert maps.RECORD.itemsize == 24
    assert maps.FREED.itemsize == 16


def test_numbers_that_python_has_names_for_are_those_of_the_headers() -> None:
    assert layout.STATES == ("none", "owned", "early", "filtered", "divided", "written")
    assert list(range(6)) == [maps.NONE, maps.OWNED, maps.EARLY, maps.FILTERED, maps.DIVIDED,
                              maps.WRITTEN]
    assert layout.HOOKS[memo.HOOKS_THAT_RECOGNISE] == "nested_alloc"
    assert "#define MEMO_HOOKS HOOK_NESTED_ALLOC" in HEADER
    assert len(layout.MEMO_COUNTERS) <= layout.MEMO_SLOTS
    assert tracking.MAX_DEPTH == layout.MAX_DEPTH
    assert [define(name) for name in ("FILES", "AREAS", "CACHES", "REQUESTS")] == [
        users.FILES, users.AREAS, users.CACHES, users.REQUESTS]
    assert re.findall(r"(FILE_\w+) = (\d+),", HEADER) == [
        (name, str(getattr(users, name))) for name in enum_values("file_state")]


def test_the_object_has_every_parameter_that_is_set() -> None:
    symbols = loading._symbols(loading.image(), ".rodata")
    for name in ("vmemmap", "span_shift", "depth", "stack_mask", "task_mask", "free_side",
                 "user_gfp", "min_order", "only_tgid", "only_cgroup", "cgroup_level", "sample",
                 "bulk_array", "split_new_order", "split_at", "split_uniform",
                 "split_uniform_value", "split_arguments", "only_pid", "memo", "reading", "filters",
                 "thread_size", "memo_mask", "check_every", "entry_text", "entry_text_end",
                 "fred_text", "fred_text_end", "stack_padding", "anchors", "trampolines", "hold",
                 "timed", "most_looked",
                 "comp_gfp", "contig_gfp", "direct_map", "page_shift"):
        assert name in symbols


def build(*words: str | Path) -> None:
    done = subprocess.run([ROOT / "scripts" / "build-bpf", *words], capture_output=True, text=True,
                          env={**os.environ, "PIP_RETRIES": "0", "PIP_TIMEOUT": "5"})
    if done.returncode == 77:
        pytest.skip("the compiler wheel cannot be installed here")
    assert done.returncode == 0, done.stderr


def test_each_header_compiles_alone() -> None:
    build("--headers")


def test_the_object_is_what_the_source_gives(tmp_path: Path) -> None:
    built = tmp_path / "rebuilt.o"
    build(built)
    assert built.read_bytes() == loading.image(), "run scripts/build-bpf and commit the object"
    build(built, TRACKER / "page_users.bpf.c")
    assert built.read_bytes() == memory.image(), "run scripts/build-bpf and commit the object"


def test_the_memo_has_a_bound_on_any_machine() -> None:
    source = (TRACKER / "memo_state.bpf.h").read_text()
    ways = re.search(r"#define MEMO_WAYS (\d+)", source)
    assert ways
    assert int(ways[1]) == memo.WAYS
    for cpus in (1, 2, 64, 256, 1024):
        for depth in (1, 16, 64):
            size = memo.sets_for(depth, cpus) * memo.set_bytes(depth)
            assert size <= 1 << 20
            assert size * cpus <= max(96 << 20, cpus * 32 * memo.set_bytes(depth))
    assert 256 * memo.sets_for(16, 256) * memo.set_bytes(16) <= 64 << 20
