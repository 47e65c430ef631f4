"""Compare what a vmcore tells, outside, with what was saved in the guest before and after it was
made: the job ``crash``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pageowner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.model.snapshot import Snapshot

RECORD = ("pfn", "order", "state", "ts_ns", "stack", "comm", "pid", "tgid", "gfp_mask",
          "gfp_flags", "migratetype", "migrate_reason")
"""What a record says."""
FRAME = ("memcg", "zone", "node", "block_migratetype", "page_flags")
"""What the kernel says of its frames; flags change as pages are used."""


def rows(snapshot: Snapshot, columns: Iterable[str]) -> set[tuple[Any, ...]]:
    table = snapshot.table.select(list(columns))
    return set(zip(*(column.to_pylist() for column in table.columns), strict=True))


def compare(found: Snapshot, before: Snapshot, after: Snapshot | None) -> dict[str, Any]:
    """``steady``: records that were the same before and after; each has to be in the dump
    (``missing``: those that are not). ``new``: records of the dump that were saved neither before
    nor after; ``unexplained`` of them are older than what was saved before."""
    first, dumped = rows(before, RECORD), rows(found, RECORD)
    last = rows(after, RECORD) if after else first
    steady = first & last
    new = dumped - first - last
    result: dict[str, Any] = {
        "records": len(dumped), "steady": len(steady), "equal": len(steady & dumped),
        "missing": len(steady - dumped), "new": len(new),
        "unexplained": sum(row[3] is not None and row[3] < (before.meta.clock_ns or 0)
                           for row in new)}
    if after is None:
        result["changed"] = result.pop("missing")
    result["examples"] = sorted(map(str, [*(steady - dumped), *new]))[:6]
    for column in FRAME:
        keys = ("pfn", "order", "ts_ns", column)
        same = rows(before, keys) & (rows(after, keys) if after else rows(before, keys))
        result[column] = [len(same & rows(found, keys)), len(same)]
    return result


def main(folder: str) -> int:
    place = Path(folder)
    saved = [pageowner.read(place / f"{name}.parquet") if (place / f"{name}.parquet").exists()
             else None for name in ("before", "after")]
    assert saved[0]
    results = {}
    for path in sorted(place.glob("vmcore.*")):
        results[path.name] = compare(pageowner.read(path), saved[0], saved[1])
    print(json.dumps(results, indent=1))
    (place / "same_memory.json").write_text(json.dumps(results))
    bad = sum(result.get("missing", 0) + result["unexplained"] for result in results.values())
    return int(bool(bad) or not results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
