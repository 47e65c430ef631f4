"""Compare what dumps made outside, after a guest's panic, tell with what was saved in the guest
before: the jobs ``panic-sysrq``, ``panic-oom`` and ``kdump``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panicked import FORMATS
from same_memory import FRAME, RECORD, rows

import pageowner
from pageowner.kernel.flag_bits import mask, names

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot

WORDS = {"panic-sysrq": "sysrq triggered crash", "panic-oom": "Out of memory",
         "kdump": "sysrq triggered crash"}
"""What `explain` has to say of each job's dump."""
STANDS = ("slab_reclaimable", "slab_unreclaimable", "percpu", "kernel_stacks", "page_tables",
          "vmalloc", "shared")
FAR = 4 << 20
"""Bytes: two captures were saved in between."""
CPUS = 2
"""Of the guests. Each can be stopped between taking a block and writing its record."""
MOVED = RECORD.index("migrate_reason")
REST = tuple(name for name in RECORD if name not in ("order", "migrate_reason"))
"""What does not change as long as a page is allocated. Blocks may be split."""


def compare(found: Snapshot, early: Snapshot, before: Snapshot, begun: int) -> dict[str, Any]:
    """``steady``: records that were the same in both that were saved; ``equal`` of them are in the
    dump; of the others ``freed`` ones are in it no more, and ``wrong`` ones say something else of
    the same allocation. ``unexplained``: records that are in the dump alone, and older,
    and were not moved there from elsewhere."""
    first, last, dumped = (rows(side, RECORD) for side in (early, before, found))
    steady = first & last
    left = steady - dumped
    known = {(row[0], row[3]): row for row in dumped if row[3] is not None}
    wrong = [row for row in left if (row[0], row[3]) in known and same(row) != same(
        known[row[0], row[3]])]
    clock = before.meta.clock_ns or 0
    allocations = {(row[0], row[3]) for row in last}
    times = {row[3] for row in last}
    older = [row for row in dumped - last if row[3] is not None and row[3] < clock
             and (row[0], row[3]) not in allocations
             and not (row[MOVED] is not None and row[3] in times)]
    unexplained = [row for row in older if row[3] < begun]
    result: dict[str, Any] = {
        "records": len(dumped), "steady": len(steady), "equal": len(steady & dumped),
        "freed": len(left) - len(wrong), "wrong": len(wrong), "new": len(dumped - first - last),
        "unexplained": len(unexplained), "meanwhile": len(older) - len(unexplained),
        "untracked": [untracked(before), untracked(found)],
        "clock": (found.meta.clock_ns or 0) - clock,
        "examples": sorted(map(str, (*wrong, *unexplained)))[:6]}
    for column in (*FRAME, "user"):
        if column in found.table.column_names:
            keys = ("pfn", "order", "ts_ns", column)
            still = rows(early, keys) & rows(before, keys)
            allocated = {row[:3] for row in rows(found, keys)}
            still = {row for row in still if row[:3] in allocated and not is_gone(row[3])}
            others = different(found, still, keys)
            result[column] = [len(still) - sum(others.values()), len(still)]
            result[f"{column} examples"] = dict(sorted(
                others.items(), key=lambda item: -item[1])[:12])
    return result


def untracked(snapshot: Snapshot) -> int:
    return snapshot.table["state"].to_pylist().count("untracked")


def same(row: tuple[Any, ...]) -> dict[str, Any]:
    whole = dict(zip(RECORD, row, strict=True))
    # How long a function is tells the next one's place, and /proc/kallsyms may leave that out.
    whole["stack"] = re.sub(r"(\+0x[0-9a-f]+)/0x[0-9a-f]+", r"\1", whole["stack"] or "")
    return {name: whole[name] for name in REST}


def different(found: Snapshot, still: set[tuple[Any, ...]], keys: tuple[str, ...]
              ) -> dict[str, int]:
    """What differs, as ``saved -> dumped``, of flags by name, and of how many."""
    dumped = {row[:3]: row[3] for row in rows(found, keys)}
    counted: dict[str, int] = {}
    for row in still:
        mine, other = row[3], dumped[row[:3]]
        if keys[3] == "page_flags":
            mine, other = certain(mine), certain(other)
        # The dump may tell who holds a deleted file where there was no time to look.
        if mine != other and not (keys[3] == "user" and str(other).startswith(f"{mine} of ")):
            text = (f"{names(mine)}: {names(mine ^ other)}" if keys[3] == "page_flags"
                    else f"{mine} -> {other}")
            counted[text] = counted.get(text, 0) + 1
    return counted


def certain(flags: int) -> int:
    """Without what the kernel itself says wrongly: of all anonymous pages that they are merged, of
    slabs that they are anonymous (fs/proc/page.c of 6.12)."""
    return flags & ~mask("ksm", *(("anon",) if flags & mask("slab") else ()))


def is_gone(value: object) -> bool:
    """Whether it is a cgroup that the guest, which has no cgroup file system, could not name."""
    return isinstance(value, str) and value.endswith(" (gone)")


def balances(dump: Path, before: Path) -> dict[str, Any]:
    """Of the lines that stand still how far, in bytes, the dump's balance is from that before."""
    text = subprocess.run([sys.executable, "-m", "pageowner", "balance", "--json", dump],
                          check=True, stdout=subprocess.PIPE).stdout
    found, saved = (({row["key"]: row["bytes"] for row in side["rows"]}, side["total"])
                    for side in (json.loads(text), json.loads(before.read_text())))
    return {"total": found[1] - saved[1],
            **{key: found[0].get(key, 0) - saved[0].get(key, 0) for key in STANDS}}


def main(folder: str) -> int:
    place = Path(folder)
    early, before = (pageowner.read(place / f"{name}.parquet") for name in ("early", "before"))
    begun = int((place / "saving").read_text())
    results, bad = {}, 0
    for path in (place / name for name in FORMATS.values() if (place / name).exists()):
        told = place / f"{path.name}.parquet"
        subprocess.run([sys.executable, "-m", "pageowner", "save", told, path], check=True)
        results[path.name] = compare(pageowner.read(told), early, before, begun) | {
            "mib": path.stat().st_size >> 20}
        why = subprocess.run([sys.executable, "-m", "pageowner", "explain", path], check=False,
                             capture_output=True, text=True)
        results[path.name]["explain"] = why.stdout.splitlines()[:8] + why.stderr.splitlines()[:4]
        bad += why.returncode or WORDS[place.name] not in why.stdout + why.stderr
        bad += results[path.name]["wrong"] + results[path.name]["unexplained"]
        bad += results[path.name]["equal"] < 1000
        earlier, now = results[path.name]["untracked"]
        bad += now > earlier + CPUS
        if place.name != "panic-oom":  # where the kernel takes back what it can
            apart = results[path.name]["balance"] = balances(path, place / "balance.json")
            bad += bool(apart["total"]) + sum(abs(far) > FAR for far in apart.values())
        for column in ("zone", "node", "block_migratetype", "user"):
            same, all_of = results[path.name][column]
            bad += all_of < 1000 or same < all_of * 0.99
    print(json.dumps(results, indent=1))
    (place / "after_panic.json").write_text(json.dumps(
        {"kernel": (place / "release").read_text().strip(), "dumps": results}))
    return int(bool(bad) or not results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
