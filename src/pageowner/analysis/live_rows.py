"""The rows that `leaks.Watch` is shown, of looks at a running tracker."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import Key, blocks_pages, key
from pageowner.analysis.leaks import Rows, programs
from pageowner.analysis.live import field_of, labels_of
from pageowner.analysis.reclaimable import RECLAIMABLE
from pageowner.analysis.select import conditions, is_known
from pageowner.analysis.subsystems import PRIVATE, subsystem
from pageowner.model.schema import BY_KEY, COLUMNS, LOOKED_AT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.analysis.filters import Filter
    from pageowner.model.live import LiveBlocks
    from pageowner.model.snapshot import Snapshot

__all__ = ["rows_of_blocks", "rows_of_looks", "told_by_records", "untracked_by_kind"]


_OF_EVERY_PAGE = ("order", "subsystem", "allocator")
"""Filters that pages without a record may match too, by their size and their page flags."""


def told_by_records(names: Sequence[str], chosen: Filter | None = None) -> bool:
    """Whether records alone tell these keys, and which pages are ``chosen``, if not by age; else it
    takes whole captures."""
    if not all(COLUMNS[BY_KEY[name].source].recorded for name in names):
        return False
    return not chosen or (is_known(chosen) and all(
        word not in _OF_EVERY_PAGE and COLUMNS[BY_KEY[LOOKED_AT[word]].source].recorded
        for word in chosen.given()))


def rows_of_looks(look: Callable[[Sequence[str]], LiveBlocks], names: Sequence[str],
                  chosen: Filter | None = None) -> Callable[[], tuple[int, Rows, dict[str, int]]]:
    """A function that has ``look`` look at the fields it takes, and gives what `leaks.Watch.add`
    takes: the moment, the rows with the keys ``names``, and the pages of others. With ``chosen``
    the rows that match, which is nothing of the others."""
    by = {} if chosen is None else conditions(chosen)
    fields = [field_of(name) for name in (*names, *by)]

    def rows() -> tuple[int, Rows, dict[str, int]]:
        found = look(fields)
        if chosen:
            found = _matching(found, chosen, by)
        return found.time_ns, rows_of_blocks(found, names), found.others

    return rows


def _matching(found: LiveBlocks, chosen: Filter,
              by: dict[str, Callable[[object], bool]]) -> LiveBlocks:
    keep = np.ones(len(found.pages), bool)
    for name, good in by.items():
        codes, values = found.fields[field_of(name)]
        keep &= np.array([label is not None and good(label) for label in labels_of(name, values)]
                         or [False], bool)[codes]
    return replace(
        found, fields={name: (codes[keep], values)
                       for name, (codes, values) in found.fields.items()},
        pages=found.pages[keep], ts=found.ts[keep], others={})


def rows_of_blocks(found: LiveBlocks, names: Sequence[str]) -> Rows:
    """The rows of one look."""
    of = partial(_key, found)
    codes, texts = found.fields["stack"]
    uses = [None if text is None else subsystem(text) for text in texts]
    cache = np.array([use in RECLAIMABLE for use in uses], bool)[codes]
    private = np.array([use in PRIVATE for use in uses], bool)[codes]
    kinds, types = found.fields["migratetype"]
    reclaimable = np.array([kind == "Reclaimable" for kind in types], bool)[kinds]
    nothing = Key("note", np.zeros(len(found.pages), np.int64), pa.nulls(1, pa.string()))
    comm, pid, tid = of("comm"), of("pid"), of("tid")
    program, called = programs(names, private, comm, tid, pid)
    return Rows([of(name) for name in names], found.pages, found.ts,
                cache | reclaimable, nothing, program, called, comm, pid)


def _key(found: LiveBlocks, name: str) -> Key:
    codes, values = found.fields[field_of(name)]
    return _joined(name, codes, labels_of(name, values))


def _joined(name: str, codes: np.ndarray, labels: list[Any]) -> Key:
    """Equal labels as one."""
    places: dict[Any, int] = {}
    joined = np.array([places.setdefault(label, len(places)) for label in labels] or [0], np.int64)
    return Key(name, joined[codes] if len(codes) else codes, pa.array(list(places) or [None]))


def untracked_by_kind(snapshot: Snapshot) -> dict[str, int]:
    """Pages in use without a record, by what their page flags say they are."""
    found = snapshot.select(state="untracked")
    use = key(found, "subsystem")
    pages = np.bincount(use.codes, blocks_pages(found), len(use.labels)).astype(np.int64)
    return dict(zip(use.labels.to_pylist(), pages.tolist(), strict=True))
