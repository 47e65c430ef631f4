"""A capture of this whole machine to a file, beside dd of /proc/kpageflags and /proc/kpagecount.

As root. Uses the tracker that is on, or turns one on for the while. The targets: at most 4 times
the time of the two dd, under 100 bytes of memory a page frame, under 1/100 of the size of
``pageowner dump``.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from common import BIN, Run, folder, median
from pageowner.errors import PageownerError
from pageowner.source import read
from pageowner.tracker import lifecycle

ROUNDS = 5


def _dumped(pageowner: str, path: str) -> int:
    """Bytes of the whole dump of a snapshot, which goes nowhere."""
    with subprocess.Popen([pageowner, "dump", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        size = 0
        while part := process.stdout.read(1 << 20):
            size += len(part)
    if process.returncode:
        raise SystemExit(f"pageowner dump: exit status {process.returncode}")
    return size


def _run(command: list[str]) -> Run:
    """One process to its end, not watched meanwhile: that takes time off a busy machine."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return Run(time.perf_counter() - started, usage.ru_utime + usage.ru_stime,
               usage.ru_maxrss * 1024)


def main() -> None:
    pageowner = str(BIN / "pageowner")
    try:
        was_on = lifecycle.is_on() and lifecycle.status().on
        if not was_on:
            lifecycle.on()
    except PageownerError as error:
        raise SystemExit(f"capture: {error}") from error
    try:
        with folder() as place:
            _measure(pageowner, str(Path(place) / "now.parquet"))
    finally:
        if not was_on:
            lifecycle.off()


def _measure(pageowner: str, path: str) -> None:
    read_all = "; ".join(f"dd if=/proc/{name} of=/dev/null bs=1M"
                         for name in ("kpageflags", "kpagecount"))
    mine, other = [], []
    for number in range(ROUNDS + 1):
        ours, theirs = _run([pageowner, "save", path]), _run(["sh", "-c", read_all])
        if number:  # the first is not counted
            mine.append(ours)
            other.append(theirs)
    snapshot = read(path)
    frames = sum(snapshot.meta.frames.values())
    # The kernel's own text has no place for pages without an owner: compare what both hold.
    snapshot.select(state=("owned",)).save(owned := path + ".owned")
    text, file, part = _dumped(pageowner, path), os.path.getsize(path), os.path.getsize(owned)
    times = [a.wall / b.wall for a, b in zip(mine, other, strict=True)]
    cpu = [a.cpu / b.cpu for a, b in zip(mine, other, strict=True)]
    peak = median([run.peak for run in mine])
    print(f"{frames:,} page frames, {snapshot.table.num_rows:,} rows; medians of {ROUNDS} pairs")
    print("| | ours | dd of both files | ratio |")
    print("| --- | --- | --- | --- |")
    print(f"| seconds | {median([r.wall for r in mine]):.2f} |"
          f" {median([r.wall for r in other]):.2f} | {median(times):.2f} |")
    print(f"| CPU seconds | {median([r.cpu for r in mine]):.2f} |"
          f" {median([r.cpu for r in other]):.2f} | {median(cpu):.2f} |")
    print(f"\npeak memory {peak / 2**20:.0f} MiB: {peak / frames:.1f} bytes a page frame")
    print(f"file {file / 2**20:.2f} MiB, of owned pages alone {part / 2**20:.2f} MiB,"
          f" dump {text / 2**20:.0f} MiB: 1/{text / file:.0f} and 1/{text / part:.0f}")


if __name__ == "__main__":
    main()
