"""Who owns the memory: rows grouped by any keys, summed, sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import Key, blocks_pages, key, times
from pageowner.analysis.words import ALIASES, SORTS, check_sort, key_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.snapshot import Snapshot

__all__ = ["SORTS", "Shown", "check_sort", "head", "owners"]

_DIRECT = 1 << 22


class Shown(NamedTuple):
    """The owners to show, and the sum of those that are not."""

    owners: pa.Table
    rest_owners: int
    rest_pages: int
    rest_blocks: int


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
    group, number, codes = _groups(keys, len(pages))
    summed = np.zeros(number, np.int64)
    np.add.at(summed, group, pages)
    blocks = np.bincount(group, minlength=number)
    total = int(summed.sum())
    oldest, newest, none = _times(snapshot, group, number)
    labels = {}
    for one, code in zip(keys, codes, strict=True):
        said = one.labels.to_pylist()
        labels[one.name] = [said[place] for place in code.tolist()]
    order = _order(labels, summed, blocks, oldest, sort, reverse)
    columns: dict[str, Any] = {
        one.name: pa.array([labels[one.name][place] for place in order.tolist()], one.labels.type)
        for one in keys}
    columns["pages"] = pa.array(summed[order])
    columns["blocks"] = pa.array(blocks.astype(np.int64)[order])
    columns["share"] = pa.array((summed / total if total else summed.astype(float))[order])
    columns["oldest_ns"] = pa.array(oldest[order], mask=none[order])
    columns["newest_ns"] = pa.array(newest[order], mask=none[order])
    return pa.table(columns)


def _groups(keys: list[Key], rows: int) -> tuple[np.ndarray, int, list[np.ndarray]]:
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


def _order(labels: dict[str, list[Any]], pages: np.ndarray, blocks: np.ndarray,
           oldest: np.ndarray, sort: str, reverse: bool) -> np.ndarray:
    """Places of the groups in the order asked for; ties go by pages, then by the keys."""
    # Keys as sortable numbers: nulls last.
    ranks = []
    names = list(labels) if sort in SORTS else [ALIASES.get(sort, sort)]
    for name in reversed(names):
        ordered = sorted({value for value in labels[name] if value is not None})
        rank = {value: place for place, value in enumerate(ordered)}
        ranks.append(np.array([rank.get(value, len(rank)) for value in labels[name]], np.int64))
    if sort == "pages":
        leading = [-blocks, -pages]
    elif sort == "blocks":
        leading = [-pages, -blocks]
    elif sort == "age":
        leading = [-pages, oldest]
    else:
        leading, ranks = ranks, [-pages]
    order = np.lexsort([*ranks, *leading]) if len(pages) else np.zeros(0, np.int64)
    return order[::-1] if reverse else order


def head(table: pa.Table, top: int | None) -> Shown:
    """The first ``top`` owners (all if None), and what the others hold together."""
    shown = table if top is None else table.slice(0, min(top, table.num_rows))
    pages, blocks = table["pages"].to_numpy(), table["blocks"].to_numpy()
    size = shown.num_rows
    return Shown(shown, table.num_rows - size, int(pages[size:].sum()), int(blocks[size:].sum()))
