"""Two CPUs that write the same records over and over (rewrite.bpf.c), and what readers see."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pageowner.tracker.load import loading
from pageowner.tracker.load.libbpf import Libbpf
from pageowner.tracker.load.loading import Sizes, Tracker
from pageowner.tracker.read.maps import OWNED, WRITTEN

ROOT = Path(__file__).parents[2]
FRAMES, WRITES = 512, 1000
NO_COMPILER = 77
"""The exit status of scripts/build-bpf that says so."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Seen:
    """Records that were read, ``owned`` among them, those of these that nobody ever wrote
    (``torn``), and those that did not stand still (``moving``)."""

    reads: int = 0
    owned: int = 0
    torn: int = 0
    moving: int = 0


def build(place: Path) -> bytes:
    """The tracker's object with the writer in it; CalledProcessError, with `NO_COMPILER` for its
    status where the compiler cannot be installed."""
    subprocess.run([ROOT / "scripts/build-bpf", place / "rewrite.o",
                    Path(__file__).with_name("rewrite.bpf.c")], check=True, capture_output=True,
                   text=True, env={**os.environ, "PIP_RETRIES": "0", "PIP_TIMEOUT": "5"})
    return (place / "rewrite.o").read_bytes()


@contextmanager
def rewritten(bpf: Libbpf, image: bytes, weak_order: bool = False) -> Iterator[NDArray[np.void]]:
    """Records that two CPUs rewrite meanwhile, one process on each."""
    shipped, loading.image = loading.image, lambda: image
    try:
        with Tracker(bpf, Sizes(span_shift=12, spans=4, tasks=64, stacks=256), 16,
                     {"vmemmap": 0, "weak_order": int(weak_order)}) as tracker:
            program = tracker.load("rewrite").program_fd("rewrite")
            tracker.cover([(0, 1 << 12)])
            writers = [_writer(bpf, program, cpu, 1 + number)
                       for number, cpu in enumerate(sorted(os.sched_getaffinity(0))[:2])]
            try:
                with tracker.store() as store:
                    yield store.spans[0].records[:FRAMES]
            finally:
                for writer in writers:
                    os.kill(writer, signal.SIGKILL)
                    os.waitpid(writer, 0)
    finally:
        loading.image = shipped


def _writer(bpf: Libbpf, program: int, cpu: int, serial: int) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.sched_setaffinity(0, {cpu})
        while os.getppid() == parent:
            bpf.run(program, 0, FRAMES, WRITES, serial, 2)
            serial += 2 * WRITES
    finally:
        os._exit(1)


def read(live: NDArray[np.void], reader: Callable[[NDArray[np.void]], NDArray[np.void]],
         reads: int) -> Seen:
    """Read so many records, all again and again, and judge each that is owned."""
    seen = Seen()
    while seen.reads < reads:
        records = reader(live)
        seen.reads += len(live)
        seen.moving += int(np.count_nonzero(records["state"] == WRITTEN))
        owned = records[records["state"] == OWNED]
        seen.owned += len(owned)
        seen.torn += int(np.count_nonzero(~_as_written(owned)))
    return seen


def _as_written(records: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether all fields are those of the serial number, by rewrite_one()."""
    mixed = records["ts"] * _MULTIPLIER
    mixed ^= mixed >> np.uint64(32)
    good: NDArray[np.bool_] = np.ones(len(records), bool)
    for name, shift, bits in (("stack_id", 0, 32), ("task_id", 32, 32), ("gfp_mask", 16, 32),
                              ("order", 8, 3), ("moved", 24, 8)):
        said = mixed >> np.uint64(shift) & np.uint64((1 << bits) - 1)
        good &= records[name] == said
    return good


def copied_once(live: NDArray[np.void]) -> NDArray[np.void]:
    """How records must not be read."""
    return live.copy()


def copied_by_column(live: NDArray[np.void]) -> NDArray[np.void]:
    """Nor so: what is owned first, and then each of its fields."""
    places = np.flatnonzero(live["state"] == OWNED)
    records = np.zeros(len(places), live.dtype)
    for name in ("ts", "order", "stack_id", "task_id", "gfp_mask", "moved"):
        records[name] = live[name][places]
    records["state"] = OWNED
    return records
