"""Small snapshots that are sound: what is mutated, and spoilt by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pageowner.model.pfn_runs import pack
from pageowner.model.snapshot import SCHEMA, Metadata, Snapshot

FIRST, SECOND, THIRD = (f"20260102T03040{at}.000Z.parquet" for at in (5, 6, 7))
"""Files of a folder of captures."""


def of_tracker(rows: int = 300) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the metadata of a small capture that is sound."""
    place = np.arange(rows)
    early = place % 3 == 0
    stack = [None if one else f"alloc_pages+0x1/0x9\nfunc_{at % 7}+0x2/0x8 [mod{at % 3}]"
             for at, one in zip(place.tolist(), early, strict=True)]
    snapshot = Snapshot.from_columns({
        "pfn": (place * 16 + 4096).astype("u8"), "order": (place % 4).astype("u1"),
        "gfp_mask": pa.array([0xcc0] * rows, pa.uint32()),
        "gfp_flags": ["GFP_KERNEL"] * rows,
        "migratetype": [("Unmovable", "Movable", "Reclaimable")[at % 3] for at in place],
        "pid": (place % 5 + 100).astype("i4"), "tgid": (place % 5 + 100).astype("i4"),
        "comm": [f"task{at % 5}" for at in place], "ts_ns": (place * 1000 + 10**9).astype("u8"),
        "stack": stack, "state": ["early" if one else "owned" for one in early],
        "block_migratetype": [("Unmovable", "Movable")[at // 32 % 2] for at in place],
        "zone": ["Normal"] * rows, "node": np.zeros(rows, "i2"),
        "page_flags": np.where(place % 2, 0x828, 0x80).astype("u8"),
        "memcg": [None if at % 2 else "/system.slice" for at in place],
    }, Metadata())
    meta = {
        "schema": 1, "source": "", "kind": "tracker", "host": "machine", "kernel": "6.12.1",
        "boot_id": "b", "taken_at": "2026-01-02T03:04:05Z", "clock_ns": 10**12, "page_size": 4096,
        "pageblock_order": 9, "dump_format": {}, "hooks": {"mm_page_alloc": "active"},
        "zones": [{"node": 0, "name": "Normal", "start_pfn": 4096, "spanned": 8192,
                   "present": 8192, "managed": 8000}],
        "frames": {"free": 1000, "owned": 500, "early": 200, "untracked": 0},
        "counters": {"lost": 0},
        "extra": {"since_ns": 5, "options": {"depth": 16, "memo_check": 0.001},
                  "extfrag": [{"comm": "x", "pid": 1, "tgid": 1, "stack": "a+0x1/0x2", "order": 0,
                               "migratetype": "Movable", "fallback_order": 3,
                               "fallback_migratetype": "Unmovable", "count": 4, "last_ns": 5}],
                  "memory": {"held": pack(np.array([[4096, 4100]])), "tasks": [100, 101],
                             "free": [[0, "Normal", [3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1]]]}}}
    return snapshot.table, meta


def of_dump() -> tuple[pa.Table, dict[str, Any]]:
    """The same as a dump of the kernel's would be."""
    table, meta = of_tracker()
    meta |= {"kind": "page_owner", "source": "dump.txt", "zones": [], "frames": {}, "hooks": {},
             "counters": {"damaged": 1}, "extra": {"damage": [[7, "cut"]]},
             "dump_format": {"decimal_pfn": False, "free_ts": False, "pfn_lines": True}}
    rows = table.num_rows
    nothing = pa.nulls(rows, pa.uint64())
    at = table.column_names.index
    table = table.set_column(at("page_flags"), SCHEMA.field("page_flags"), nothing)
    flags = pa.array(["0x2c(referenced|lru|node=0|zone=2)"] * rows).dictionary_encode()
    return table.set_column(at("flags"), SCHEMA.field("flags"), flags), meta


def written(path: Path, table: pa.Table, meta: object, **more: Any) -> None:
    """A Parquet file with these columns and this text, or object, as metadata."""
    text = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    pq.write_table(table.replace_schema_metadata(
        {b"pageowner": text, **more.pop("about", {})}), path, **more)
