"""What a hole in memory costs: a capture of a made-up machine and its fragmentation, with RAM in
one piece and in two halves 64 TiB apart.

    far_apart.py [TIB]

2 TiB, if not said otherwise. The files of /proc are made up, and sparse; the tracker's store shows
the same few records at all places, since real ones for that much memory take 12 GiB. All else is
the code that runs on a machine: the walk over flags and records, the snapshot, frag. Each is a
process of its own, in turn, the better of two counts. Needs root, for the kernel's symbols, and
/dev/shm.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT

sys.path.insert(0, str(ROOT / "tests/unit"))

from far_apart import FarApart

ROUNDS, LIMIT = 2, 1.2
_HALVES_APART = (64 << 40) // os.sysconf("SC_PAGE_SIZE")


def measure(tebibytes: float, gap: int) -> dict[str, float]:
    """Seconds of the capture and of frag, and the peak of memory after each, in MiB."""
    from pageowner.analysis.fragmentation import fragmentation
    from pageowner.tracker.read import capture, extfrag

    extfrag.events = lambda *_: []  # no such events: the store has no kernel behind it
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        frames = int(tebibytes * 2**40) // os.sysconf("SC_PAGE_SIZE")
        machine = FarApart(Path(place), frames >> 21 << 21, gap)  # whole spans
        started = time.process_time()
        snapshot = capture.capture(machine, machine.proc)
        captured = time.process_time()
        first = _peak()
        fragmentation(snapshot, "comm")
        return {"capture, s": captured - started, "frag, s": time.process_time() - captured,
                "capture, MiB": first, "frag, MiB": _peak(),
                "frames": sum(snapshot.meta.frames.values())}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    tebibytes = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    if len(sys.argv) > 2:
        print(json.dumps(measure(tebibytes, int(sys.argv[2]))))
        return
    best: dict[int, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for gap in (0, _HALVES_APART):
            done = subprocess.run([sys.executable, __file__, str(tebibytes), str(gap)], check=True,
                                  capture_output=True, text=True)
            found = json.loads(done.stdout)
            known = best.setdefault(gap, found)
            best[gap] = {name: min(known[name], found[name]) for name in known}
    one, two = best[0], best[_HALVES_APART]
    print(f"{tebibytes:g} TiB, {one.pop('frames'):,.0f} page frames; {two.pop('frames'):,.0f} in"
          f" two halves 64 TiB apart; best of {ROUNDS}\n")
    print("| | one piece | two halves | ratio |")
    print("| --- | --- | --- | --- |")
    for name in one:
        print(f"| {name} | {one[name]:.1f} | {two[name]:.1f} | {two[name] / one[name]:.2f} |")
    worst = max(two[name] / one[name] for name in one)
    print(f"\nat most {worst:.2f} times; the target is {LIMIT}")
    if worst > LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
