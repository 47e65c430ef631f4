"""What looks at a running tracker say of live blocks is what a capture of the same says."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pageowner.analysis.filters import Filter
from pageowner.analysis.keys import Key
from pageowner.analysis.leaks import Rows, rows_of
from pageowner.analysis.live_rows import rows_of_looks, told_by_records, untracked_by_kind
from pageowner.model.live import LiveBlocks
from pageowner.model.snapshot import Metadata, Snapshot

STACKS = ("anon_vma+0x1/0x2\nalloc_anon_folio+0x1/0x2\ndo_anonymous_page+0x3/0x9",
          "filemap_alloc_folio+0x1/0x2\nxfs_read+0x3/0x9 [xfs]",
          "shmem_alloc_folio+0x1/0x2\nshmem_fault+0x3/0x9", None)
TASKS = (("cc1", 7, 7), ("cc1", 7, 8), ("sh", 9, 9), None)
TYPES = ("Unmovable", "Movable", "Reclaimable")
ROWS = 200
NAMES = (["stack"], ["subsystem"], ["module", "order"], ["comm"], ["pid", "tid"],
         ["frame", "gfp", "migratetype"])


@pytest.fixture(scope="module")
def both() -> tuple[Snapshot, LiveBlocks]:
    random = np.random.default_rng(5)
    stack, task, kind = (random.integers(0, number, ROWS) for number in (4, 4, 3))
    orders = random.integers(0, 4, ROWS)
    ts = random.integers(1, 10**9, ROWS).astype(np.uint64)
    gfp = ["GFP_KERNEL", "__GFP_MOVABLE", "__GFP_RECLAIMABLE"]
    tasks: list[Any] = [(None, None, None) if one is None else one
                        for one in (TASKS[number] for number in task)]
    snapshot = Snapshot.from_columns({
        "pfn": np.arange(ROWS, dtype=np.uint64) << np.uint64(4), "order": orders.astype(np.uint8),
        "stack": pa.array([STACKS[number] for number in stack]).dictionary_encode(),
        "comm": [one[0] for one in tasks], "tgid": [one[1] for one in tasks],
        "pid": [one[2] for one in tasks], "ts_ns": ts, "gfp_flags": [gfp[one] for one in kind],
        "migratetype": [TYPES[one] for one in kind], "state": ["owned"] * ROWS},
        Metadata(kind="tracker"))
    return snapshot, LiveBlocks(
        10**9, {"stack": (stack, list(STACKS)), "task": (task, list(TASKS)),
                "migratetype": (kind, list(TYPES)), "gfp": (kind, list(gfp)),
                "order": (orders, [0, 1, 2, 3])},
        np.int64(1) << orders, ts, {"untracked": 3})


def each(key: Key | None) -> list[Any]:
    assert key is not None
    return [key.labels[int(code)].as_py() for code in key.codes]


@pytest.mark.parametrize("names", NAMES, ids=",".join)
def test_a_look_gives_the_rows_of_a_capture(both: tuple[Snapshot, LiveBlocks],
                                            names: list[str]) -> None:
    snapshot, blocks = both
    assert told_by_records(names)
    now, found, others = rows_of_looks(lambda _: blocks, names)()
    expected: Rows = rows_of(snapshot, names)
    assert (now, others) == (10**9, {"untracked": 3})
    assert [each(key) for key in found.keys] == [each(key) for key in expected.keys]
    for name in ("pages", "ts", "reclaimable"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    assert each(found.program) == each(expected.program)
    assert found.called == expected.called
    assert each(found.comm) == each(expected.comm)
    assert each(found.tgid) == each(expected.tgid)


@pytest.mark.parametrize("words", [
    {"comm": "cc*"}, {"pid": 9}, {"tid": (8, 9)}, {"module": "xfs"}, {"stack": "shmem_*"},
    {"gfp": "movable"}, {"migratetype": "Movable"},
    {"comm": "sh", "stack": "*alloc*"}, {"comm": "nobody"}], ids=str)
def test_a_filtered_look_gives_the_rows_of_a_filtered_capture(
        both: tuple[Snapshot, LiveBlocks], words: dict[str, Any]) -> None:
    snapshot, blocks = both
    chosen = Filter(**words)
    assert told_by_records(["stack"], chosen)
    _, found, others = rows_of_looks(lambda _: blocks, ["stack"], chosen)()
    expected: Rows = rows_of(snapshot.where(chosen), ["stack"])
    assert others == {}
    assert len(found.pages) < ROWS
    for name in ("pages", "ts", "reclaimable"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    assert [each(key) for key in found.keys] == [each(key) for key in expected.keys]
    assert each(found.program) == each(expected.program)


@pytest.mark.parametrize("words", [
    {"order": 0}, {"subsystem": "slab*"}, {"allocator": "slab"}, {"zone": "DMA"}, {"memcg": "/"},
    {"state": "untracked"}, {"migratetype": "CmaOfVendor"}, {"comm": "a", "node": 0}], ids=str)
def test_filters_that_other_pages_match_or_no_record_tells_take_a_capture(
        words: dict[str, Any]) -> None:
    assert not told_by_records(["stack"], Filter(**words))


def test_what_no_record_holds_takes_a_capture() -> None:
    assert not told_by_records(["stack", "memcg"])
    assert not told_by_records(["zone"])


def test_untracked_pages_are_counted_by_what_their_flags_say() -> None:
    snapshot = Snapshot.from_columns({
        "pfn": [0, 4, 8], "order": [0, 2, 0], "state": ["untracked", "untracked", "owned"],
        "page_flags": [1 << 7, 1 << 7, 1 << 26]}, Metadata(kind="tracker"))
    assert untracked_by_kind(snapshot) == {"slab (untracked)": 5}


def test_memory_of_processes_is_told_by_process(both: tuple[Snapshot, LiveBlocks]) -> None:
    _, found, _ = rows_of_looks(lambda _: both[1], ["stack"])()
    assert set(each(found.program)) == {None, 7, 9}
    assert found.called == {7: "cc1", 9: "sh"}
