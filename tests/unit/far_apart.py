"""A made-up machine: RAM in two halves, side by side or far apart, with its files of /proc, and a
tracker's store all of whose spans show the same records: so it may be larger than this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from made_up_store import MadeUpStore, write_proc
from numpy.typing import NDArray

from pageowner.tracker.load.loading import sizes_for
from pageowner.tracker.read.maps import OWNED, RECORD, TASK, Span, stack_type

ORDER, COMM = 10, b"made up"
_FIRST = 1 << 20
"""The first frame: a multiple of all spans' size."""


class FarApart(MadeUpStore):
    """``frames`` page frames, the second half ``gap`` frames behind the first: all owned, in blocks
    of 2**10 pages, half of them movable."""

    def __init__(self, place: Path, frames: int, gap: int) -> None:
        half, second = frames // 2, _FIRST + frames // 2 + gap
        ranges = [(_FIRST, _FIRST + half), (second, second + half)]
        self.proc = str(place)
        self.directory = ""
        write_proc(place, ranges)
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

    def pageblocks(self, pfns: NDArray[np.uint64], mem_section: int,
                   order: int) -> NDArray[np.void]:
        self.asked += len(pfns)
        answers = np.zeros(len(pfns), [("flags", "u8"), ("refcount", "i4")])
        answers["flags"] = 1
        return answers
