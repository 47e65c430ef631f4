"""What a capture and its analyses cost as memory grows: made-up machines, and what larger ones
would cost by what a frame, a row and the start cost.

    growth.py [GIB,… | kept]

1, 24, 256 and 1024 GiB, if not said otherwise, each with few and with many rows; for 1024 GiB with
few rows 2.2 GB in /dev/shm and 4 GB of memory have to be free, and it is passed over where they are
not. All is real but the machine (`made_up`): the kernel's own share, telling the flags, is measured
on this machine's /proc/kpageflags and added. CPU seconds, each in a process of its own. Needs root,
for the kernel's symbols. At the end (``kept``: that alone) what is kept while tracking is on.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import ROOT
from made_up import MadeUp
from pageowner.tracker.load import memo
from pageowner.tracker.load.loading import sizes_for
from pageowner.tracker.read.maps import RECORD, TASK, stack_type

SIZES = (1, 24, 256, 1024)
COMPUTED = (1024, 6144)
FEW, MANY = {"small": 0.02, "large": 0.5, "early": 0.01}, {
    "small": 0.25, "large": 0.05, "early": 0.03}
"""A machine that has most of its memory in huge pages, and one that has not."""

STEPS = ("capture", "save", "report --by comm", "frag")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_ROWS = 20_000_000


def measure(gibibytes: int, shares: dict[str, float]) -> dict[str, float]:
    """CPU seconds of each step, the peak of memory in MiB after all, frames and rows."""
    from pageowner.analysis.fragmentation import fragmentation
    from pageowner.analysis.owners import owners
    from pageowner.tracker.read import capture, extfrag

    extfrag.events = lambda *_: []  # no such events: the store has no kernel behind it
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        frames = (gibibytes << 30) // _PAGE
        machine = MadeUp(Path(place), frames, **shares)
        found: dict[str, float] = {}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        snapshot = capture.capture(machine, machine.proc)
        for name, step in (("capture", lambda: None),
                           ("save", lambda: snapshot.save(f"{place}/s.parquet")),
                           ("report --by comm", lambda: owners(snapshot, "comm")),
                           ("frag", lambda: fragmentation(snapshot, "comm"))):
            step()
            now = time.process_time()
            found[name], began = now - began, now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {**found, "MiB": (peak - before) / 1024, "frames": frames,
                "rows": snapshot.table.num_rows}


def kernel_ns() -> float:
    """ns of the kernel's to tell the flags of a page frame, the best of some readings."""
    best = 1e9
    for _ in range(5):
        began, octets = time.process_time(), 0
        with open("/proc/kpageflags", "rb", buffering=0) as file:
            while part := file.read(1 << 20):
                octets += len(part)
        best = min(best, (time.process_time() - began) * 1e9 / (octets / 8))
    return best


def kept(gibibytes: int, cpus: int) -> tuple[float, float, float, float]:
    """MiB of the maps while tracking is on: records with room for added memory, tasks, stacks,
    what each CPU knows of stacks; by the code that sizes them."""
    frames, depth = (gibibytes << 30) // _PAGE, 16
    sizes = sizes_for([(0, frames)])
    records = (-(-frames >> sizes.span_shift) + sizes.spares) << sizes.span_shift
    of = (records * RECORD.itemsize, sizes.tasks * TASK.itemsize,
          sizes.stacks * stack_type(depth).itemsize,
          cpus * memo.sets_for(depth, cpus) * memo.set_bytes(depth))
    return tuple(one / 2**20 for one in of)  # type: ignore[return-value]


def print_kept() -> None:
    print("Kept while tracking is on, MiB, as the maps are sized:\n")
    print("| memory | CPUs | records | tasks | stacks | memo | bytes a page frame |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size, cpus in ((1, 2), (24, 2), (24, 64), (24, 512), (1024, 64), (6144, 512)):
        of = kept(size, cpus)
        each = sum(of) * 2**20 / ((size << 30) // _PAGE)
        print(f"| {size:,} GiB | {cpus} | " + " | ".join(f"{one:,.1f}" for one in of)
              + f" | {each:.1f} |")


def main() -> None:
    if sys.argv[1:] == ["kept"]:
        print_kept()
        return
    if len(sys.argv) > 2:
        print(json.dumps(measure(int(sys.argv[1]), json.loads(sys.argv[2]))))
        return
    sizes = [int(one) for one in sys.argv[1].split(",")] if len(sys.argv) > 1 else SIZES
    told = kernel_ns()
    runs = []
    print(f"the kernel tells the flags of a frame in {told:.0f} ns of CPU, which is in `capture`\n")
    print("| memory | rows | " + " | ".join(f"{one}, s" for one in STEPS) + " | more memory, MiB |")
    print("| --- " * (len(STEPS) + 3) + "|")
    for size in sizes:
        for shares in (FEW, MANY):
            frames = (size << 30) // _PAGE
            rows = frames * (shares["small"] + shares["early"])
            free = shutil.disk_usage("/dev/shm").free
            if rows > _MOST_ROWS or frames * 8 > free // 2:
                continue
            done = subprocess.run([sys.executable, __file__, str(size), json.dumps(shares)],
                                  check=True, capture_output=True, text=True, cwd=ROOT)
            found = json.loads(done.stdout)
            found["capture"] += found["frames"] * told / 1e9
            runs.append(found)
            _print(f"{size:,} GiB", found)
    for size in COMPUTED:
        for shares in (FEW, MANY):
            frames = (size << 30) // _PAGE
            rows = frames * (shares["small"] + shares["early"] + shares["large"] / 512)
            if not any(run["frames"] == frames and run["rows"] > rows / 2 for run in runs):
                _print(f"{size:,} GiB, computed", _computed(runs, frames, rows))
    print("\nBy least squares of the ratio: a start, ns a frame and ns a row (MiB: bytes):\n")
    print("| | start | a frame | a row |")
    print("| --- | --- | --- | --- |")
    for name in (*STEPS, "MiB"):
        start, frame, row = _fit(runs, name)
        unit = 1e9 if name != "MiB" else 2**20
        print(f"| {name} | {start:.2f} | {frame * unit:.1f} | {row * unit:.0f} |")
    print()
    print_kept()


def _print(title: str, found: dict[str, float]) -> None:
    print(f"| {title} | {found['rows']:,.0f} | "
          + " | ".join(f"{found[one]:.2f}" for one in STEPS)
          + f" | {found['MiB']:,.0f} |", flush=True)


def _fit(runs: list[dict[str, float]], name: str) -> list[float]:
    """What the start, a frame and a row cost, none of them less than nothing."""
    values = np.array([run[name] for run in runs])
    terms = np.array([[1.0, run["frames"], run["rows"]] for run in runs])
    weights = 1 / np.maximum(values, values.max() / 1000)
    left = [0, 1, 2]
    while True:
        found = np.zeros(3)
        found[left] = np.linalg.lstsq(terms[:, left] * weights[:, None], values * weights,
                                      rcond=None)[0]
        if (found >= 0).all():
            return [float(one) for one in found]
        left.remove(int(found.argmin()))


def _computed(runs: list[dict[str, float]], frames: float, rows: float) -> dict[str, float]:
    found = {name: sum(a * b for a, b in zip(_fit(runs, name), (1, frames, rows), strict=True))
             for name in (*STEPS, "MiB")}
    return {**found, "rows": rows}


if __name__ == "__main__":
    main()
