"""Who owns the memory: rows grouped by any keys, summed, sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import Key, blocks_pages, key, times
from pageowner.analysis.ranking import ranked
from pageowner.analysis.words import SORTS, check_sort, key_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.snapshot import Snapshot

__all__ = ["SORTS", "check_sort", "groups", "owners"]

_DIRECT = 1 << 22


def owners(snapshot: Snapshot, by: str | Sequence[str] = "stack", *, sort: str = "pages",
           reverse: bool = False) -> pa.Table:
    """One row per distinct combination of the keys in ``by``, all of them.

    Columns: the keys, then ``pages`` and ``blocks`` (int64), ``share`` (of the pages of the
    snapshot, float64), ``oldest_ns`` and ``newest_ns`` (uint64, ns since boot, null where the
    source has no times). Sorted by pages or blocks (most first), name (the keys in order) or age
    (oldest first). Raises UsageError for an unknown key or sorting.
    """
    names = key_names(list(by) if not isinstance(by, str) else by)
    check_sort(sort, names)
    keys = [key(snapshot, name) for name in names]
    pages = blocks_pages(snapshot)
    group, number, codes = groups(keys, len(pages))
    summed = np.zeros(number, np.int64)
    np.add.at(summed, group, pages)
    blocks = np.bincount(group, minlength=number)
    total = int(summed.sum())
    oldest, newest, none = _times(snapshot, group, number)
    labels = {}
    for one, code in zip(keys, codes, strict=True):
        said = one.labels.to_pylist()
        labels[one.name] = [said[place] for place in code.tolist()]
    order = np.array(ranked(labels, summed.tolist(), blocks.tolist(), oldest.tolist(), sort,
                            reverse), np.int64)
    columns: dict[str, Any] = {
        one.name: pa.array([labels[one.name][place] for place in order.tolist()], one.labels.type)
        for one in keys}
    columns["pages"] = pa.array(summed[order])
    columns["blocks"] = pa.array(blocks.astype(np.int64)[order])
    columns["share"] = pa.array((summed / total if total else summed.astype(float))[order])
    columns["oldest_ns"] = pa.array(oldest[order], mask=none[order])
    columns["newest_ns"] = pa.array(newest[order], mask=none[order])
    return pa.table(columns)


def groups(keys: list[Key], rows: int) -> tuple[np.ndarray, int, list[np.ndarray]]:
    """Each row's group, the number of groups, and each group's code in every key."""
    sizes = [len(one.labels) for one in keys]
    combined = np.zeros(rows, np.int64)
    bound = 1
    for one, size in zip(keys, sizes, strict=True):
        if bound * max(size, 1) >= 1 << 62:
            # Too many combinations to number: number those that occur.
            distinct, combined = np.unique(combined, return_inverse=True)
            bound = len(distinct)
        combined = combined * size + one.codes
        bound *= max(size, 1)
    if bound <= _DIRECT:
        present = np.flatnonzero(np.bincount(combined, minlength=bound))
        place = np.zeros(bound, np.int64)
        place[present] = np.arange(len(present))
        group = place[combined]
        first = np.zeros(len(present), np.int64)
        first[group[::-1]] = np.arange(rows)[::-1]
    else:
        present, first, group = np.unique(combined, return_index=True, return_inverse=True)
    return group, len(present), [one.codes[first] for one in keys]


def _times(snapshot: Snapshot, group: np.ndarray,
           number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The oldest and newest time of each group, and the groups in which no time is known."""
    found, known = times(snapshot)
    oldest = np.full(number, np.iinfo(np.uint64).max)
    newest = np.zeros(number, np.uint64)
    np.minimum.at(oldest, group[known], found[known])
    np.maximum.at(newest, group[known], found[known])
    none = np.ones(number, bool)
    none[group[known]] = False
    return oldest, newest, none
