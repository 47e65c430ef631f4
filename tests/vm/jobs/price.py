"""What tracking adds to a page fault in this guest: nothing, recognising stacks, unwinding each.

    price.py [ROUNDS] [TURNS]

In turns, so that all see the same machine; writes price.json, in ns per page (median of all
rounds; the guest's clock counts an instruction as one), and the bytes a page frame that the tracker
takes. Booted with page_owner=on, what is measured with nothing of ours has the kernel's own page
owner in it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from fault_price import one_round

WAYS: dict[str, tuple[str, ...] | None] = {
    "nothing": None, "tracker": ("on",), "tracker, plain": ("on", "--plain")}


def pageowner(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pageowner", *words], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    rounds, turns = (int(word) for word in [*sys.argv[1:], "12", "4"][:2])
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    memory = 0.0
    for turn in range(turns + 1):
        for name, words in WAYS.items():
            if words:
                pageowner(*words)
            measured = [one_round() for _ in range(rounds)]
            if turn:  # the first turn warms up
                times[name] += measured
            if words:
                status = json.loads(pageowner("status", "--json"))
                memory = status["memory_bytes"] / status["frames"]
                memo = {one: number for one, number in status["memo_counters"].items() if number}
                print(f"turn {turn}, {name}: {min(measured):.0f} to {max(measured):.0f} ns a page,"
                      f" {statistics.median(measured):.0f} in the median; memo {memo}", flush=True)
                pageowner("off")
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["nothing"]
    own = "page_owner=on" in Path("/proc/cmdline").read_text()
    for name, value in medians.items():
        print(f"{name:<16}{value:>8.0f} ns a page{value - base:>+8.0f}")
    Path("price.json").write_text(json.dumps(
        {"kernel": os.uname().release, "page_owner": own, "ns": medians,
         "bytes_a_frame": memory}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
