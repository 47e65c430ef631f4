"""Who owns the memory: rows grouped by any keys, summed, sorted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.filters import SORTS, check_sort, key_names
from pageowner.analysis.keys import (
    Key,
    blocks_pages,
    check_keys,
    key,
    stacks_or_users,
    times,
)
from pageowner.analysis.ranking import check_known, ranked, ties
from pageowner.analysis.sampled import bounds, share
from pageowner.model.amounts import row_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.snapshot import Snapshot

__all__ = ["SORTS", "Owners", "check_sort", "groups", "ordered", "owners"]

_DIRECT = 1 << 22

_FEW = 1 << 14
"""Owners that are put in order by their names."""


class Owners(NamedTuple):
    """Owners in order: ``keys``, each with a code for each owner; ``pages``, ``blocks`` (int64);
    ``oldest`` and ``newest`` (uint64, ns since boot), of no meaning where there is ``none``;
    ``low`` and ``high``: see `pageowner.analysis.sampled`, None where nothing is estimated."""

    keys: list[Key]
    pages: np.ndarray
    blocks: np.ndarray
    oldest: np.ndarray
    newest: np.ndarray
    none: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def owners(snapshot: Snapshot, by: str | Sequence[str] = "stack", *, sort: str = "pages",
           reverse: bool = False, encoded: bool = False, first: int | None = None,
           users: bool = False) -> pa.Table:
    """One row for each distinct combination of the keys in ``by``.

    Columns: the keys, then ``pages`` and ``blocks`` (int64), ``share`` (of the pages of the
    snapshot, float64), ``oldest_ns`` and ``newest_ns`` (uint64, ns since boot, null if the source
    has no times). Sorted by pages or blocks (most first), name (the keys in order) or age (oldest
    first). If the source has only one object in N, ``low`` and ``high`` are added: with 95 %
    confidence, ``pages`` lies between them. ``encoded``: return the keys as dictionaries, because
    the text of very many owners may be as large as the snapshot. ``first``: of very many owners
    only so many have to be in order, which saves to compare the names of all. ``users``: where
    there is no stack, the user of the page takes its place, if it was looked for. Raises UsageError
    for an unknown key, one that objects do not have, or an unknown sort order, PageownerError for
    an order by what the source does not know.
    """
    found = ordered(snapshot, by, sort=sort, reverse=reverse, first=first, users=users)
    total = int(found.pages.sum())
    many = len(found.pages) > _FEW
    columns = {column.name: _encoded(column) if many and encoded else
               column.labels.take(pa.array(column.codes)) if many else _spelled(column)
               for column in found.keys}
    columns["pages"] = pa.array(found.pages)
    columns["blocks"] = pa.array(found.blocks)
    columns["share"] = pa.array(found.pages / total if total else found.pages.astype(float))
    columns["oldest_ns"] = pa.array(found.oldest, mask=found.none)
    columns["newest_ns"] = pa.array(found.newest, mask=found.none)
    if found.low is not None:
        columns |= {"low": pa.array(found.low), "high": pa.array(found.high)}
    return pa.table(columns)


def _encoded(column: Key) -> pa.DictionaryArray:
    mask = None
    if column.labels.null_count:  # else Arrow's functions need not be imported
        mask = column.labels.is_null().to_numpy(zero_copy_only=False)[column.codes]
    codes = pa.array(column.codes.astype(np.int32), mask=mask)
    return pa.DictionaryArray.from_arrays(codes, column.labels)


def _spelled(column: Key) -> pa.Array:
    """For few owners: Arrow's import takes longer."""
    labels = column.labels.to_pylist()
    return pa.array([labels[code] for code in column.codes.tolist()], column.labels.type)


def ordered(snapshot: Snapshot, by: str | Sequence[str], *, sort: str = "pages",
            reverse: bool = False, first: int | None = None, users: bool = False) -> Owners:
    """The same as numbers, with no text for each owner."""
    names = key_names(list(by) if not isinstance(by, str) else by)
    check_sort(sort, names)
    check_keys(snapshot, names)
    users &= "user" not in names
    keys = [stacks_or_users(snapshot) if name == "stack" and users else key(snapshot, name)
            for name in names]
    pages = blocks_pages(snapshot)
    group, number, codes = groups(keys, len(pages))
    summed = np.zeros(number, np.int64)
    np.add.at(summed, group, pages)
    counted = row_blocks(snapshot.table)
    if counted is None:
        blocks = np.bincount(group, minlength=number).astype(np.int64)
    else:
        blocks = np.zeros(number, np.int64)
        np.add.at(blocks, group, counted)
    low = high = None
    if (one_in := share(snapshot.meta)) > 1:
        squares = np.bincount(group, np.square(pages, dtype=float), number)
        low, high = bounds(summed, squares.astype(float), one_in)
    oldest, newest, none = _times(snapshot, group, number)
    check_known(snapshot.meta, sort, not none.all() or not number)
    keys = [column._replace(codes=code) for column, code in zip(keys, codes, strict=True)]
    if number > _FEW:
        order = _first_by_numbers(keys, summed, blocks, oldest, sort, None if reverse else first)
    else:
        order = _by_names(keys, summed, blocks, oldest, sort)
    if reverse:
        order = order[::-1]
    return Owners([column._replace(codes=column.codes[order]) for column in keys], summed[order],
                  blocks[order], oldest[order], newest[order], none[order],
                  *(None if bound is None else bound[order] for bound in (low, high)))


def _by_names(keys: list[Key], pages: np.ndarray, blocks: np.ndarray, oldest: np.ndarray,
              sort: str) -> np.ndarray:
    """The groups' places in the order asked for."""
    labels = {column.name: _spelled(column).to_pylist() for column in keys}
    return np.array(ranked(labels, pages.tolist(), blocks.tolist(), oldest.tolist(), sort, False),
                    np.int64)


def _first_by_numbers(keys: list[Key], pages: np.ndarray, blocks: np.ndarray, oldest: np.ndarray,
                      sort: str, first: int | None) -> np.ndarray:
    """The groups' places, the ``first`` of them in the order asked for; all of them if None."""
    if first is None or first >= len(pages) or sort != "pages":
        return _by_numbers(keys, pages, blocks, oldest, sort)
    least = np.partition(pages, len(pages) - first - 1)[len(pages) - first - 1]
    front = pages >= least
    chosen, columns = np.flatnonzero(front), []
    if len(chosen) > _FEW:
        return _by_numbers(keys, pages, blocks, oldest, sort)
    for column in keys:
        present, codes = np.unique(column.codes[chosen], return_inverse=True)
        columns.append(Key(column.name, codes, pa.array(
            [column.labels[code].as_py() for code in present.tolist()], column.labels.type)))
    order = _by_names(columns, pages[chosen], blocks[chosen], oldest[chosen], sort)
    return np.concatenate([chosen[order], np.flatnonzero(~front)])


def _by_numbers(keys: list[Key], pages: np.ndarray, blocks: np.ndarray, oldest: np.ndarray,
                sort: str) -> np.ndarray:
    """The same without a Python object for each group; its import takes longer than few do."""
    import pyarrow.compute as pc

    ranks = {}
    for column in keys:
        place = np.empty(len(column.labels), np.int64)
        # bytes of UTF-8 sort as characters do; nulls are last in both
        place[pc.sort_indices(column.labels).to_numpy()] = np.arange(len(column.labels))
        ranks[column.name] = place[column.codes]
    return np.lexsort(ties(ranks, -pages, -blocks, oldest, sort)[::-1])


def groups(keys: list[Key], rows: int) -> tuple[np.ndarray, int, list[np.ndarray]]:
    """Each row's group, the number of groups, and each group's code in every key."""
    sizes = [len(column.labels) for column in keys]
    combined = np.zeros(rows, np.int64)
    bound = 1
    for column, size in zip(keys, sizes, strict=True):
        if bound * max(size, 1) >= 1 << 62:
            # Too many combinations to number: number those that occur.
            distinct, combined = np.unique(combined, return_inverse=True)
            bound = len(distinct)
        combined = combined * size + column.codes
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
    return group, len(present), [column.codes[first] for column in keys]


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
