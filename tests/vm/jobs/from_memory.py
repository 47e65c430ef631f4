"""from_memory.py [MEGABYTES]: the kernel's own page owner out of its memory, beside its text.

Holds so many megabytes of anonymous memory, so that there are records to read. Exit status 0 if
every record that stood still is the same both ways, column by column, and text written of it is the
kernel's own, line by line. Says what both ways took, of the CPU and of the clock.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import pageowner
from pageowner.kernel import kallsyms
from pageowner.kernel_memory.snapshot import page_owner as from_memory
from pageowner.sources import page_owner, page_owner_text
from pageowner.sources.opening import open_source
from pageowner.sources.source import KERNEL_PAGE_OWNER
from pageowner.tracker.users.live_memory import LiveMemory

NOT_OF_THE_TEXT = {"free_ts_ns", "handle"}
"""What the text of newer kernels does not have."""


def hold(megabytes: int) -> mmap.mmap:
    area = mmap.mmap(-1, max(megabytes, 1) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(area), mmap.PAGESIZE):
        area[at] = 1
    return area


def by_text() -> pageowner.Snapshot:
    with open_source(KERNEL_PAGE_OWNER) as opened:
        return page_owner.read(opened)


def by_memory() -> pageowner.Snapshot:
    symbols = kallsyms.load()
    with LiveMemory(symbols) as memory:
        return from_memory(memory, symbols, KERNEL_PAGE_OWNER)


def differences(one: pageowner.Snapshot, other: pageowner.Snapshot, pfns: np.ndarray
                ) -> dict[str, np.ndarray]:
    """By column the frames among these, which both have, where the two do not say the same."""
    sides = []
    for snapshot in (one, other):
        places = np.searchsorted(snapshot.table["pfn"].to_numpy(), pfns)
        sides.append(snapshot.table.take(places))
    found = {}
    for name in sides[0].column_names:
        if name in NOT_OF_THE_TEXT:
            continue
        mine, theirs = (side[name].combine_chunks() for side in sides)
        if pa.types.is_dictionary(mine.type):
            mine, theirs = mine.cast(pa.string()), theirs.cast(pa.string())
        same = pc.or_(pc.fill_null(pc.equal(mine, theirs), False),
                      pc.and_(pc.is_null(mine), pc.is_null(theirs)))
        if not pc.all(same).as_py():
            found[name] = pfns[~same.to_numpy(zero_copy_only=False)]
    return found


def common(*snapshots: pageowner.Snapshot) -> np.ndarray:
    """Frames that all have."""
    pfns = [snapshot.table["pfn"].to_numpy() for snapshot in snapshots]
    found = pfns[0]
    for more in pfns[1:]:
        found = np.intersect1d(found, more, assume_unique=True)
    return found


def timed(work: object) -> tuple[pageowner.Snapshot, float, float]:
    began, cpu = time.monotonic(), os.times()
    found = work()  # type: ignore[operator]
    spent = os.times()
    return found, time.monotonic() - began, sum(spent[:4]) - sum(cpu[:4])


def written(snapshot: pageowner.Snapshot, pfns: np.ndarray) -> list[bytes]:
    """The records of these frames as text, in order."""
    kept = pc.is_in(snapshot.table["pfn"], pa.array(pfns))
    out = io.BytesIO()
    page_owner_text.write(pageowner.Snapshot(snapshot.table.filter(kept), snapshot.meta), out)
    return sorted(out.getvalue().split(b"\n\n"))


def main() -> int:
    Path("/proc/sys/kernel/numa_balancing").write_text("0")
    area = hold(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
    by_memory()  # imports, and what is learned once
    os.sync()
    time.sleep(2)
    before, memory_s, memory_cpu = timed(by_memory)
    text, text_s, text_cpu = timed(by_text)
    after = by_memory()
    print(f"time: {memory_s:.2f} s out of memory ({memory_cpu:.2f} s of CPU), {text_s:.2f} s by"
          f" text ({text_cpu:.2f} s): {text_s / memory_s:.0f} and {text_cpu / memory_cpu:.0f} to 1",
          flush=True)
    both = common(before, after)
    moved = differences(before, after, both)
    still = np.setdiff1d(both, np.concatenate([both[:0], *moved.values()]))
    absent = np.setdiff1d(still, text.table["pfn"].to_numpy())
    still = np.setdiff1d(still, absent)
    only_text = np.setdiff1d(text.table["pfn"].to_numpy(), np.union1d(
        before.table["pfn"].to_numpy(), after.table["pfn"].to_numpy()))
    different = differences(before, text, still)
    print(f"records: {text.table.num_rows:,} of the text, {before.table.num_rows:,} out of memory;"
          f" {len(still):,} stood still and are in both, {len(absent):,} are not in the text,"
          f" {len(only_text):,} only there; different:"
          f" { {name: len(pfns) for name, pfns in different.items()} }; counters"
          f" {before.meta.counters}", flush=True)
    for name, pfns in different.items():
        print(f"  {name} of {pfns[0]:#x}:", *(
            repr(side.table[name][int(np.searchsorted(side.table['pfn'].to_numpy(), pfns[0]))]
                 .as_py()) for side in (before, text)))
    mine, theirs = written(before, still), written(text, still)
    lines = sum(a != b for a, b in zip(mine, theirs, strict=False))
    print(f"text: {len(mine):,} records written of memory, {len(theirs):,} of the text;"
          f" {lines} different")
    for a, b in [(a, b) for a, b in zip(mine, theirs, strict=False) if a != b][:3]:
        print(f"  {a!r}\n  {b!r}")
    own = [before.meta.pageblock_order, text.meta.pageblock_order]
    print(f"pageblocks: order {own[0]} and {own[1]}")
    del area
    return int(bool(different) or bool(len(absent)) or bool(lines) or len(mine) != len(theirs)
               or len(still) < 1000 or own[0] != own[1]
               or len(only_text) > text.table.num_rows // 100)


if __name__ == "__main__":
    sys.exit(main())
