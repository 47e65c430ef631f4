"""A made-up machine: RAM in two halves, side by side or far apart, with its files of /proc, and a
tracker's store all of whose spans show the same records: so it may be larger than this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pageowner.tracker.load.loading import sizes_for
from pageowner.tracker.read.maps import COUNTERS, OWNED, RECORD, TASK, Span, Store, stack_type

PAGE = os.sysconf("SC_PAGE_SIZE")
ORDER, COMM = 10, b"made up"
_FIRST = 1 << 20
"""The first frame: a multiple of all spans' size."""


class FarApart(Store):
    """``frames`` page frames, the second half ``gap`` frames behind the first: all owned, in blocks
    of 2**10 pages, half of them movable."""

    def __init__(self, place: Path, frames: int, gap: int) -> None:
        half, second = frames // 2, _FIRST + frames // 2 + gap
        ranges = [(_FIRST, _FIRST + half), (second, second + half)]
        self.proc = str(place)
        self.directory = ""
        self._write(place, ranges)
        self.depth = 1
        joined = ranges if gap else [(_FIRST, second + half)]
        self.span_shift = sizes_for(joined).span_shift
        self.facts: dict[str, Any] = {"ranges": joined, "hooks": {}, "options": {}}
        self.asked = 0
        size = 1 << self.span_shift
        records = np.zeros(size, RECORD)
        heads = records[::1 << ORDER]
        heads["ts"], heads["stack_id"], heads["task_id"] = 1, 1, (1 << 20) + 1
        heads["order"], heads["state"] = ORDER, OWNED
        heads["gfp_mask"][::2] = 1 << 3  # __GFP_MOVABLE
        self.__dict__["spans"] = [Span(first, records) for start, end in joined
                                  for first in range(start, end, size)]
        self.__dict__["freed"] = []
        self.__dict__["tasks"] = np.zeros(2, TASK)
        self.tasks[1] = ((1 << 20) + 1, 1, 7, 7, COMM, 0)
        self.__dict__["stacks"] = np.zeros(2, stack_type(1))
        self.stacks["n"][1] = self.stacks["frames"][1] = 1

    @staticmethod
    def _write(place: Path, ranges: list[tuple[int, int]]) -> None:
        place.mkdir(exist_ok=True)
        (start, _), (_, end) = ranges
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

    def counters(self) -> dict[str, int]:
        return dict.fromkeys(COUNTERS, 0)

    def missed(self) -> int:
        return 0

    def unused(self, pfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return np.zeros(len(pfns), bool)

    def pageblocks(self, pfns: NDArray[np.uint64], mem_section: int,
                   order: int) -> NDArray[np.void]:
        self.asked += len(pfns)
        answers = np.zeros(len(pfns), [("flags", "u8"), ("refcount", "i4")])
        answers["flags"] = 1
        return answers
