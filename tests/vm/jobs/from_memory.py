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


def rows(snapshot: pageowner.Snapshot) -> dict[int, tuple[object, ...]]:
    names = [name for name in snapshot.table.column_names if name not in NOT_OF_THE_TEXT]
    columns = [snapshot.table[name].to_pylist() for name in names]
    return {row[0]: row for row in zip(*columns, strict=True)}


def timed(work: object) -> tuple[pageowner.Snapshot, float, float]:
    began, cpu = time.monotonic(), os.times()
    found = work()  # type: ignore[operator]
    spent = os.times()
    return found, time.monotonic() - began, sum(spent[:4]) - sum(cpu[:4])


def written(snapshot: pageowner.Snapshot, pfns: set[int]) -> list[bytes]:
    """The records of these frames as text, in order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = pc.is_in(snapshot.table["pfn"], pa.array(sorted(pfns), pa.uint64()))
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
    first, texts, last = rows(before), rows(text), rows(after)
    names = [name for name in text.table.column_names if name not in NOT_OF_THE_TEXT]
    still = {pfn for pfn, row in first.items() if last.get(pfn) == row}
    gone = [pfn for pfn in texts if pfn not in first and pfn not in last]
    different = [pfn for pfn in still if texts.get(pfn) != first[pfn]]
    print(f"records: {len(texts):,} of the text, {len(first):,} out of memory; {len(still):,} stood"
          f" still; {len(different):,} of them different, {len(gone):,} only in the text;"
          f" counters {before.meta.counters}")
    for pfn in different[:5]:
        print(f"  {pfn:#x}:", *(
            [f"{name}: {mine!r} {theirs!r}" for name, mine, theirs in zip(
                names, first[pfn], texts[pfn], strict=True) if mine != theirs]
            if pfn in texts else ["not in the text"]))
    mine, theirs = written(before, still), written(text, still)
    lines = sum(a != b for a, b in zip(mine, theirs, strict=False))
    print(f"text: {len(mine):,} records written of memory, {len(theirs):,} of the text;"
          f" {lines} different")
    for a, b in [(a, b) for a, b in zip(mine, theirs, strict=False) if a != b][:3]:
        print(f"  {a!r}\n  {b!r}")
    own = [before.meta.pageblock_order, text.meta.pageblock_order]
    print(f"pageblocks: order {own[0]} and {own[1]}")
    print(f"time: {memory_s:.2f} s out of memory ({memory_cpu:.2f} s of CPU), {text_s:.2f} s by text"
          f" ({text_cpu:.2f} s): {text_s / memory_s:.0f} and {text_cpu / memory_cpu:.0f} to 1")
    del area
    return int(bool(different) or bool(lines) or len(mine) != len(theirs) or len(still) < 1000
               or own[0] != own[1] or len(gone) > len(texts) // 100)


if __name__ == "__main__":
    sys.exit(main())
