"""Is the planted leak named by its object? The programs of leaking.py beneath the noise of
leaks.py, with ``on --objects``, asked of pages and of objects at once.

    python benchmarks/object_leaks.py [--rounds N] [--for S] [--share N] [--results FILE] [WHAT…]
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import leaking
from common import may_track
from leaks import noise
from pageowner.analysis.leaks import Watch, rows_of, settling_ns
from pageowner.analysis.live_rows import rows_of_looks
from pageowner.model.tracking import Options
from pageowner.tracker import control
from pageowner.tracker.read.capture_objects import capture_objects
from pageowner.tracker.read.live import LiveReader
from pageowner.tracker.read.maps import open_store


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=[*leaking.PROGRAMS, "none"])
    parser.add_argument("--for", dest="seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--rate", type=float, default=1)
    parser.add_argument("--warm", type=float, default=20)
    parser.add_argument("--share", type=int, default=64)
    parser.add_argument("--keep", type=Path)
    a = parser.parse_args()
    control.on(Options(objects=a.share))
    try:
        with tempfile.TemporaryDirectory() as folder, noise(folder):
            time.sleep(a.warm)
            for what in a.what:
                program = leaking.start(what, a.rate * leaking.MIB) if what != "none" else None
                time.sleep(2)
                with open_store() as store:
                    look = rows_of_looks(LiveReader(store).blocks, ["stack"])
                    settle = settling_ns(int(a.seconds * 1e9))
                    pages, objects = Watch("stack", settle, store.facts["since_ns"]), Watch("stack", settle, store.facts["since_ns"])
                    began, cpu = time.monotonic(), [0., 0.]
                    for step in range(round(a.seconds / a.every) + 1):
                        time.sleep(max(began + step * a.every - time.monotonic(), 0))
                        t = time.process_time()
                        pages.add(*look())
                        t1 = time.process_time()
                        snap = capture_objects(store)
                        objects.add(snap.meta.clock_ns, rows_of(snap, ["stack"]), {})
                        cpu[0] += t1 - t
                        cpu[1] += time.process_time() - t1
                if program:
                    assert program.poll() is None, what
                    program.communicate()
                with open(a.keep / f"{what}-{time.time():.0f}.pickle", "wb") as f:
                    pickle.dump((what, pages, objects, snap.meta.counters), f)
                print(what, cpu, snap.table.num_rows, flush=True)
    finally:
        control.off()


main()
