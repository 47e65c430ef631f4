"""The tracker under load for half an hour: see scripts/soak.

Prints a row a minute; exit status 1 if an account did not close, something was dropped, more pages
were stale than frees were lost, or the kernel logged a warning. The columns on lost frees: nested,
the events of interrupts that the second programs took; missed, those that none took; unseen, frees
that perf was told of and no program; over, allocations over a record whose free was lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import Frees, KernelLog, known_frames, memory_cgroup, pages_by_state

from pageowner.errors import PageownerError
from pageowner.model.snapshot import STATES, Snapshot
from pageowner.sources.source import read
from pageowner.tracker import control

_MIB = 1 << 20
_PRESSURE = 64 * _MIB
_DROPS = ("stacks_full", "stacks_failed", "tasks_full", "out_of_range", "bulk_missed",
          "extfrag_full", "contended")
_HEAD = ("min", "owned", "early", "free", "reserved", "untracked", "sum ok", "rows ok", "stale",
         "split", "nested", "missed", "unseen", "over", "drops", "s", "reclaimed", "load",
         "warnings")


def reclaimed(cgroup: Path | None) -> int | None:
    """How often the cgroup met its limit (version 1: failcnt; 2: max in memory.events)."""
    if cgroup is None:
        return None
    failures = cgroup / "memory.failcnt"
    if failures.exists():
        return int(failures.read_text())
    events = dict(line.split() for line in (cgroup / "memory.events").read_text().splitlines())
    return int(events["max"])


def capture(path: Path) -> tuple[Snapshot, float]:
    """As a user does it: `pageowner save`, and read back."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "pageowner", "save", path], check=True,
                   stderr=subprocess.DEVNULL)
    return read(path), time.monotonic() - began


def run(minutes: float, every: float) -> int:
    log = KernelLog()
    was_on = control.is_on()
    if not was_on:
        control.on()
    failures: list[str] = []
    known = known_frames()
    frees = Frees()
    try:
        with tempfile.TemporaryDirectory(prefix="pageowner-soak-") as folder, \
                memory_cgroup("soak", _PRESSURE) as cgroup:
            if cgroup is None:
                print("no memory cgroup can be made here: no step of the load reclaims")
            load = subprocess.Popen(
                ["nice", "-n", "10", sys.executable, Path(__file__).with_name("load.py"), folder,
                 str(cgroup or "")], start_new_session=True)
            try:
                print(" ".join(f"{name:>9}" for name in _HEAD), flush=True)
                end = time.monotonic() + minutes * 60
                minute = 0
                while time.monotonic() < end:
                    time.sleep(min(every, max(end - time.monotonic(), 0)))
                    minute += 1
                    failures += _check(minute, Path(folder), cgroup, known, log, frees)
                    if load.poll() is not None:
                        failures.append(f"the load ended with status {load.returncode}")
                        break
            finally:
                if load.poll() is None:
                    os.killpg(load.pid, signal.SIGKILL)
                load.wait()
    finally:
        if not was_on:
            control.off()
        log.close()
    for failure in failures:
        print(failure)
    print(f"{'FAILED' if failures else 'passed'}: {minute} captures in {minutes:g} minutes")
    return int(bool(failures))


def _check(minute: int, folder: Path, cgroup: Path | None, known: int, log: KernelLog,
           frees: Frees) -> list[str]:
    frees.capture_begins()
    snapshot, took = capture(folder / "now.parquet")
    frames, counters = snapshot.meta.frames, snapshot.meta.counters
    most_stale = frees.most_stale(counters["stale_pages"])
    closes = sum(frames.values()) == known
    agree = pages_by_state(snapshot) == {name: frames[name] for name in STATES}
    drops = {name: counters[name] for name in _DROPS if counters.get(name)}
    warnings = log.warnings()
    row = [minute, frames["owned"], frames["early"], frames["free"], frames["reserved"],
           frames["untracked"], "yes" if closes else "NO", "yes" if agree else "NO",
           counters["stale_pages"], counters["split_blocks"],
           counters["nested_allocs"] + counters["nested_frees"], counters["missed_in_interrupts"],
           frees.unseen(), counters["overwritten"], sum(drops.values()), f"{took:.1f}",
           reclaimed(cgroup), f"{os.getloadavg()[0]:.1f}", len(warnings)]
    print(" ".join(f"{cell!s:>9}" for cell in row), flush=True)
    failures = [f"minute {minute}: the kernel's log: {warning}" for warning in warnings]
    if not closes:
        failures.append(f"minute {minute}: {sum(frames.values())} frames of {known}: {frames}")
    if not agree:
        failures.append(f"minute {minute}: the rows do not sum up to the frames")
    if drops:
        failures.append(f"minute {minute}: dropped {drops}")
    if counters["stale_pages"] > most_stale:
        failures.append(f"minute {minute}: {counters['stale_pages']} stale pages, not"
                        f" {most_stale} at most")
    return failures


def main() -> None:
    try:
        minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    except ValueError:
        raise SystemExit("usage: soak [MINUTES]") from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("soak: terminated"))
    try:
        raise SystemExit(run(minutes, min(60.0, minutes * 60 / 2)))
    except PageownerError as error:
        raise SystemExit(f"soak: {error}") from error


if __name__ == "__main__":
    main()
