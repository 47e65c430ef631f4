"""A capture of this whole machine to a file, beside dd of /proc/kpageflags and /proc/kpagecount.

    capture.py [SECONDS]

As root. Uses the tracker that is on, or turns one on for the while. Measured twice: at once, when
most pages may be early, and after SECONDS (20) of the mixed load, while a process holds a quarter
of the memory that was free. The targets: at most 4 times the time of the two dd, under 100 bytes
of memory a page frame, under 1/100 of the size of ``pageowner dump``.

The dump has a record of each early page, as the kernel's, of about 130 bytes; in the file such a
page takes about one. Owned pages alone are measured beside all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mixed_load
from common import BIN, Run, folder, median, run, skip
from pageowner.errors import PageownerError
from pageowner.sources.source import read
from pageowner.tracker import control

ROUNDS = 5

HOLD = """
import mmap, os, sys
memory = mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(memory), mmap.PAGESIZE):
    memory[at] = 1
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def _loaded(seconds: float) -> Iterator[None]:
    """The machine after it was busy for so long, a quarter of its free memory taken meanwhile."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    with subprocess.Popen([sys.executable, "-c", HOLD, str(free)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        mixed_load.rounds(seconds)
        yield
        holder.communicate()


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
    """One process to its end, its memory not watched: that takes time off a busy machine."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return Run(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, 0)


def main() -> None:
    pageowner = str(BIN / "pageowner")
    try:
        was_on = control.is_on() and control.status().on
        if not was_on:
            control.on()
    except PageownerError as error:
        skip(str(error))
    try:
        seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20
        with folder() as place:
            path = str(Path(place) / "now.parquet")
            print("As it is:" if was_on else "Right after on:")
            _measure(pageowner, path)
            with _loaded(seconds):
                print(f"\nAfter {seconds:g} s of mixed load, a quarter of free memory taken:")
                _measure(pageowner, path)
    finally:
        if not was_on:
            control.off()


def _measure(pageowner: str, path: str) -> None:
    read_all = "; ".join(f"dd if=/proc/{name} of=/dev/null bs=1M"
                         for name in ("kpageflags", "kpagecount"))
    mine, other = [], []
    # not counted but for its memory
    peak = run([pageowner, "save", path]).peak
    _run(["sh", "-c", read_all])
    for _ in range(ROUNDS):
        mine.append(_run([pageowner, "save", path]))
        other.append(_run(["sh", "-c", read_all]))
    snapshot = read(path)
    frames = sum(snapshot.meta.frames.values())
    snapshot.select(state=("owned",)).save(owned := path + ".owned")
    text, file = _dumped(pageowner, path), os.path.getsize(path)
    text_part, part = _dumped(pageowner, owned), os.path.getsize(owned)
    times = [a.wall / b.wall for a, b in zip(mine, other, strict=True)]
    cpu = [a.cpu / b.cpu for a, b in zip(mine, other, strict=True)]
    early = 100 * snapshot.meta.frames["early"] / frames
    print(f"{frames:,} page frames ({early:.0f} % early), {snapshot.table.num_rows:,} rows;"
          f" medians of {ROUNDS} pairs\n")
    print("| | ours | dd of both files | ratio |")
    print("| --- | --- | --- | --- |")
    print(f"| seconds | {median([r.wall for r in mine]):.2f} |"
          f" {median([r.wall for r in other]):.2f} | {median(times):.2f} |")
    print(f"| CPU seconds | {median([r.cpu for r in mine]):.2f} |"
          f" {median([r.cpu for r in other]):.2f} | {median(cpu):.2f} |")
    print(f"\npeak memory {peak / 2**20:.0f} MiB in one more run: {peak / frames:.1f} bytes a page"
          " frame")
    print(f"file {file / 2**20:.2f} MiB of a dump of {text / 2**20:.1f} MiB: 1/{text / file:.0f};"
          f" owned pages alone {part / 2**20:.2f} of {text_part / 2**20:.1f} MiB:"
          f" 1/{text_part / part:.0f}")


if __name__ == "__main__":
    main()
