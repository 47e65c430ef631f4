"""Who owns the memory: rows grouped by any keys, summed, sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import Key, blocks_pages, key, times
from pageowner.analysis.ranking import ranked, ties
from pageowner.analysis.words import SORTS, check_sort, key_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.snapshot import Snapshot

__all__ = ["SORTS", "check_sort", "groups", "owners"]

_DIRECT = 1 << 22

_FEW = 1 << 14
"""Owners that are put in order by their names."""


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
    ranking = _by_numbers if number > _FEW else _by_names
    order, columns = ranking(keys, codes, summed, blocks, oldest, sort)
    if reverse:
        order = order[::-1]
        columns = {name: column[::-1] for name, column in columns.items()}
    columns["pages"] = pa.array(summed[order])
    columns["blocks"] = pa.array(blocks.astype(np.int64)[order])
    columns["share"] = pa.array((summed / total if total else summed.astype(float))[order])
    columns["oldest_ns"] = pa.array(oldest[order], mask=none[order])
    columns["newest_ns"] = pa.array(newest[order], mask=none[order])
    return pa.table(columns)


def _by_names(keys: list[Key], codes: list[np.ndarray], pages: np.ndarray, blocks: np.ndarray,
              oldest: np.ndarray, sort: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The groups' places in the order asked for, and the keys' columns in that order."""
    labels = {}
    for one, code in zip(keys, codes, strict=True):
        said = one.labels.to_pylist()
        labels[one.name] = [said[place] for place in code.tolist()]
    order = ranked(labels, pages.tolist(), blocks.tolist(), oldest.tolist(), sort, False)
    return np.array(order, np.int64), {
        one.name: pa.array([labels[one.name][place] for place in order], one.labels.type)
        for one in keys}


def _by_numbers(keys: list[Key], codes: list[np.ndarray], pages: np.ndarray, blocks: np.ndarray,
                oldest: np.ndarray, sort: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The same without a Python object for each group; its import takes longer than few do."""
    import pyarrow.compute as pc

    ranks = {}
    for one, code in zip(keys, codes, strict=True):
        place = np.empty(len(one.labels), np.int64)
        # bytes of UTF-8 sort as characters do; nulls are last in both
        place[pc.sort_indices(one.labels).to_numpy()] = np.arange(len(one.labels))
        ranks[one.name] = place[code]
    order = np.lexsort(ties(ranks, -pages, -blocks, oldest, sort)[::-1])
    return order, {one.name: one.labels.take(pa.array(code[order]))
                   for one, code in zip(keys, codes, strict=True)}


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
