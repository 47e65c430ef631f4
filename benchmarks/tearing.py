"""Records that two CPUs rewrite while they are read: how many of those read did nobody ever write.

    tearing.py [READS]

10 million reads with each reader: one that copies once, as many do, one that takes column by
column, and the tracker's own, in blocks and one by one, also with the barriers that other machines
need. The writer is the tracker's own code (tests/live/rewrite.bpf.c), on two CPUs, on 512 records.
Needs root.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common import ROOT, folder, skip
from pageowner.errors import PageownerError
from pageowner.tracker.load import requirements
from pageowner.tracker.read import reading

sys.path.insert(0, str(ROOT / "tests/live"))

import tearing

READS = 10_000_000

Reader = Callable[[NDArray[np.void]], NDArray[np.void]]


def _one_by_one(live: NDArray[np.void]) -> NDArray[np.void]:
    return reading.whole_at(live, np.arange(len(live)))


READERS: dict[str, tuple[Reader, bool]] = {
    "copied once": (tearing.copied_once, False),
    "column by column": (tearing.copied_by_column, False),
    "`reading.whole`": (reading.whole, False),
    "`reading.whole_at`": (_one_by_one, False),
    "`reading.whole`, barriers": (reading.whole, True),
}


def main() -> None:
    reads = int(sys.argv[1]) if len(sys.argv) > 1 else READS
    if os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2:
        skip("needs root and two CPUs")
    try:
        bpf = requirements.require()
    except PageownerError as error:
        skip(str(error))
    wrong = 0
    with folder() as place:
        image = tearing.build(Path(place))
        print("| reader | records read | owned | never written | in motion | seconds |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, (reader, barriers) in READERS.items():
            with tearing.rewritten(bpf, image, barriers) as live:
                started = time.perf_counter()
                seen = tearing.read(live, reader, reads)
                seconds = time.perf_counter() - started
            print(f"| {name} | {seen.reads:,} | {seen.owned:,} | {seen.torn:,} | {seen.moving:,} |"
                  f" {seconds:.1f} |", flush=True)
            if reader not in (tearing.copied_once, tearing.copied_by_column):
                wrong += seen.torn
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
