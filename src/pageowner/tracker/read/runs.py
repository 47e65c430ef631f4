"""Runs of page frames: (first, behind the last), in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["consecutive", "outside", "within"]


def outside(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Frames between the ranges of memory: kernels with a flat memory map know them too."""
    edges = [0, *(edge for memory in sorted(ranges) for edge in memory), 1 << 62]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)
            if stop > start]


def within(runs: list[tuple[int, int]], first: int, stop: int) -> list[tuple[int, int]]:
    """The parts of runs between these frames, counted from the first of them."""
    return [(max(start - first, 0), min(end, stop) - first) for start, end in runs
            if start < stop and end > first]


def consecutive(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Numbers in order as runs (first, behind the last)."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    firsts = numbers[np.append(0, breaks + 1)]
    lasts = numbers[np.append(breaks, len(numbers) - 1)]
    return list(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))
