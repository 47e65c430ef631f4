"""handles.py: the kernel's own page owner read by handle, beside its text with all stacks.

Exit status 0 if every record that stood still meanwhile has the same stack both ways, no frames are
missing, and reports of both, each with times, say which text was how long and what reading it took.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pageowner
from pageowner.sources import kernel_page_owner, page_owner
from pageowner.sources.opening import open_source
from pageowner.sources.source import KERNEL_PAGE_OWNER

KEPT = ("pfn", "order", "ts_ns", "pid", "comm", "gfp_mask", "stack", "handle", "state", "memcg",
        "migrate_reason")


def text(mode: str) -> bytes:
    """All that the kernel prints in this mode."""
    file = os.open(KERNEL_PAGE_OWNER, os.O_RDWR)
    try:
        os.write(file, f"mode={mode}".encode())
        parts = []
        while part := os.read(file, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def rows(snapshot: pageowner.Snapshot) -> dict[int, tuple[object, ...]]:
    columns = [snapshot.table[name].to_pylist() for name in KEPT]
    return {row[0]: row for row in zip(*columns, strict=True)}


def timed(work: object) -> tuple[object, float]:
    began = time.monotonic()
    found = work()  # type: ignore[operator]
    return found, time.monotonic() - began


def main() -> int:
    # It moves pages to and fro between nodes: one that came back seems to have stood still.
    Path("/proc/sys/kernel/numa_balancing").write_text("0")
    with_stacks, took_stacks = timed(lambda: text("stack"))
    by_handle, took_handles = timed(lambda: text("handle"))
    listed, took_list = timed(Path(kernel_page_owner.stacks_of(KERNEL_PAGE_OWNER)).read_bytes)
    bytes_of = len(with_stacks), len(by_handle) + len(listed)  # type: ignore[arg-type]
    print(f"text: {bytes_of[0]:,} bytes with stacks in {took_stacks:.1f} s, {bytes_of[1]:,} by"
          f" handle and the list in {took_handles + took_list:.1f} s:"
          f" {bytes_of[0] / bytes_of[1]:.2f} and"
          f" {took_stacks / (took_handles + took_list):.2f} to 1")

    def plain() -> pageowner.Snapshot:
        with open_source(KERNEL_PAGE_OWNER) as opened:
            return page_owner.read(opened)

    before, plain_s = timed(plain)
    joined, joined_s = timed(lambda: kernel_page_owner.read(KERNEL_PAGE_OWNER))
    after = plain()
    summed = kernel_page_owner.count(KERNEL_PAGE_OWNER)
    print(f"read: {plain_s:.1f} s with stacks, {joined_s:.1f} s by handle:"
          f" {plain_s / joined_s:.2f} to 1")
    if joined is None or summed is None:
        print("the kernel prints no handles")
        return 1
    first, handles, last = rows(before), rows(joined), rows(after)  # type: ignore[arg-type]
    still = {pfn for pfn, row in first.items() if last.get(pfn) == row}
    different = [pfn for pfn in still if handles.get(pfn) != first[pfn]]
    unknown = joined.meta.counters["unknown_handles"]  # type: ignore[attr-defined]
    early = sum(first[pfn][KEPT.index("state")] == "early" for pfn in still)
    print(f"records: {len(first):,} with stacks, {len(handles):,} by handle; {len(still):,} stood"
          f" still, {early:,} of them early; {len(different):,} different; {unknown} stacks"
          f" unknown, {summed.meta.counters['unknown_handles']} in the sums")
    for pfn in different[:5]:
        print(f"  {first[pfn]}\n  {handles.get(pfn)}")
    return int(bool(different) or unknown > 0 or not still or not early)


if __name__ == "__main__":
    sys.exit(main())
