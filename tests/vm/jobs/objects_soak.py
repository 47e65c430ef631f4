"""objects_soak.py [MINUTES]: all objects of slabs under load, beside the kernel's own count.

With slub_debug=U no CPU keeps free objects for itself, so that /proc/slabinfo counts exactly those
in use (mm/slub.c, get_slabinfo). What it has more than the tracker knows are objects from before
`on`: some of these are freed under load, none are added. Every few minutes the load is stopped, and
both are counted at rest.

Exit status 0 if no cache has more objects than the kernel says; if what is older than tracking
stays the same from the first look to the last, within 1 % of all objects, and grows in no cache of
1,000 objects and more by more than 1 %; and if nothing was lost, and the second copies of the
programs took no more than a small part of the events, which is judged at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from objects import keep_some
from pageowner.kernel.slabs import parse_slabinfo
from pageowner.model.object_hooks import OBJECT_HOOKS
from pageowner.model.tracking import Options
from pageowner.tracker import control
from pageowner.tracker.read.capture_objects import capture_objects

LOAD = Path(__file__).resolve().parents[2] / "live" / "load.py"
MINUTES = 30.0
EVERY = 150
REST = 20
"""Seconds for what is freed later (RCU, work queues) to be freed."""
LARGE = 1000
FEW = 20
ALLOWED = 0.01
SECOND = 0.01
"""Of the events of a kind so many at most come while its program is at work."""
LOST = ("objects_full", "objects_busy", "objects_bulk_missed", "objects_missed",
        "objects_overwritten", "object_caches_full")


def look() -> tuple[Counter[str], Counter[str], dict[str, int]]:
    """Objects by cache, as the kernel counts them and as they are known; and counters."""
    before = {cache.name: cache.active for cache in _slabinfo()}
    snapshot = capture_objects()
    after = {cache.name: cache.active for cache in _slabinfo()}
    there = Counter({name: (number + after[name]) // 2 for name, number in before.items()
                     if name in after})
    known = Counter(name for name in snapshot.table["cache"].to_pylist() if name in there)
    return there, known, snapshot.meta.counters


def _slabinfo() -> list:
    return parse_slabinfo(Path("/proc/slabinfo").read_text())


def differences(first: tuple[Counter[str], Counter[str]], now: tuple[Counter[str], Counter[str]],
                ) -> list[str]:
    """What does not close; prints a line for all objects together."""
    failures = []
    older = [{name: there[name] - known[name] for name in there} for there, known in (first, now)]
    there, known = now
    allowed = {name: max(number, LARGE) * ALLOWED for name, number in there.items()}
    for name, number in older[1].items():
        if number < -allowed[name]:
            failures.append(f"{name}: {known[name]:,} known, {there[name]:,} there")
        elif number - older[0].get(name, 0) > allowed[name]:
            failures.append(f"{name}: {number:,} of {there[name]:,} not known, and"
                            f" {older[0].get(name, 0):,} at first")
    total = [sum(side.values()) for side in older]
    share = (total[1] - total[0]) / sum(there.values())
    print(f"  {sum(there.values()):>10,} objects, {sum(known.values()):,} known, {total[1]:,} older"
          f" than tracking ({100 * share:+.3f} % of all since the first look)", flush=True)
    if abs(share) > ALLOWED:
        failures.append(f"what is older changed by {100 * share:+.2f} % of all objects")
    return failures


def soak(minutes: float, folder: str) -> list[str]:
    failures: list[str] = []
    load = subprocess.Popen([sys.executable, LOAD, folder, ""], start_new_session=True)
    first: tuple[Counter[str], Counter[str]] | None = None
    end = time.monotonic() + minutes * 60
    try:
        while time.monotonic() < end and not failures:
            time.sleep(EVERY)
            os.killpg(load.pid, signal.SIGSTOP)
            time.sleep(REST)
            there, known, counters = look()
            first = first or (there, known)
            failures += differences(first, (there, known))
            if load.poll() is not None:
                failures.append(f"the load ended with status {load.returncode}")
                break
            os.killpg(load.pid, signal.SIGCONT)
    finally:
        if load.poll() is None:
            os.killpg(load.pid, signal.SIGKILL)
        load.wait()
    seen = sum(number for name, number in counters.items() if name in (
        "objects_kmalloc", "objects_cache", "objects_bulk"))
    print(f"{seen:,} objects were seen allocated")
    failures += [f"{name}: {counters[name]:,}" for name in LOST if counters.get(name)]
    for hook in OBJECT_HOOKS:
        taken, of = counters[hook.seen_by_second], counters[hook.seen_by]
        if taken > FEW + SECOND * of:
            failures.append(f"{hook.seen_by_second}: {taken:,} of {of:,}")
    print({name: number for name, number in counters.items() if name.startswith("object")})
    return failures


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    status = control.on(Options(objects=1))
    print("hooks:", ", ".join(f"{name} {state}" for name, state
                              in status.facts["object_hooks"].items()), flush=True)
    kept = keep_some()
    try:
        with tempfile.TemporaryDirectory() as folder:
            failures = soak(minutes, folder)
    finally:
        control.off()
    del kept
    for failure in failures:
        print("FAILED:", failure)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
