"""Many structs that lie side by side, in few copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["copy_run"]

_COPY = 1 << 16
"""Bytes of one copy, at most."""
_MASK = (1 << 64) - 1


def copy_run(memory: Memory, address: int, count: int, size: int,
             out: NDArray[np.uint8] | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """``count`` structs of ``size`` bytes from an address on: an array of the shape (count, size),
    zeros for what is not there, and which of them are.

    ``out``: an array of at least so many structs, to be used again: memory that a process has not
    used before costs as much as the copy.
    """
    found = (np.empty((count, size), np.uint8) if out is None else out)[:count]
    each = min(max(_COPY // size, 1), max(count, 1))
    whole = count // each
    start = np.uint64(address & _MASK)
    there = np.zeros(count, bool)
    _, good = memory.copy(start + np.arange(whole, dtype=np.uint64) * np.uint64(each * size),
                          each * size, found[:whole * each].reshape(whole, each * size))
    there[:whole * each] = np.repeat(good, each)
    if rest := count - whole * each:
        _, good = memory.copy(np.array([start + np.uint64(whole * each * size)]), rest * size,
                              found[whole * each:].reshape(1, rest * size))
        there[whole * each:] = good[0]
    if not there.all():
        # Of a copy that failed some may be there: they end with a page.
        for first in (np.flatnonzero(~there[::each]) * each).tolist():
            rows = np.arange(first, min(first + each, count))
            addresses = start + rows.astype(np.uint64) * np.uint64(size)
            found[rows], there[rows] = memory.copy(addresses, size)
    return found, there
