"""The walk over all frames, on made-up flags, records and answers of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pageowner.kernel.pageflags import bit
from pageowner.kernel.zones import ZoneMap
from pageowner.tracker.read.maps import OWNED, RECORD
from pageowner.tracker.read.survey import _Walk

FIRST = 1 << 16
GFP_COMP = 1 << 18


class Kernel:
    """A store that knows which page frames are unused."""

    span_shift = 16
    spans: tuple[Any, ...] = ()

    def __init__(self, unused: set[int]) -> None:
        self._unused = np.array(sorted(unused), np.uint64)

    def unused(self, pfns: np.ndarray) -> np.ndarray:
        return np.isin(pfns, self._unused)


@pytest.mark.parametrize(("order", "unused", "free"), [
    (0, {0}, [0]),
    (0, set(), []),
    (2, {0, 1, 2, 3}, [0, 1, 2, 3]),
    (2, {0, 2}, [0, 2]),  # split: the rest is in use still
])
def test_pages_on_a_list_of_a_cpu_are_free_one_by_one(
        order: int, unused: set[int], free: list[int]) -> None:
    walk = _Walk(Kernel({FIRST + at for at in unused}), ZoneMap([]), GFP_COMP)  # type: ignore[arg-type]
    records = np.zeros(8, RECORD)
    records[0] = (1, 1, 1, 0, order, OWNED, 0, 0)
    flags = np.zeros(8, np.uint64)
    before, after = walk._freed_unseen(records, records, flags, flags, FIRST, np.arange(8))
    assert np.flatnonzero(before & after & bit("buddy")).tolist() == free
    assert walk.seen["stale_pages"] == len(free)
