"""Do accounts of objects close against the kernel's own? What is planted in large caches, by
/proc/slabinfo and by ``on --objects 1``.

    slab_account.py [SECONDS]

Counts at rest, after objects of several kinds were allocated, and after they were freed again and
SECONDS (20) went by for what is freed later. A line for each cache that changed by 2,000 or more:
by how many objects both changed, and how far they differ; and every large cache of which more
objects are known than there are. Needs root.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import need_tracking
from pageowner.kernel.slabs import parse_slabinfo
from pageowner.model.tracking import Options
from pageowner.tracker import control
from pageowner.tracker.read.capture_objects import capture_objects

CHANGED, LARGE, REST = 2000, 5000, 20


def counts() -> tuple[Counter[str], Counter[str]]:
    """Objects by cache: in use by slabinfo, and known; slabinfo before and after, and the mean."""
    before = {cache.name: cache.active for cache in _slabinfo()}
    snapshot = capture_objects()
    after = {cache.name: cache.active for cache in _slabinfo()}
    known = Counter(snapshot.table["cache"].to_pylist())
    return Counter({name: (before[name] + after.get(name, 0)) // 2 for name in before}), known


def _slabinfo() -> list:
    return parse_slabinfo(Path("/proc/slabinfo").read_text())


def planted(place: str) -> list[object]:
    """Eventfds, socket pairs, pipes and files in memory; as many as a process may have open."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept: list[object] = []
    each = min(most, 20000) // 8
    for _ in range(each):
        kept += [os.eventfd(0), os.pipe(), socket.socketpair()]
    for number in range(4 * each):
        Path(place, str(number)).touch()
    return kept


def shown(what: str, before: tuple[Counter[str], Counter[str]],
          now: tuple[Counter[str], Counter[str]]) -> None:
    total = [0, 0]
    for name in sorted(now[0], key=lambda name: -abs(now[0][name] - before[0][name])):
        there, known = (side[name] - had[name] for side, had in zip(now, before, strict=True))
        if abs(there) >= CHANGED:
            total = [total[0] + there, total[1] + known]
            print(f"  {what}: {name:24} slabinfo {there:+8,} known {known:+8,}"
                  f" ({100 * (known - there) / abs(there):+.2f} %)")
    if total[0]:
        print(f"  {what}: all of these {total[0]:+,} and {total[1]:+,}"
              f" ({100 * (total[1] - total[0]) / abs(total[0]):+.2f} %)")


def main() -> None:
    rest = float(sys.argv[1]) if len(sys.argv) > 1 else REST
    need_tracking()
    status = control.on(Options(objects=1))
    try:
        for name, state in status.facts["object_hooks"].items():
            if state != "attached":
                print(f"{name}: {state}")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
            time.sleep(5)
            start = counts()
            kept = planted(place)
            time.sleep(3)
            full = counts()
            shown("allocated", start, full)
        for files in kept:
            for file in files if isinstance(files, tuple) else (files,):
                file.close() if isinstance(file, socket.socket) else os.close(file)
        time.sleep(rest)
        empty = counts()
        shown("freed", full, empty)
        for name, number in empty[1].items():
            there = empty[0].get(name)
            if there is not None and number >= LARGE and number > there:
                print(f"  {name}: {number:,} known, {there:,} there"
                      f" ({100 * (number - there) / there:+.2f} %)")
        counters = capture_objects().meta.counters
        print({name: number for name, number in counters.items() if number and name in (
            "objects_overwritten", "objects_stale", "objects_full", "objects_busy",
            "objects_missed", "objects_bulk_missed", "objects_in_motion")})
    finally:
        control.off()


if __name__ == "__main__":
    main()
