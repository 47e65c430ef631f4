"""The longest time that one event takes inside the tracker's programs, under the mixed load and
while it learns new stacks.

    longest.py [SECONDS] [STACKS]

The mixed load runs for SECONDS (60). Then trackers that know nothing yet meet reads of /proc and
/sys, each file with a path of its own through the kernel, until STACKS (10,000) were learned. The
clock is read inside the programs, so what an interrupt or the host took meanwhile is in the longest
times, but not in the medians. Needs root and cc.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from common import need_tracking
from mixed_load import rounds as mixed_load
from pageowner.tracker import control
from pageowner.tracker.load import memo
from pageowner.tracker.read import timings
from pageowner.tracker.read.layout import TIMING_BUCKETS
from pageowner.tracker.read.maps import Store
from pageowner.tracker.read.timings import Timing

SAYS = {
    "alloc": "an allocation",
    "nested_alloc": "one in an interrupt",
    "free": "a free",
    "nested_free": "one in an interrupt",
    "extfrag": "a fragmentation event",
    "bulk": "a bulk allocation",
    "contig": "a contiguous range",
    "migrate": "a migration",
    "split": "a split",
    "unwind": "of them: unwinding a stack",
    "learn": "of them: learning one",
}
READ = 1 << 16


def files() -> Iterator[Path]:
    """Files that the kernel makes up as they are read."""
    for root in ("/proc/self", "/proc/sys", "/proc/net", "/sys/kernel/mm", "/sys/block",
                 "/sys/fs", "/sys/devices/system"):
        for path in Path(root).rglob("*"):
            with suppress(OSError):
                if path.is_file() and path.stat().st_mode & 0o400:
                    yield path


def read_all(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError, ValueError), path.open("rb", buffering=0) as file:
            file.read(READ)


def table(found: dict[str, Timing]) -> Iterator[str]:
    """Rows of a table: each event's median, the longest of 999 in 1,000, and the longest."""
    unwinding = found["unwind"].quantile(0.5)
    yield "| event | times | median ns | 99.9 % within | longest ns | to the median unwinding |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, says in SAYS.items():
        timing = found[name]
        if timing.events:
            ratio = f"{timing.longest / unwinding:,.1f} : 1" if unwinding else "-"
            yield (f"| {says} | {timing.events:,} | {timing.quantile(0.5):,.0f} |"
                   f" {timing.quantile(0.999):,.0f} | {timing.longest:,} | {ratio} |")


def together(one: dict[str, Timing], other: dict[str, Timing]) -> dict[str, Timing]:
    return {name: Timing(a.events + b.events, max(a.longest, b.longest), a.buckets + b.buckets)
            for name, a in one.items() for b in (other[name],)}


def counters(store: Store) -> dict[str, int]:
    return memo.read_counters(store.bpf, store.fd("memo_states"), store.fd("counters"))


def learning(stacks: int) -> None:
    paths = list(files())
    nothing = Timing(0, 0, np.zeros(TIMING_BUCKETS, np.uint64))
    found = dict.fromkeys(timings.NAMES, nothing)
    reasons = dict.fromkeys(memo.MEMO_COUNTERS, 0)
    trackers = 0
    while found["learn"].events < stacks:
        with control.tracking(timed=True) as store:
            read_all(paths)
            found = together(found, timings.read(store))
            for name, value in counters(store).items():
                reasons[name] += value
        trackers += 1
    print(f"\n{found['learn'].events:,} stacks learned by {trackers} new trackers, from"
          f" {len(paths):,} files:\n")
    print("\n".join(table(found)))
    refused = {name: reasons[name] for name in memo.REASONS if reasons[name]}
    print("\nNot remembered: " + (", ".join(f"{name} {n:,}" for name, n in refused.items())
                                  or "none") + ".")


def main() -> None:
    need_tracking()
    given = [int(text) for text in sys.argv[1:]] + [60, 10_000][len(sys.argv) - 1 :]
    if given[0]:
        with control.tracking(timed=True) as store:
            mixed_load(given[0])
            found = timings.read(store)
        print("Mixed load:\n")
        print("\n".join(table(found)))
    if given[1]:
        learning(given[1])


if __name__ == "__main__":
    main()
