"""What a day of ``record --every 10m`` takes, sped up: 144 captures under load, against as many
single snapshots, of which every twelfth is saved, too, to see how large they are. First /usr is
read anew, so that the page cache has owners, as on a machine that is tracked since its boot.

    python benchmarks/record.py [--captures N] [--pause S] [--no-load]

Prints bytes, the ratio, and seconds of CPU for a capture and for its file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from common import ROOT, median, need_tracking
from pageowner.sources.source import read
from pageowner.storage import series
from pageowner.storage.recording import Recorder, owned_folder
from pageowner.tracker import control

_DAY_S = 86_400
_EVERY_S = 600
_LOAD = ROOT / "tests/live/load.py"
_SINGLE = 12


def fill(folder: str) -> None:
    """Drop a tree of files from the page cache, and read it."""
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError), open(os.path.join(place, name), "rb", buffering=0) as file:
                if os.path.islink(file.name):
                    continue
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.read(1 << 20):
                    pass


def record(folder: Path, captures: int, pause: float) -> None:
    singles: list[float] = []
    sizes: list[int] = []
    costs: list[tuple[float, float]] = []
    began = time.time()
    recorder = Recorder(folder, _EVERY_S, 7 * _DAY_S)
    for number in range(captures):
        used = time.process_time()
        snapshot = read()
        taken = time.process_time()
        # as if ten minutes lay between
        path = recorder.add(snapshot, began + number * _EVERY_S)
        costs.append((taken - used, time.process_time() - taken))
        sizes.append(path.stat().st_size)
        if number % _SINGLE == 0:
            single = folder / "single"
            snapshot.save(single)
            singles.append(single.stat().st_size)
            single.unlink()
            print(f"{number}: {snapshot.table.num_rows} rows, {sizes[-1]} bytes, alone"
                  f" {singles[-1]}", flush=True)
        del snapshot
        time.sleep(pause)
    alone = sum(singles) / len(singles) * captures
    whole = sum(one.path.stat().st_size > alone / captures / 2
                for one in series.captures(folder))
    print(f"{captures} captures: {sum(sizes) / 1e6:.1f} MB, {whole} of them whole; as single"
          f" snapshots {alone / 1e6:.1f} MB; {sum(sizes) / alone:.3f} of that")
    print(f"CPU: {median([cost for cost, _ in costs]):.2f} s a capture,"
          f" {median([cost for _, cost in costs]):.2f} s its file")
    began = time.monotonic()
    rows = read(folder).table.num_rows
    print(f"the last one read back, {rows} rows: {time.monotonic() - began:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--captures", type=int, default=_DAY_S // _EVERY_S)
    parser.add_argument("--pause", type=float, default=2, help="seconds between two")
    parser.add_argument("--no-load", action="store_true")
    arguments = parser.parse_args()
    need_tracking()
    control.on()
    try:
        fill("/usr")
        with tempfile.TemporaryDirectory() as name:
            place = Path(name, "load")
            place.mkdir()
            load = None if arguments.no_load else subprocess.Popen([sys.executable, _LOAD, place])
            try:
                with owned_folder(Path(name, "record")):
                    record(Path(name, "record"), arguments.captures, arguments.pause)
            finally:
                if load:
                    load.kill()
                    load.wait()
    finally:
        control.off()


if __name__ == "__main__":
    main()
