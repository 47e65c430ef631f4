"""What a page's stack costs: the fault loop with nothing, with plain unwinding, with the memo, and
with a bpftrace one-liner that keeps the kernel stack of every page; then what the memo knows of a
mixed load.

    attribution.py [ROUNDS] [SECONDS] [HITS]

Each of ROUNDS (7) measures each way beside a loop with nothing attached, in pairs; medians of the
differences are printed, with their ratios. Then the mixed load runs for SECONDS (60): how many
stacks the memo recognised, and why not the rest. At last it runs, with every recognised stack
unwound too, until HITS (10 million) of them were compared. Needs root, cc and bpftrace.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, folder, may_track, median
from fault import measure, with_bpftrace, with_tracker
from mixed_load import rounds as mixed_load
from pageowner.tracker import lifecycle, memo
from pageowner.tracker.lifecycle import Options
from pageowner.tracker.maps import Store

MEMO, PLAIN, PEER = "memo", "plain unwinding", "bpftrace, kstack by pfn"


def main() -> None:
    if not may_track():
        return
    arguments = [int(text) for text in sys.argv[1:]] + [7, 60, 10_000_000][len(sys.argv) - 1 :]
    if arguments[0]:
        price(arguments[0])
    if arguments[1]:
        hit_rate(arguments[1])
    if arguments[2]:
        checked(arguments[2])


def price(times: int) -> None:
    ways = {
        MEMO: lambda program: with_tracker(program, Options()),
        PLAIN: lambda program: with_tracker(program, Options(memo=False)),
        "memo, 64 frames": lambda program: with_tracker(program, Options(depth=64)),
    }
    if shutil.which("bpftrace"):
        ways[PEER] = with_bpftrace
    nothing: list[float] = []
    added: dict[str, list[float]] = {name: [] for name in ways}
    with folder() as place:
        program = str(Path(place, "fault"))
        subprocess.run(["cc", "-O2", "-o", program, ROOT / "benchmarks/fault.c"], check=True)
        measure(program)
        for _ in range(times):
            for name, way in ways.items():
                time.sleep(0.2)
                before = measure(program)
                nothing.append(before)
                added[name].append(way(program) - before)
    base, ours = median(nothing), median(added[MEMO])
    print(f"| | added ns a page (alloc and free) | of {base:.0f} ns with nothing | to memo |")
    print("| --- | --- | --- | --- |")
    for name, values in added.items():
        cost = median(values)
        print(f"| {name} | {cost:.0f} | +{100 * cost / base:.0f} % | {cost / ours:.1f} : 1 |")


def counters(store: Store) -> dict[str, int]:
    return memo.read_counters(store.bpf, store.fd("memo_states"))


def hit_rate(seconds: float) -> None:
    with lifecycle.tracking(Options()) as store:
        before = counters(store)
        mixed_load(seconds)
        now = {name: value - before[name] for name, value in counters(store).items()}
    stacks = now["hits"] + now["misses"]
    print(f"\nMixed load: {stacks:,} stacks, {100 * now['hits'] / stacks:.2f} % recognised.")
    rest = {name: now[name] for name in memo.REASONS}
    rest["new, or replaced by others"] = now["misses"] - sum(rest.values())
    for name, value in sorted(rest.items(), key=lambda item: -item[1]):
        print(f"- {name}: {value:,} ({100 * value / stacks:.2f} %)")
    print(f"- chains replaced: {now['replaced']:,}; checked {now['checks']:,},"
          f" different {now['differences']:,}")


def checked(hits: int) -> None:
    with lifecycle.tracking(Options(memo_check=1)) as store:
        while (now := counters(store))["checks"] < hits and not now["differences"]:
            mixed_load(30)
    print(f"\nEvery recognised stack unwound too: {now['checks']:,} compared,"
          f" {now['differences']:,} different.")


if __name__ == "__main__":
    main()
