"""Small packets at full rate while tracking: what is missed, what is untracked, what it costs.

    storm.py [ROUNDS [SECONDS]]

UDP packets of 64 bytes over loopback, and through a pair of veth between two network namespaces,
whose packets are made and freed in software interrupts. Each round (4 by default, of 3 seconds)
sends with tracking off and on, the other way round each time. Missed are events that no program
dealt with, as `status` has them; untracked pages are those of a capture right after the storm, less
those of one before it, with what of them no missing hook explains. Needs root, cc and ip; without
veth that storm is left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import ROOT, folder, need_tracking
from pageowner.tracker import control
from pageowner.tracker.read.maps import open_store
from pageowner.tracker.read.untracked import untracked

ROUNDS, SECONDS = 4, 3.0
_COUNTED = ("allocs", "nested_allocs", "frees", "nested_frees", "bulk")


def _ip(*words: str) -> bool:
    return not subprocess.run(["ip", *words], check=False, stderr=subprocess.DEVNULL).returncode


@contextmanager
def veth() -> Iterator[tuple[str, str, str] | None]:
    """Two namespaces joined by a pair of veth: the receiver's address, both paths; None if this
    kernel has none."""
    ends = [f"pageowner-{os.getpid()}-{side}" for side in "ab"]
    try:
        good = all(_ip("netns", "add", end) for end in ends)
        good = good and _ip("-n", ends[0], "link", "add", "storm", "type", "veth", "peer", "name",
                            "storm", "netns", ends[1])
        for number, end in enumerate(ends, 1):
            good = good and _ip("-n", end, "addr", "add", f"10.99.99.{number}/24", "dev", "storm")
            good = good and _ip("-n", end, "link", "set", "storm", "up")
        yield ("10.99.99.2", *(f"/run/netns/{end}" for end in ends)) if good else None
    finally:
        for end in ends:
            _ip("netns", "del", end)


def storm(program: str, seconds: float, way: tuple[str, str, str]) -> tuple[float, float]:
    """Packets a second, sent and received."""
    said = subprocess.run([program, str(seconds), *way], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    sent, received = map(float, said.split())
    return sent, received


def look() -> dict[str, Any]:
    """The counters, what was missed and what is untracked now."""
    with open_store() as store:
        counters = store.counters()
        pages, unexplained = untracked(store)
        return {**{name: counters[name] for name in _COUNTED}, "missed": store.missed(),
                "untracked": pages, "unexplained": unexplained}


def rounds_of(program: str, way: tuple[str, str, str], rounds: int,
              seconds: float) -> dict[str, Any]:
    ratios, sent, received = [], [], []
    told: dict[str, Any] = dict.fromkeys((*_COUNTED, "missed", "untracked"), 0)
    unexplained: list[Any] = []
    for turn in range(rounds):
        rates = {}
        for tracked in (False, True) if turn % 2 else (True, False):
            if not tracked:
                rates[tracked] = storm(program, seconds, way)
                continue
            control.on()
            try:
                before = look()
                rates[tracked] = storm(program, seconds, way)
                after = look()
            finally:
                control.off()
            for name in told:
                told[name] += after[name] - before[name]
            unexplained += after["unexplained"]
        ratios.append(rates[True][0] / rates[False][0])
        sent.append(rates[False][0])
        received.append(rates[False][1])
    return {**told, "unexplained": unexplained, "ratio": statistics.median(ratios),
            "sent": statistics.median(sent), "received": statistics.median(received)}


def main() -> None:
    need_tracking()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    with folder() as place, veth() as joined:
        program = str(Path(place, "storm"))
        subprocess.run(["cc", "-O2", "-o", program, ROOT / "benchmarks/storm.c"], check=True)
        ways = {"loopback": ("127.0.0.1", "-", "-"), "veth": joined}
        found = {name: rounds_of(program, way, rounds, seconds)
                 for name, way in ways.items() if way}
    print(f"{rounds} rounds of {seconds:g} s, packets of 64 bytes\n")
    print("| storm | packets/s sent, received | with tracking, median of the rounds | blocks"
          " allocated, freed meanwhile | by the second programs | missed | more untracked pages |"
          " of these unexplained |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, one in found.items():
        unexplained = sum(int(group.get("pages", 0)) for group in one["unexplained"])
        print(f"| {name} | {one['sent']:,.0f}, {one['received']:,.0f} |"
              f" {100 * (one['ratio'] - 1):+.1f} % |"
              f" {one['allocs'] + one['nested_allocs'] + one['bulk']:,},"
              f" {one['frees'] + one['nested_frees']:,} |"
              f" {one['nested_allocs']:,}, {one['nested_frees']:,} | {one['missed']:,} |"
              f" {one['untracked']:+,} | {unexplained:,} |")


if __name__ == "__main__":
    main()
