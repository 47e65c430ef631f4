"""Where on a picture each cell of memory stands: line by line, or along a Hilbert curve.

Every stretch has a strip of its own, as high as it needs, so that zones do not run into each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.memory import Stretch

__all__ = ["ORDERS", "Layout", "fit", "hilbert", "hilbert_index"]

ORDERS = ("row", "hilbert")
"""``row``: as one reads. ``hilbert``: cells that are near in memory are near in the picture, at any
scale."""

_MOST = 52  # no pfn has more bits
_LEAST_CURVE = 3  # smaller squares look like lines


class Layout(NamedTuple):
    """``places`` (height x width, int64): the number of the cell that stands there, or -1.
    ``rows``: the first row of each stretch's strip, and the end; ``frames`` to a cell."""

    frames: int
    places: NDArray[np.int64]
    rows: tuple[int, ...]


def hilbert(order: int, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x and y of places along the curve that fills a square of side ``2**order``.

    It begins at (0, 0) and ends at (side - 1, 0), so that squares in a line continue it.
    """
    x, y = np.zeros_like(index), np.zeros_like(index)
    for level in range(order):
        quarter = index >> 2 * level & 3
        right, up = quarter >> 1, (quarter ^ quarter >> 1) & 1
        x, y = _turned(x, y, right, up, (1 << level) - 1)
        x, y = x + (right << level), y + (up << level)
    return x, y


def hilbert_index(order: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """The inverse of `hilbert`."""
    index = np.zeros_like(x)
    for level in reversed(range(order)):
        right, up = x >> level & 1, y >> level & 1
        index = index << 2 | (3 * right ^ up)
        low = (1 << level) - 1
        x, y = _turned(x & low, y & low, right, up, low)
    return index


def _turned(x: NDArray[np.int64], y: NDArray[np.int64], right: NDArray[np.int64],
            up: NDArray[np.int64], low: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A quarter's own curve: mirrored at one diagonal in the first, at the other in the last."""
    flip = (up == 0) & (right == 1)
    x, y = np.where(flip, low - x, x), np.where(flip, low - y, y)
    return np.where(up == 0, y, x), np.where(up == 0, x, y)


def fit(stretches: Sequence[Stretch], width: int, height: int, order: str = "row", *,
        unit: int = 1, least: int = 1) -> Layout:
    """The layout with the fewest frames to a cell (a power of two, at least ``least``) that fits;
    if not even one line a stretch does, it is higher than asked.

    Strips begin at multiples of ``unit`` rows. ``width`` and ``height`` count cells.
    """
    frames = least
    while True:
        cells = [-(-stretch.end // frames) - stretch.start // frames for stretch in stretches]
        choices = [_strips(count, width, order, unit) for count in cells]
        strips = [min(choice) for choice in choices]
        total = sum(high for high, _ in strips)
        if total <= height or max(cells, default=0) <= 1 or frames >> _MOST:
            break
        frames *= 2
    # squares as large as there is room for, where there is most to see first
    for number in sorted(range(len(cells)), key=lambda number: -cells[number]):
        room = height - total + strips[number][0]
        larger = [choice for choice in choices[number] if choice[0] <= room]
        if larger:
            total += larger[-1][0] - strips[number][0]
            strips[number] = larger[-1]
    rows = [0]
    for high, _ in strips:
        rows.append(rows[-1] + high)
    places = np.full((rows[-1], width), -1, np.int64)
    done = 0
    for top, count, (_, level) in zip(rows, cells, strips, strict=False):
        at = np.arange(count, dtype=np.int64)
        across = width >> level  # squares in a line
        square = at >> 2 * level
        x, y = hilbert(level, at & (1 << 2 * level) - 1)
        places[top + y + (square // across << level), x + (square % across << level)] = done + at
        done += count
    return Layout(frames, places, tuple(rows))


def _strips(cells: int, width: int, order: str, unit: int) -> list[tuple[int, int]]:
    """The strips that cells can fill: how high each is, and the order of its squares, ascending; of
    order 0, line by line."""
    found = []
    for level in range(_MOST // 2 if order == "hilbert" else 1):
        if level and 1 << level > width:
            break
        squares = -(-cells >> 2 * level)
        lines = -(-squares // (width >> level))
        high = -(-(lines << level) // unit) * unit
        if squares == 1 or level >= _LEAST_CURVE or order == "row":
            found.append((high, level))
        if squares <= 1:
            break
    return found or [(-(-cells // width // unit) * unit, 0)]
