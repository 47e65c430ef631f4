"""What the two halves of the tracker share is the same in both, and the object is what the source
gives."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import pageowner.tracker.bpf as package
from pageowner.tracker.load import calibrate, loading, memo
from pageowner.tracker.read import maps, timings

TRACKER = Path(package.__file__).parent
ROOT = Path(__file__).parents[2]
HEADER = re.sub(r"/\*.*?\*/", "", (TRACKER / "records.h").read_text(), flags=re.DOTALL)
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "s32": 4, "char": 1}


def define(name: str) -> int:
    match = re.search(rf"#define {name} (\d+)", HEADER)
    assert match
    return int(match[1])


def enum(name: str) -> list[str]:
    match = re.search(rf"enum {name} \{{(.*?)\}};", HEADER, re.DOTALL)
    assert match
    return re.findall(r"(\w+)(?:\s*=\s*\d+)?\s*,", match[1] + ",")


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


@pytest.mark.parametrize(("name", "dtype"), [
    ("record", maps.RECORD),
    ("freed", maps.FREED),
    ("task", maps.TASK),
    ("stack", maps.stack_type(maps.MAX_DEPTH)),
    ("question", maps.QUESTION),
    ("sighting", calibrate.SIGHTING),
    ("timing", timings.TIMING),
    ("hot", maps.HOT),
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


def test_numbers_have_the_same_names() -> None:
    assert [f"COUNT_{name.upper()}" for name in maps.COUNTERS] == enum("counter")[:-1]
    assert [f"HOOK_{name.upper()}" for name in loading.HOOK_NUMBERS] == enum("hook")[:-1]
    assert [f"MEMO_{name.upper()}" for name in memo.MEMO_COUNTERS] == enum("memo_counter")[:-1]
    assert len(loading.HOOK_NUMBERS) == maps.HOOKS
    assert len(memo.MEMO_COUNTERS) <= define("MEMO_SLOTS")
    behind = [name.removeprefix("TIMING_").lower() for name in enum("timed")[:-1]]
    assert (*loading.HOOK_NUMBERS, *behind) == timings.NAMES
    assert enum("state") == [f"STATE_{name}" for name in
                             ("NONE", "OWNED", "EARLY", "FILTERED", "DIVIDED", "WRITTEN")]
    assert list(range(6)) == [maps.NONE, maps.OWNED, maps.EARLY, maps.FILTERED, maps.DIVIDED,
                              maps.WRITTEN]
    assert define("MAX_DEPTH") == maps.MAX_DEPTH
    assert define("QUESTIONS") == maps.QUESTIONS
    assert define("SIGHTINGS") == calibrate.SIGHTINGS
    assert (1 << define("TASK_SLOT_BITS")) - 1 == maps.TASK_SLOT


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


def build(word: str | Path) -> None:
    done = subprocess.run([ROOT / "scripts" / "build-bpf", word], capture_output=True, text=True,
                          env={**os.environ, "PIP_RETRIES": "0", "PIP_TIMEOUT": "5"})
    if done.returncode and "pip" in done.stderr.lower() + done.stdout.lower():
        pytest.skip("the compiler wheel cannot be installed here")
    assert done.returncode == 0, done.stderr


def test_each_header_compiles_alone() -> None:
    build("--headers")


def test_the_object_is_what_the_source_gives(tmp_path: Path) -> None:
    built = tmp_path / "rebuilt.o"
    build(built)
    assert built.read_bytes() == loading.image(), "run scripts/build-bpf and commit the object"


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
