"""What the benchmarks share: the real dump unpacked once, interleaved runs, medians, memory."""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
DUMP = ROOT / "tests/data/6.12-fragmented/page_owner.txt.xz"
BIN = ROOT / ".venv/bin"
PEER = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / (
    "pageowner/peers/page_owner_sort")
SKIPPED = 77
"""The exit status of a benchmark that cannot run here; scripts/bench keeps its last result."""


@dataclass
class Run:
    """One run of a command: seconds by the clock, CPU seconds, peak memory in bytes."""

    wall: float
    cpu: float
    peak: int


def unpacked(folder: str, times: int = 1) -> str:
    """The 118 MB dump, ``times`` in a row, as a plain file in ``folder``."""
    path = os.path.join(folder, f"dump-{times}.txt")
    with open(path, "wb") as out:
        for _ in range(times):
            with lzma.open(DUMP) as text:
                shutil.copyfileobj(text, out, 1 << 20)
    return path


def run(command: list[str], stdin: IO[bytes] | None = None) -> Run:
    """Run to the end. Memory is the largest sum over the command and its children, proportional
    where they share (Pss), sampled every 5 ms. (The kernel's ru_maxrss is of no use here: a child
    begins with the peak of the process that started it.)"""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    done.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, peak)


def memory(pid: int) -> int:
    """Bytes in memory of a process and its children, proportional where they share (Pss)."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().split("\n"):
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return total
    return total + sum(memory(int(child)) for child in children)


def cpu(pid: int) -> float:
    """CPU seconds of a process and its children, also of those that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu(int(child)) for child in children)


def pairs(ours: list[str], theirs: list[str], rounds: int) -> tuple[list[Run], list[Run]]:
    """Both commands in turn, so that a noisy moment hits both; one round first, not counted."""
    run(ours)
    run(theirs)
    mine, other = [], []
    for _ in range(rounds):
        mine.append(run(ours))
        other.append(run(theirs))
    return mine, other


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio(mine: list[Run], other: list[Run], what: str = "wall") -> float:
    """How many times faster we are: median of the ratios pair by pair."""
    return median([getattr(b, what) / getattr(a, what) for a, b in zip(mine, other, strict=True)])


def beside_peer(commands: list[list[str]], dump: str, place: str, rounds: int = 5) -> None:
    """Print the table of ``pageowner WORDS`` on the dump beside the kernel's page_owner_sort."""
    print("118 MB dump; medians of", rounds, "pairs with the C page_owner_sort")
    print("| command | ours, s | C, s | times faster | ours, peak MiB | C, peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for words in commands:
        mine, other = pairs([str(BIN / "pageowner"), *words],
                            [str(PEER), dump, f"{place}/sorted.txt"], rounds)
        name = " ".join(["pageowner", *words]).replace(place + "/", "")
        print(f"| `{name}` | {median([r.wall for r in mine]):.2f} |"
              f" {median([r.wall for r in other]):.2f} | {ratio(mine, other):.1f} |"
              f" {median([r.peak for r in mine]) / 2**20:.0f} |"
              f" {median([r.peak for r in other]) / 2**20:.0f} |", flush=True)


def folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pageowner-bench-")


def skip(reason: str) -> NoReturn:
    """End, since this cannot be measured here: exit status `SKIPPED`."""
    print(f"skipped: {reason}", file=sys.stderr)
    raise SystemExit(SKIPPED)


def need_tracking() -> None:
    """Skip the benchmark unless tracking can be turned on here."""
    from pageowner.tracker import control

    if os.geteuid() != 0:
        skip("tracking needs root")
    if control.is_on():
        skip("tracking is on; turn it off first")


def image_of_nothing(place: str) -> bytes:
    """Programs that do nothing (nothing.bpf.c), compiled in a folder."""
    subprocess.run([ROOT / "scripts/build-bpf", Path(place, "nothing.o"),
                    ROOT / "benchmarks/nothing.bpf.c"], check=True)
    return Path(place, "nothing.o").read_bytes()


@contextmanager
def programs_of_nothing(image: bytes, names: tuple[str, ...]) -> Iterator[None]:
    """Those of these names, where the tracker's are."""
    from pageowner.tracker.load.libbpf import libbpf

    with libbpf().open(image, "nothing") as empty:
        empty.load()
        for name in names:
            empty.attach(name)
        yield


def keep_run(results: Path, run: dict[str, Any]) -> None:
    """Add a run to the file of `runs_by_leak`."""
    with results.open("a") as file:
        file.write(json.dumps(run) + "\n")


def runs_by_leak(results: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs that a file has so far, each a line of JSON, by what leaked in them."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in results.read_text().splitlines():
        run = json.loads(line)
        runs[run["what"]].append(run)
    return runs


def leak_options(what: str, programs: list[str], results: str) -> argparse.ArgumentParser:
    """What benchmarks of planted leaks are told: which of the ``programs`` leak, for how long and
    how fast, and the file that keeps the results. ``what``: the benchmark's first line of help."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("what", nargs="*", default=programs)
    parser.add_argument("--for", dest="seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--rate", type=float, default=1, help="MiB/s")
    parser.add_argument("--warm", type=float, default=20, help="seconds of noise before")
    parser.add_argument("--results", type=Path, default=Path(results))
    parser.add_argument("--table", action="store_true", help="print the results and end")
    return parser
