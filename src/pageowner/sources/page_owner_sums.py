"""Sums of records that came in columns: what page_owner_count.py adds up one by one, by NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.sources.page_owner_raw import NONE

if TYPE_CHECKING:
    from array import array

    from pageowner.sources.page_owner_raw import Raw

__all__ = ["has_blocks", "pfns", "times"]


def has_blocks(raw: Raw) -> bool:
    """Whether a record says the number of its pageblock."""
    return bool((_column(raw.block) != NONE).any())


def times(raw: Raw) -> tuple[list[int], list[int], list[int], bool]:
    """Of each kind how many records, the oldest time (`NONE`: none is known) and the newest (0);
    whether there is a time of a free."""
    kind, ts, number = np.frombuffer(raw.kind, np.uint32), _column(raw.ts), len(raw.kinds)
    blocks = np.bincount(kind, minlength=number)
    oldest, newest = np.full(number, NONE, np.uint64), np.zeros(number, np.uint64)
    known = ts != NONE
    if known.any():
        if not known.all():
            kind, ts = kind[known], ts[known]
        np.minimum.at(oldest, kind, ts)
        np.maximum.at(newest, kind, ts)
    freed = bool((_column(raw.free_ts) != NONE).any())
    return blocks.tolist(), oldest.tolist(), newest.tolist(), freed


def pfns(raw: Raw) -> tuple[tuple[int, int] | None, int]:
    """The lowest and the highest page frame, and how many come again."""
    pfn = _column(raw.pfn)
    pfn = pfn[pfn != NONE]
    if not len(pfn):
        return None, 0
    again = 0 if (pfn[1:] > pfn[:-1]).all() else len(pfn) - len(np.unique(pfn))
    return (int(pfn.min()), int(pfn.max())), again


def _column(column: array[int]) -> np.ndarray:
    return np.frombuffer(column, np.uint64) if column else np.zeros(0, np.uint64)
