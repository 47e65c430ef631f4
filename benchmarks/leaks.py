"""Is the planted leak found? Programs that leak 1 MiB/s beneath page-cache churn, a build, fork
storms and more, watched for a minute each; and the same noise with no leak.

    python benchmarks/leaks.py [--rounds N] [--for S] [--snapshots] [--results FILE] [WHAT…]

WHAT are programs of leaking.py, or ``none``. Each run is a line of FILE (JSON); the table is of
all lines in it, so that a bench can be run in parts. ``--table`` only prints it. The peers are what
people do by hand: the largest owner, and the one with the largest difference of last and first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import leaking
from common import BIN, ROOT, keep_run, leak_options, need_tracking, runs_by_leak
from pageowner.analysis.leaks import Watch, settling_ns
from pageowner.analysis.live_rows import rows_of_looks
from pageowner.tracker import control
from pageowner.tracker.read.live import LiveReader
from pageowner.tracker.read.maps import open_store

_LOAD = ROOT / "tests/live"
_NOISE = ("forks", "copies", "churn", "build")
_SNAPSHOTS = 6


@contextmanager
def noise(folder: str) -> Iterator[None]:
    """Every kind of load at once, each for ever."""
    processes = []
    for kind in _NOISE:
        place = Path(folder, kind)
        place.mkdir()
        words = [sys.executable, "-c",
                 f"import sys; sys.path.insert(0, {str(_LOAD)!r}); import load; from pathlib import"
                 f" Path\nwhile True: load.{kind}(Path({str(place)!r}))"]
        processes.append(subprocess.Popen(words))
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def watch(seconds: float, every: float, saves: str | None) -> tuple[Watch, list[str], float]:
    """Watched as ``pageowner leaks`` does; snapshots saved meanwhile; CPU seconds of a look."""
    files: list[str] = []
    saving: subprocess.Popen[bytes] | None = None
    with open_store() as store:
        look = rows_of_looks(LiveReader(store).blocks, ["stack"])
        watched = Watch("stack", settling_ns(int(seconds * 1e9)))
        began, steps, cpu = time.monotonic(), round(seconds / every), 0.0
        apart = max(steps // (_SNAPSHOTS - 1), 1)
        for step in range(steps + 1):
            time.sleep(max(began + step * every - time.monotonic(), 0))
            if saves and step % apart == 0:
                files.append(f"{saves}/{step:03}.parquet")
                if saving:
                    saving.wait()
                saving = subprocess.Popen([BIN / "pageowner", "save", files[-1]],
                                          stderr=subprocess.DEVNULL)
            used = time.process_time()
            watched.add(*look())
            cpu += time.process_time() - used
    if saving:
        saving.wait()
    return watched, files, cpu / (steps + 1)


def place(rows: list[dict[str, Any]], pattern: str) -> int | None:
    """Where the first row is that is the leak's, from 1 on."""
    for number, row in enumerate(rows, 1):
        stack = row["stack"]
        stack = "\n".join(stack) if isinstance(stack, list) else stack
        if re.search(pattern, stack or row["note"] or ""):
            return number
    return None


def by_stack(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each stack, as the peers have it: of all programs together."""
    sums: dict[tuple[str | None, str | None], dict[str, Any]] = {}
    for row in rows:
        one = sums.setdefault((row["stack"], row["note"]), row)
        if one is not row:
            one["series"] = [a + b for a, b in zip(one["series"], row["series"], strict=True)]
    return list(sums.values())


def run(what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    program = leaking.start(what, arguments.rate * leaking.MIB) if what != "none" else None
    pattern = leaking.PROGRAMS[what][1] if program else r"^$"
    time.sleep(2)
    try:
        with tempfile.TemporaryDirectory() as folder:
            saves = folder if arguments.snapshots else None
            watched, files, cpu = watch(arguments.seconds, arguments.every, saves)
            if program and program.poll() is not None:
                raise SystemExit(f"{what} ended early")
            saved = None
            if files:
                said = subprocess.run([BIN / "pageowner", "leaks", *files, "--json"],
                                      check=False, capture_output=True, text=True)
                if said.returncode:
                    raise SystemExit(said.stderr)
                saved = [row for row in json.loads(said.stdout)["owners"] if row["kind"] == "leak"]
    finally:
        if program:
            program.communicate()
    leaks = [row for row in watched.leaks().to_pylist() if row["kind"] == "leak"]
    everyone = by_stack(watched.table().to_pylist())
    by_size = sorted(everyone, key=lambda row: -row["series"][-1])
    by_gain = sorted(everyone, key=lambda row: row["series"][0] - row["series"][-1])
    mine = place(leaks, pattern)
    result = {
        "what": what, "claimed": len(leaks), "place": mine, "owners": len(everyone),
        "size": place(by_size, pattern), "gain": place(by_gain, pattern), "look_cpu_s": cpu,
        "rate_MiB_s": leaks[mine - 1]["rate"] * 4096 / 3600 / leaking.MIB if mine else None,
        "first": _short(leaks[0]) if leaks else None,
        "others": [_short(row) for row in leaks if place([row], pattern) is None]}
    if saved is not None:
        result |= {"saved_claimed": len(saved), "saved_place": place(saved, pattern),
                   "saved_others": [_short(row) for row in saved if place([row], pattern) is None]}
    if arguments.keep:
        import pickle

        with open(f"{arguments.keep}/{what}-{time.time():.0f}.pickle", "wb") as file:
            pickle.dump(watched, file)
    return result


def _short(row: dict[str, Any]) -> str:
    from pageowner.analysis.subsystems import short_stack

    stack = row["stack"]
    stack = "\n".join(stack) if isinstance(stack, list) else stack
    rate = row["bytes_per_hour"] / 4096 if "bytes_per_hour" in row else row["rate"]
    numbers = (f"{rate * 4096 / 3600 / leaking.MIB:.2f} MiB/s p {row['p']:.4f} stays"
               f" {row['survival']} steady {row['steady']:.2f}")
    return f"{short_stack(stack, 4) if stack else row['note']} ({numbers})"


def table(results: Path) -> None:
    """The runs so far."""
    runs = runs_by_leak(results)
    print(f"{'leak':10} {'runs':>4} {'first':>6} {'MiB/s':>6} {'claims':>7}  by size  by difference"
          "  from snapshots")
    for what, ours in sorted(runs.items(), key=lambda item: item[0] == "none"):
        def places(name: str, ours: list[dict[str, Any]] = ours) -> str:
            return ",".join("-" if one.get(name) is None else str(one[name]) for one in ours)

        rates = [one["rate_MiB_s"] for one in ours if one["rate_MiB_s"] is not None]
        first = sum(one["place"] == 1 for one in ours)
        saved = places("saved_claimed" if what == "none" else "saved_place") if any(
            "saved_claimed" in one for one in ours) else "-"
        print(f"{what:10} {len(ours):4} {first if what != 'none' else '-':>6}"
              f" {sum(rates) / len(rates) if rates else 0:6.2f} {places('claimed'):>7}"
              f"  {places('size'):>7}  {places('gain'):>13}  {saved}")
    planted = {what: ours for what, ours in runs.items() if what != "none"}
    whole = sum(all(one["place"] == 1 for one in ours) for ours in planted.values())
    print(f"first in every run: {whole} of {len(planted)}; by size:"
          f" {sum(all(one['size'] == 1 for one in ours) for ours in planted.values())}; by"
          f" difference: {sum(all(one['gain'] == 1 for one in ours) for ours in planted.values())};"
          f" with no leak: {sum(one['claimed'] > 0 for one in runs.get('none', []))} of"
          f" {len(runs.get('none', []))} runs claim one")


def main() -> None:
    parser = leak_options(__doc__.split("\n", 1)[0], [*leaking.PROGRAMS, "none"], "leaks.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--snapshots", action="store_true", help="and from saved snapshots")
    parser.add_argument("--quiet", action="store_true", help="no noise")
    parser.add_argument("--keep", help="a folder for what was seen")
    arguments = parser.parse_args()
    if arguments.table:
        table(arguments.results)
        return
    need_tracking()
    control.on()
    try:
        from contextlib import nullcontext

        with tempfile.TemporaryDirectory() as folder, (
                nullcontext() if arguments.quiet else noise(folder)):
            time.sleep(arguments.warm)
            for _ in range(arguments.rounds):
                for what in arguments.what:
                    result = run(what, arguments)
                    keep_run(arguments.results, result)
                    print(f"{what}: place {result['place']} of {result['claimed']} (by size"
                          f" {result['size']}, by difference {result['gain']}; saved"
                          f" {result.get('saved_place')} of {result.get('saved_claimed')}); load"
                          f" {os.getloadavg()[0]:.1f}; {result['others'][:3]}", flush=True)
    finally:
        control.off()
    table(arguments.results)


if __name__ == "__main__":
    main()
