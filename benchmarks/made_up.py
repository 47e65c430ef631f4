"""A made-up machine of any size: files like those of /proc, a store whose spans show a few
patterns of records again and again, so that both may be larger than this machine.

``small`` is the share of memory that is in blocks of one page, ``large`` that in blocks of 2**9;
the rest is free. Owners are ``stacks`` times ``tasks``, spread as on a machine at work: few have
most.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pageowner.kernel import pageflags
from pageowner.tracker.load.loading import sizes_for
from pageowner.tracker.read.maps import EARLY, OWNED, RECORD, TASK, Span, stack_type

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/unit"))

from made_up_store import MadeUpStore, write_proc

PATTERNS, DEPTH, HUGE = 8, 12, 9
_FIRST = 1 << 20


class MadeUp(MadeUpStore):
    """``frames`` page frames from `_FIRST` on."""

    def __init__(self, place: Path, frames: int, small: float = 0.25, large: float = 0.05,
                 early: float = 0.03, stacks: int = 1000, tasks: int = 100) -> None:
        chance = np.random.default_rng(7)
        ranges = [(_FIRST, _FIRST + frames)]
        self.proc, self.directory, self.depth = str(place), "", DEPTH
        self.span_shift = sizes_for(ranges).span_shift
        size = 1 << self.span_shift
        assert frames % size == 0, f"not in spans of {size} frames"
        self.facts: dict[str, Any] = {"ranges": ranges, "hooks": {}, "options": {}}
        made = [_pattern(chance, size, small, large, early, stacks, tasks)
                for _ in range(PATTERNS)]
        self.__dict__["spans"] = [Span(first, made[n % PATTERNS][0])
                                  for n, first in enumerate(range(_FIRST, _FIRST + frames, size))]
        self.__dict__["freed"] = []
        self.__dict__["tasks"] = np.zeros(tasks + 1, TASK)
        for number in range(1, tasks + 1):
            self.tasks[number] = (number, 1, number, number, b"task-%d" % (number % 997), 0)
        self.__dict__["stacks"] = np.zeros(stacks + 1, stack_type(DEPTH))
        self.stacks["n"][1:] = DEPTH
        # Addresses that no symbol holds are as good as any: each is looked up once.
        places = chance.integers(1, 4096, (stacks, DEPTH), dtype=np.uint64)
        places[:, 0] = np.arange(stacks, dtype=np.uint64)
        self.stacks["frames"][1:] = places * np.uint64(64) + np.uint64(1 << 32)
        write_proc(place, ranges)
        with open(place / "kpageflags", "r+b") as file:
            file.seek(_FIRST * 8)
            for number in range(frames // size):
                file.write(made[number % PATTERNS][1].data)


def _pattern(chance: np.random.Generator, size: int, small: float, large: float, early: float,
             stacks: int, tasks: int) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """Records of a span, and its flags: pageblocks of one kind each, some halves of them free."""
    records, flags = np.zeros(size, RECORD), np.full(size, pageflags.bit("buddy"), np.uint64)
    blocks = chance.permutation(size >> HUGE)
    counts = [round(share * len(blocks)) for share in (small, large, early)]
    pages = np.arange(1 << HUGE)
    anonymous = pageflags.bit("anon") | pageflags.bit("lru") | pageflags.bit("swapbacked")
    for block in blocks[:counts[0]].tolist():
        places = (block << HUGE) + pages
        records["state"][places], flags[places] = OWNED, anonymous
    heads = blocks[counts[0]:counts[0] + counts[1]] << HUGE
    records["state"][heads], records["order"][heads] = OWNED, HUGE
    records["gfp_mask"][heads] = 0x40000  # __GFP_COMP
    for head in heads.tolist():
        flags[head + pages] = anonymous | pageflags.bit("compound_tail")
        flags[head] = anonymous | pageflags.bit("compound_head")
    for block in blocks[sum(counts[:2]):sum(counts)].tolist():
        places = (block << HUGE) + pages
        records["state"][places], flags[places] = EARLY, pageflags.bit("slab")
    owned = np.flatnonzero(records["state"] == OWNED)
    records["ts"][owned] = np.sort(chance.integers(1, 1 << 44, len(owned), dtype=np.uint64))
    # Runs of one owner, few owners with most.
    runs = np.cumsum(chance.random(len(owned)) < 1 / 16)
    records["stack_id"][owned] = 1 + (stacks * chance.random(len(owned) + 1)[runs] ** 3).astype(int)
    records["task_id"][owned] = 1 + (tasks * chance.random(len(owned) + 1)[runs] ** 3).astype(int)
    records["gfp_mask"][owned] |= np.uint32(0x8)
    return records, flags
