"""What a fleet costs: bytes of a capture, CPU of a push, time and memory of questions as it grows.

    fleet.py FOLDER [MACHINES,…]

Made-up fleets (`fleet_made_up`) of 20, 100, 500 and 2,000 machines, 7 days, a capture an hour; all
fit into 1.2 GB. Each question is a command of its own; the seconds are the clock's, and CPU's in
brackets.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import pageowner
from common import BIN, DUMP, run
from fleet_made_up import DAYS, write
from pageowner.fleet.capture import Machine, capture_of
from pageowner.fleet.pushing import push
from pageowner.fleet.spool import Spool
from pageowner.fleet.store import Store

QUESTIONS = {"report": ["--since", "2026-11-26T00:00+00:00"],
             "leaks": ["--since", "2026-11-20T00:00+00:00"],
             "diff": ["--since", "2026-11-20T00:00+00:00", "--before", "driver=2.0", "--after",
                      "driver=2.1"]}
PUSHES = 50


def pushes(folder: Path) -> None:
    """One snapshot's owners again and again, as ``--every`` does, and one whole command."""
    snapshot = pageowner.read(DUMP)
    store = Store(str(folder / "pushed"))
    spool = Spool(folder / "spool", store.place, 1 << 30)
    began, sizes = time.process_time(), []
    for number in range(PUSHES):
        machine = Machine(host="h", taken=1_795_132_800 + number * 60)
        capture = capture_of(snapshot, machine, 1 << 16)
        sizes.append(push(capture, store, spool).size)
    cpu = (time.process_time() - began) / PUSHES
    snapshot.save(folder / "snapshot.parquet")
    command = run([str(BIN / "pageowner"), "fleet", "push", str(folder / "pushed"),
                   str(folder / "snapshot.parquet"), "--host", "h", "--taken", "1h", "--spool",
                   str(folder / "spool")])
    print(f"push: {cpu:.3f} s of CPU a capture, {sum(sizes) / PUSHES:,.0f} bytes, of"
          f" {snapshot.table.num_rows:,} allocations; a command of its own {command.cpu:.2f} s\n")


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    sizes = list(map(int, sys.argv[2].split(","))) if len(sys.argv) > 2 else [20, 100, 500, 2000]
    try:
        pushes(folder)
        print("| machines | captures | MB | bytes a capture | "
              + " | ".join(f"{name}, s (CPU), MiB" for name in QUESTIONS) + " |")
        print("| --- " * (len(QUESTIONS) + 4) + "|")
        for machines in sizes:
            store = folder / str(machines)
            planted = write(Store(str(store)), machines, DAYS)
            size = sum(path.stat().st_size for path in store.rglob("*.parquet"))
            cells = []
            for name, more in QUESTIONS.items():
                took = run([str(BIN / "pageowner"), "fleet", name, str(store), *more, "--memory",
                            "3GB"])
                cells.append(f"{took.wall:.1f} ({took.cpu:.1f}), {took.peak / 2**20:,.0f}")
            print(f"| {machines:,} | {planted.captures:,} | {size / 1e6:,.1f} |"
                  f" {size / planted.captures:,.0f} | {' | '.join(cells)} |", flush=True)
            shutil.rmtree(store)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
