"""The filters: the same words for every verb and source, each one a condition on rows.

A row must match every word given; a word given several values matches if any of them does.
"""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pageowner.analysis import unknown_words
from pageowner.analysis.filters import Filter, duration_ns
from pageowner.analysis.keys import key, times
from pageowner.errors import PageownerError, UsageError
from pageowner.kernel.frames import spellings
from pageowner.model.schema import AGE, BY_KEY, COLUMNS, FILTERS, FLAGS, LOOKED_AT, NUMBERS
from pageowner.model.snapshot import Metadata, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Filter", "conditions", "duration_ns", "is_known", "newest_ns", "select"]


def newest_ns(snapshot: Snapshot) -> int:
    """The moment the snapshot was taken on its own clock: ns since boot."""
    if snapshot.meta.clock_ns is not None:
        return snapshot.meta.clock_ns
    found, _ = times(snapshot)
    return int(found.max(initial=0))


def select(snapshot: Snapshot, chosen: Filter) -> pa.Table:
    """The rows that match.

    Raises PageownerError for a word about what the source does not know of any row, UsageError
    for a state, zone, migratetype or gfp flag that does not exist.
    """
    if not chosen:
        return snapshot.table
    _check_known(snapshot, chosen)
    unknown_words.check(snapshot, chosen, _any_pattern)
    keep = np.ones(snapshot.table.num_rows, bool)
    for name, good in conditions(chosen).items():
        keep &= _by_label(snapshot, name, good)
    if chosen.older is not None or chosen.newer is not None:
        keep &= _by_age(snapshot, chosen)
    return snapshot.table.filter(pa.array(keep))


def is_known(chosen: Filter) -> bool:
    """Whether every word names what some kernel has; others can be told only of a source."""
    try:
        unknown_words.check(Snapshot.from_columns({}, Metadata()), chosen, _any_pattern)
    except UsageError:
        return False
    return True


def conditions(chosen: Filter) -> dict[str, Callable[[object], bool]]:
    """What each word that is given, but for the ages, asks of the labels of the key of its name; a
    label that is unknown never matches, but for the state: what has none is owned."""
    result: dict[str, Callable[[object], bool]] = {}
    for name, wanted in chosen.given().items():
        takes, name = FILTERS[name].takes, LOOKED_AT[name]
        if takes == NUMBERS:
            result[name] = set(wanted).__contains__
        elif takes == FLAGS:
            result[name] = _all_flags(wanted)
        elif takes != AGE:
            result[name] = _any_frame(wanted) if name == "stack" else _any_pattern(wanted)
    return result


def _check_known(snapshot: Snapshot, chosen: Filter) -> None:
    """An empty answer must mean that nothing matches, not that nothing is known."""
    table, meta = snapshot.table, snapshot.meta
    for word in chosen.given():
        column = "ts_ns" if FILTERS[word].takes == AGE else BY_KEY[LOOKED_AT[word]].source
        if word == "memcg_state":  # other notes say nothing of cgroups
            column = "memcg"
        what = FILTERS[word].lacks
        if not what or table[column].null_count < max(table.num_rows, 1):
            continue
        if meta.kind == "tracker" and COLUMNS[column].recorded:
            continue
        if word in ("subsystem", "allocator") and table["page_flags"].null_count < table.num_rows:
            continue
        if word == "gfp" and all(flag.lower().startswith("0x") for flag in chosen.gfp or ()):
            continue
        raise PageownerError(f"{meta.source or meta.host or 'this machine'} does not know {what},"
                             f" so --{word.replace('_', '-')} cannot be used")


def _by_label(snapshot: Snapshot, name: str, good: Callable[[object], bool]) -> np.ndarray:
    found = key(snapshot, name)
    labels = found.labels.to_pylist()
    if name == "state":  # where pages have no state, all are owned
        labels = [label or "owned" for label in labels]
    passing = np.array([label is not None and good(label) for label in labels] or [False], bool)
    rows: np.ndarray = passing[found.codes]
    return rows


def _any_pattern(patterns: tuple[str, ...]) -> Callable[[object], bool]:
    # A task may be named with brackets, so the very name always matches itself.
    compiled = [re.compile(fnmatch.translate(pattern), re.IGNORECASE) for pattern in patterns]
    return lambda label: str(label) in patterns or any(
        pattern.match(str(label)) for pattern in compiled)


def _any_frame(patterns: tuple[str, ...]) -> Callable[[object], bool]:
    compiled = [re.compile(fnmatch.translate(pattern)) for pattern in patterns]

    @lru_cache(1 << 17)  # stacks are many, their distinct lines few, but in a hostile dump
    def matches(line: str) -> bool:
        return any(pattern.match(name) for name in spellings(line) for pattern in compiled)

    return lambda stack: any(map(matches, str(stack).split("\n")))


def _all_flags(wanted: tuple[str, ...]) -> Callable[[object], bool]:
    # ZERO, __GFP_ZERO and GFP_KERNEL|ZERO are all understood.
    choices = [{name, f"GFP_{name}", f"__GFP_{name}"} for name in unknown_words.flag_names(wanted)]

    def good(flags: object) -> bool:
        have = set(str(flags).upper().split("|"))
        return all(have & choice for choice in choices)

    return good


def _by_age(snapshot: Snapshot, chosen: Filter) -> np.ndarray:
    found, keep = times(snapshot)
    age = newest_ns(snapshot) - found.astype(np.int64)
    if chosen.older is not None:
        keep &= age >= duration_ns(chosen.older)
    if chosen.newer is not None:
        keep &= age <= duration_ns(chosen.newer)
    return keep
