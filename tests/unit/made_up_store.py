"""What made-up machines share: a tracker that missed nothing, and the machine's files of /proc."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pageowner.tracker.read.maps import COUNTERS, Store

PAGE = os.sysconf("SC_PAGE_SIZE")


class MadeUpStore(Store):
    """A store that counts nothing and holds nothing that is not in use."""

    def counters(self) -> dict[str, int]:
        return dict.fromkeys(COUNTERS, 0)

    def missed(self) -> int:
        return 0

    def unused(self, pfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return np.zeros(len(pfns), bool)


def write_proc(place: Path, ranges: list[tuple[int, int]]) -> None:
    """Write files like those of /proc: one zone with RAM in these ranges of page frames, without a
    flag or a cgroup."""
    place.mkdir(exist_ok=True)
    start, end = ranges[0][0], ranges[-1][1]
    frames = sum(behind - first for first, behind in ranges)
    (place / "iomem").write_text("".join(
        f"{first * PAGE:x}-{behind * PAGE - 1:x} : System RAM\n" for first, behind in ranges))
    (place / "zoneinfo").write_text(
        f"Node 0, zone   Normal\n  pages free     0\n        spanned  {end - start}\n"
        f"        present  {frames}\n        managed  {frames}\n"
        f"  start_pfn:           {start}\n")
    (place / "buddyinfo").write_text("Node 0, zone   Normal" + "      0" * 11 + "\n")
    (place / "pagetypeinfo").write_text(
        "Page block order: 9\nPages per block:  512\n\n"
        "Number of blocks type     Unmovable      Movable\n"
        f"Node 0, zone   Normal            0 {frames >> 9}\n")
    for name in ("kpageflags", "kpagecgroup"):
        with open(place / name, "wb") as file:
            file.truncate(end * 8)
