"""A fleet asked on a Spark cluster of one, two and four workers on this machine.

    fleet_spark.py FOLDER [MACHINES [WORKERS,…]]

A worker is an executor with one CPU's thread and 450 MB; with fewer CPUs than workers, they share
them. The first question of a session, which starts its executors, is not counted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT
from fleet_made_up import DAYS, write
from pageowner import Fleet
from pageowner.fleet.store import Store

sys.path.append(str(ROOT / "tests/unit"))

SINCE = "2026-11-20T00:00+00:00"


def ask(store: Path, master: str) -> None:
    """Print a row of seconds."""
    fleet = Fleet(store, engine=master)
    fleet.query("SELECT count(*) FROM captures", since=SINCE)
    cells = []
    for question in (lambda: fleet.report(since=SINCE), lambda: fleet.leaks(since=SINCE),
                     lambda: fleet.diff(["driver=2.0"], ["driver=2.1"], since=SINCE)):
        began = time.monotonic()
        question()
        cells.append(f"{time.monotonic() - began:.1f}")
    print(" | ".join(cells) + " |", flush=True)


def main() -> None:
    if sys.argv[1] == "--ask":
        ask(Path(sys.argv[2]), sys.argv[3])
        return
    import spark_cluster  # of tests/unit

    machines = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    workers = list(map(int, sys.argv[3].split(","))) if len(sys.argv) > 3 else [1, 2, 4]
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    try:
        planted = write(Store(str(folder / "store")), machines, DAYS)
        print(f"{machines} machines, {planted.captures:,} captures\n\n"
              "| workers | report, s | leaks, s | diff, s |\n| --- | --- | --- | --- |")
        for number in workers:
            place = folder / f"spark{number}"
            place.mkdir()
            with spark_cluster.cluster(place, number) as master:
                print(f"| {number} | ", end="", flush=True)
                subprocess.run([sys.executable, __file__, "--ask", folder / "store", master],
                               check=True, stderr=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
