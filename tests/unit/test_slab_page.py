"""An object is shown with its slab, and a cache with who has most of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pageowner.analysis.balance_details import slab_rows
from pageowner.analysis.slab_users import slab_users
from pageowner.kernel.slabs import SlabCache
from pageowner.model.memory_facts import MemoryFacts
from pageowner.model.metadata import Metadata
from pageowner.model.slab_at import SlabAt
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import OBJECTS
from pageowner.report import slab_page
from pageowner.report.json_text import Json
from pageowner.report.terminal import Paper

SLAB = 0xFFFF888012340000
HOSTILE = "a\x1b[2Jb"
STACKS = ["kmem_cache_alloc_noprof+0x1/0x2\nalloc_empty_file+0x1/0x2\ndo_eventfd+0x1/0x2",
          "kmem_cache_alloc_noprof+0x1/0x2\nalloc_empty_file+0x1/0x2\npath_openat+0x1/0x2"]


def objects(one_in: int = 1) -> Snapshot:
    """Ten objects of 256 bytes in one slab: eight of one task, two of another."""
    rows = 10
    return Snapshot.from_columns({
        "address": SLAB + np.arange(rows, dtype=np.uint64) * 256,
        "pfn": np.full(rows, 0x12340, np.uint64),
        "cache": pa.array(["filp"] * rows).dictionary_encode(),
        "requested": np.full(rows, 232, np.uint32),
        "gfp_mask": np.full(rows, 0xCC0, np.uint32),
        "gfp_flags": pa.array(["GFP_KERNEL"] * rows).dictionary_encode(),
        "comm": pa.array([HOSTILE if row < 8 else "bash" for row in range(rows)]),
        "pid": np.full(rows, 8, np.int32), "tgid": np.full(rows, 7, np.int32),
        "ts_ns": np.arange(rows, dtype=np.uint64) * 10**9,
        "stack": pa.array([STACKS[row >= 8] for row in range(rows)]),
        "blocks": np.full(rows, one_in, np.uint64),
        "amount": np.full(rows, 256 * one_in, np.uint64),
    }, Metadata(source="", kind=OBJECTS, page_size=1, clock_ns=20 * 10**9, host="here",
                extra={"objects": {"share": one_in, "there": {}, "early": {}}}))


def slab_at(address: int, one_in: int = 1) -> SlabAt:
    snapshot = objects(one_in)
    rows = snapshot.table.to_pylist()
    found = next((row for row in rows if row["address"] <= address < row["address"] + 256), None)
    return SlabAt(address, found, [row for row in rows if row is not found], SLAB, 0x12340, 1, 16,
                  256, [{"pid": 3, "tgid": 3, "comm": "maker", "ts_ns": 0, "state": "owned"}],
                  snapshot.meta)


def drawn(found: SlabAt, top: int = 40) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        slab_page.draw(found, Paper(160), top)
    return out.getvalue()


def test_an_object_is_shown_with_who_allocated_it_and_its_neighbours() -> None:
    text = drawn(slab_at(SLAB + 256 + 5))
    assert text.startswith(f"object {SLAB + 256:#x}, byte 5 of it\n")
    assert "cache filp, 256 bytes, 232 asked for" in text
    assert "allocated by pid 7, tid 8 (a\\x1b[2Jb) at 1.000000 s after boot, 19.0 s ago" in text
    assert "gfp mask 0xcc0 (GFP_KERNEL)" in text
    assert "    do_eventfd+0x1/0x2\n" in text
    assert "1 page from pfn 0x12340 on, 10 of 16 objects tracked" in text
    assert "made by pid 3, tid 3 (maker)" in text
    assert text.count("path_openat") == 2
    assert "\x1b" not in text
    assert "and 6 more objects" in drawn(slab_at(SLAB), 3)


@pytest.mark.parametrize(("one_in", "words"), [
    (1, "no tracked object: free, or allocated before tracking began or past every hook"),
    (64, "no tracked object; one in 64 is tracked")])
def test_what_is_not_tracked_is_said(one_in: int, words: str) -> None:
    text = drawn(slab_at(SLAB + 4000, one_in))
    assert words in text
    assert "256 B" in text  # of the others, one by one, not of those that they stand for


def test_no_line_is_drawn_for_a_stack_that_is_not_known() -> None:
    found = slab_at(SLAB)
    lines = drawn(replace(found, object={**(found.object or {}), "stack": None})).splitlines()
    assert lines[lines.index("  for: no stack") + 1].startswith("slab at")


def test_json_has_the_object_the_others_and_who_made_the_slab() -> None:
    out = io.BytesIO()
    Json(slab_page.document(slab_at(SLAB, 64))).write(out)
    document = json.loads(out.getvalue())
    assert document["object"]["bytes"] == 256
    assert document["object"]["stack"] == STACKS[0].split("\n")
    assert document["slab"] == {
        "address": f"{SLAB:#x}", "pfn": 0x12340, "pages": 1, "room": 16,
        "made": [{"state": "owned", "pid": 3, "tgid": 3, "comm": "maker", "ts_ns": 0}]}
    assert len(document["others"]) == 9


def test_objects_and_pages_are_not_asked_for_at_once(
        cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    status, _, err = cli("who", "0xffff888000000000", "12")
    assert status == 2
    assert b"either objects of this machine by their address, or pages" in err


def test_the_owner_with_most_of_a_cache_is_named() -> None:
    user = slab_users(objects())["filp"]
    assert (user.function, user.comm, user.share) == ("alloc_empty_file", HOSTILE, 0.8)
    empty = objects()
    assert slab_users(replace(empty, table=empty.table.slice(0, 0))) == {}
    facts = MemoryFacts(4096, {"SUnreclaim": 1 << 20}, slab_users={"filp": user},
                        slabs=[SlabCache("filp", 10, 16, 256, 1)], reclaimable_slabs=set())
    row = next(row for row in slab_rows(facts)[1].rows if row.name == "filp")
    assert row.note == ("62% of objects in use; 100% of these are tracked, the most (80%) by"
                        f" alloc_empty_file of {HOSTILE}")
