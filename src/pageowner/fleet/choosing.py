"""What of a store a question is about: which machines, series and captures, which owners.

Words are matched here, by the same rules as in every other verb, against the distinct values that
the engine lists; the engine gets the values that match as a table.
"""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.analysis.select import conditions
from pageowner.errors import UsageError, near
from pageowner.fleet import questions
from pageowner.fleet.columns import AGES, KEYS, OWNERS, age_column, age_ns
from pageowner.model.schema import ALIASES, Filter
from pageowner.model.times import duration_ns
from pageowner.report.text import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.fleet.engine import Engine

__all__ = [
    "OWNER_KEYS",
    "Chosen",
    "Machines",
    "Owners",
    "choose",
    "column_of",
    "key_names",
    "machines_of",
    "matching_series",
    "owners_chosen",
    "parsed",
]

_OF_MACHINES = ("host", "machine", "boot", "kernel")

OWNER_KEYS = tuple(key for key in KEYS if key not in _OF_MACHINES)
"""What owners can be grouped by across machines."""

_FILTERS = {"comm": "o.comm", "memcg": "o.memcg", "container": "o.container",
            "pod": "o.pod", "subsystem": "o.subsystem",
            "order": "o.block_order", "migratetype": "o.migratetype", "state": "o.state",
            "module": "st.module", "allocator": "st.allocator", "stack": "st.stack"}
"""The filters that the tables can answer, and the column of each."""

_OVERLAP_S = 600.0
"""Captures of one host's name that cross by more are of two machines."""


def key_names(words: str | Sequence[str]) -> list[str]:
    """``"stack,comm"`` or its parts as names of `OWNER_KEYS`. Raises UsageError."""
    parts = words.split(",") if isinstance(words, str) else list(words)
    names = [ALIASES.get(part.strip(), part.strip()) for part in parts]
    for name in names:
        if name not in OWNER_KEYS:
            raise UsageError(f"cannot group a fleet's owners by {name!r}; {near(name, OWNER_KEYS)}")
    return list(dict.fromkeys(names))


def column_of(key: str) -> str:
    """A key's column, as the questions name it."""
    column = KEYS[key]
    return f"o.{column}" if column in OWNERS else f"st.{column}"


def parsed(words: Sequence[str]) -> list[tuple[str, str]]:
    """``KEY=PATTERN`` words about machines. Raises UsageError for others."""
    found = []
    for word in words:
        key, equals, pattern = word.partition("=")
        if not equals or not key or not pattern:
            raise UsageError(f"{word!r} does not choose machines; write KEY=PATTERN: host=db*,"
                             " kernel=6.12.95, or a label such as rack=7")
        found.append((key, pattern))
    return found


@dataclass(frozen=True)
class Machines:
    """The machines of some series: ``number`` of each series, ``names`` by number, and in ``notes``
    what is odd about them: two of one name, one that was reinstalled, clocks that are ahead."""

    number: dict[int, int]
    names: list[str]
    notes: list[str] = field(default_factory=list)


def matching_series(series: list[dict[str, Any]], words: Sequence[str]) -> list[dict[str, Any]]:
    """The series whose machine matches all words; of one key several, any of them.

    Raises UsageError for a key that no machine has.
    """
    wanted: dict[str, list[str]] = {}
    for key, pattern in parsed(words):
        wanted.setdefault(key, []).append(pattern)
    known = {*_OF_MACHINES, *(key for row in series for key in _labels(row))}
    for key in wanted:
        if key not in known and series:
            raise UsageError(f"no machine has a label {key!r}; {near(key, sorted(known))}")
    return [row for row in series if all(
        any(_matches(_value(row, key), pattern) for pattern in patterns)
        for key, patterns in wanted.items())]


def _labels(row: dict[str, Any]) -> dict[str, str]:
    try:
        found = json.loads(row["labels"] or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _value(row: dict[str, Any], key: str) -> str | None:
    if key in _OF_MACHINES:
        value = row["boot_id" if key == "boot" else key]
        return None if value is None else str(value)
    value = _labels(row).get(key)
    return None if value is None else str(value)


def _matches(value: str | None, pattern: str) -> bool:
    return value is not None and (value == pattern or re.match(
        fnmatch.translate(pattern), value, re.IGNORECASE) is not None)


def machines_of(series: list[dict[str, Any]], until: float | None = None) -> Machines:
    """Which series are of one machine: those of one host's name, unless two with different machine
    ids, or two boots of machines without one, cross in time. ``until``: the present, beyond which
    a capture's clock was ahead."""
    by_host: dict[str, list[dict[str, Any]]] = {}
    for row in series:
        by_host.setdefault(row["host"] or "?", []).append(row)
    number: dict[int, int] = {}
    names: list[str] = []
    notes: list[str] = []
    for host in sorted(by_host):
        spans: dict[str, list[float]] = {}
        for row in by_host[host]:
            span = spans.setdefault(_identity(row), [row["first_s"], row["last_s"]])
            span[0], span[1] = min(span[0], row["first_s"]), max(span[1], row["last_s"])
        order = sorted(spans, key=spans.__getitem__)
        cross = any(spans[after][0] < spans[before][1] - _OVERLAP_S
                    for before, after in pairwise(order))
        if cross:
            notes.append(f"{len(order)} machines are named {host} at the same time; each counts by"
                         " itself")
            places = {identity: len(names) + place for place, identity in enumerate(order)}
            names += [f"{host} #{place}" for place in range(1, len(order) + 1)]
        else:
            ids = {row["machine"] for row in by_host[host] if row["machine"]}
            if len(ids) > 1:
                notes.append(f"{host} was reinstalled: {len(ids)} machine ids, one after the other;"
                             " they count as one machine")
            places = dict.fromkeys(order, len(names))
            names.append(host)
        number.update({row["series"]: places[_identity(row)] for row in by_host[host]})
    if until is not None:
        ahead = {row["host"] for row in series if row["last_s"] > until + 60}
        if ahead:
            notes.append(f"clocks that are ahead: {count_of(len(ahead), 'machine')}, such as"
                         f" {min(ahead)}, with captures from the future")
    return Machines(number, names, notes)


def _identity(row: dict[str, Any]) -> str:
    return str(row["machine"] or row["boot_id"] or "")


@dataclass(frozen=True)
class Owners:
    """Which owners: ``conditions`` in SQL, and the expression of the ``pages`` that count; ``unit``
    follows any number of pages where machines have pages of several sizes, and makes them so many
    of the smallest."""

    conditions: list[str]
    pages: str
    unit: str = ""


def owners_chosen(engine: Engine, chosen: Filter, unit: str = "") -> Owners:
    """What filters choose; each one's matching values become a table of the engine. ``unit``: see
    `Owners`.

    Raises UsageError for a filter that the tables cannot answer.
    """
    asked = chosen.given()
    ages = {name: _age(name, asked.pop(name)) for name in ("older", "newer") if name in asked}
    for name in asked:
        if name not in _FILTERS:
            raise UsageError(f"a fleet's tables do not have what --{name.replace('_', '-')} asks"
                             f" for; they have {', '.join(_FILTERS)}, older and newer")
    found = []
    for name, good in conditions(Filter(**asked)).items():
        column = _FILTERS[name]
        table, plain = ("owners o", column) if column.startswith("o.") else ("stacks st", column)
        values = engine.sql(f"SELECT DISTINCT {plain} AS value FROM {table}")["value"]
        matching = [value for value in values.to_pylist() if value is not None and good(value)]
        engine.register(f"chosen_{name}", pa.table({"value": pa.array(matching, values.type)}))
        found.append(f"{column} IN (SELECT value FROM chosen_{name})")
    older = f"coalesce(o.{ages['older']}, 0)" if "older" in ages else "o.pages"
    younger = f" - coalesce(o.{ages['newer']}, o.pages)" if "newer" in ages else ""
    return Owners(found, f"({older}{younger}){unit}", unit)


def _age(name: str, text: str) -> str:
    for age in AGES:
        if age_ns(age) == duration_ns(text):
            return age_column(age)
    raise UsageError(f"--{name} {text}: a fleet's tables tell apart {', '.join(AGES)}")


@dataclass
class Chosen:
    """What a question is about: ``series`` (rows of `questions.SERIES`) and their machines."""

    series: list[dict[str, Any]]
    machines: Machines
    owners: Owners

    @property
    def page_size(self) -> int:
        """Bytes of a page: the smallest, where machines differ."""
        return min(_page_sizes(self.series), default=4096)


def _page_sizes(series: list[dict[str, Any]]) -> set[int]:
    return {row[name] for row in series for name in ("page_size", "largest_page") if row[name]}


def choose(engine: Engine, since: float, until: float, words: Sequence[str],
           where: Filter | None = None, now: float | None = None) -> Chosen:
    """The series of a time whose machines match, registered as ``chosen_series``; ``now``: beyond
    which a capture's clock was ahead."""
    rows = engine.sql(questions.SERIES.format(since=since, until=until)).to_pylist()
    series = sorted(matching_series(rows, words), key=lambda row: row["series"])
    machines = machines_of(series, now)
    engine.register("chosen_series", pa.table({
        "series": pa.array([row["series"] for row in series], pa.int64()),
        "machine_no": pa.array([machines.number[row["series"]] for row in series], pa.int64())}))
    sizes = _page_sizes(series)
    # a quotient is a double in both engines, and exact: sizes are powers of two
    unit = (f" * CAST(coalesce(o.page_size, {min(sizes)}) / {min(sizes)} AS BIGINT)"
            if len(sizes) > 1 else "")
    return Chosen(series, machines, owners_chosen(engine, where or Filter(), unit))
