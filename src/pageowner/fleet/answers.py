"""Answers about a fleet as tables: owners across machines, before and after, who has a stack.

The columns that an owner is known by are named by their keys (``stack``, ``comm``, …). A stack is
its functions, innermost first, one a line, as in `diff`; the row of small owners is `SMALL` there,
null by other keys, and ``small`` is true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pageowner.errors import UsageError
from pageowner.fleet import questions
from pageowner.fleet.choosing import column_of, machines_of, matching_series
from pageowner.fleet.columns import SMALL
from pageowner.fleet.layout import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.fleet.choosing import Chosen
    from pageowner.fleet.engine import Engine

__all__ = ["FleetAnswer", "diff", "named", "report", "who_else"]

_MOST_OUT = 5
_SURE = 3.0  # standard deviations of the rank sum
_UNKNOWN_STACK = "(unknown stack {})"


@dataclass(frozen=True)
class FleetAnswer:
    """``owners``: a table; ``by``: the keys in it; ``machines`` and ``captures``: how many it is
    based on; ``notes``: problems that were noticed, a line each; ``page_size`` in bytes."""

    owners: pa.Table
    by: tuple[str, ...]
    machines: int
    captures: int
    page_size: int
    notes: list[str] = field(default_factory=list)


def named(engine: Engine, found: pa.Table, by: Sequence[str]) -> pa.Table:
    """A table with the columns k0… as the keys that they are, stacks as text, their ids beside."""
    columns: dict[str, Any] = {}
    for place, key in enumerate(by):
        column = found[f"k{place}"]
        if key != "stack":
            columns[key] = column
            continue
        ids = sorted({number for number in column.to_pylist() if number})
        engine.register("wanted_stacks", pa.table({"stack_id": pa.array(ids, pa.int64())}))
        texts = engine.sql("SELECT st.stack_id, st.stack FROM stacks st JOIN wanted_stacks w"
                           " ON st.stack_id = w.stack_id")
        text = dict(zip(texts["stack_id"].to_pylist(), texts["stack"].to_pylist(), strict=True))
        text |= {number: _UNKNOWN_STACK.format(digits(number)) for number in ids
                 if text.get(number) is None}
        values = column.to_pylist()
        columns["stack"] = pa.array([None if value is None else SMALL if value == 0 else
                                     text[value] for value in values], pa.string())
        columns["stack_id"] = pa.array([digits(value) if value else None for value in values],
                                       pa.string())
    rest = [name for name in found.column_names if not (name[:1] == "k" and name[1:].isdigit())]
    return pa.table({**columns, **{name: found[name] for name in rest}})


def _captures(engine: Engine, chosen: Chosen, since: float, until: float) -> pa.Table:
    """The last capture of each machine, registered as ``chosen_captures``."""
    found = engine.sql(questions.latest(since, until))
    engine.register("chosen_captures", found)
    return found


def report(engine: Engine, chosen: Chosen, by: Sequence[str], since: float, until: float,
           least_bytes: int) -> FleetAnswer:
    """Owners across machines, by the last capture of each machine.

    Columns: the keys; ``small``: whether it is the row of small owners; ``machines`` that have the
    owner; ``pages`` and ``blocks`` of all together, blocks of all ages even where pages are chosen
    by age, since the tables count none by age; ``p50``, ``p99`` and ``most``: pages of one
    machine, over all machines; ``out``: how many machines stand out; ``outliers``: the first of
    them, with host and pages (see `questions.report`). Most pages first.
    """
    captures = _captures(engine, chosen, since, until)
    keys = [*map(column_of, by), questions.IS_SMALL]
    about = (keys, chosen.owners.conditions, chosen.owners.pages, max(captures.num_rows, 1),
             max(least_bytes // chosen.page_size, 1))
    owners = engine.sql(questions.report(*about))
    standing = engine.sql(questions.out_of_line(*about)).to_pylist()
    out: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in standing:
        out.setdefault(tuple(row[f"k{place}"] for place in range(len(keys))), []).append(
            {"host": chosen.machines.names[row["machine_no"]], "pages": row["pages"]})
    rows = list(zip(*(owners[f"k{place}"].to_pylist() for place in range(len(keys))), strict=True))
    owners = pa.table({
        **{f"k{place}": owners[f"k{place}"] for place in range(len(by))},
        "small": pc.equal(owners[f"k{len(by)}"], 1),
        **{name: owners[name] for name in ("machines", "pages", "blocks", "p50", "p99", "most")}})
    owners = owners.append_column("out", pa.array([len(out.get(row, ())) for row in rows],
                                                  pa.int64()))
    owners = owners.append_column("outliers", pa.array(
        [out.get(row, [])[:_MOST_OUT] for row in rows],
        pa.list_(pa.struct({"host": pa.string(), "pages": pa.int64()}))))
    return FleetAnswer(named(engine, owners, by), tuple(by), captures.num_rows, captures.num_rows,
                       chosen.page_size, chosen.machines.notes)


def diff(engine: Engine, chosen: Chosen, by: Sequence[str], since: float, until: float,
         before: Sequence[str], after: Sequence[str]) -> FleetAnswer:
    """Owners on the machines before and after, which differ in kernel, label or host.

    Columns: the keys; ``small``: whether it is the row of small owners; ``before`` and ``after``:
    mean pages per machine; ``change``; ``had`` and ``have``: machines that have the owner;
    ``more``: of all pairs of a machine before and one after, the share in which the machine after
    has more, ties counted as half; ``sure``: whether chance is unlikely, because the rank sum is
    three standard deviations from its expected value (Mann-Whitney), and it is one owner, not the
    row of small ones. Owners that are ``sure`` come first, then by change times how often it was
    seen.

    Raises UsageError if a side has no machine, or if a series is on both sides.
    """
    sides = [matching_series(chosen.series, words) for words in (before, after)]
    for words, side in zip((before, after), sides, strict=True):
        if not side:
            raise UsageError(f"no machine matches {' '.join(words)}")
    if both := {row["series"] for row in sides[0]} & {row["series"] for row in sides[1]}:
        row = next(row for row in sides[0] if row["series"] in both)
        raise UsageError(f"{row['host']} is on both sides; say what differs between them")
    machines = [machines_of(side) for side in sides]
    numbers = [len(side.names) for side in machines]
    side_of = {row["series"]: (place, machines[place].number[row["series"]])
               for place, side in enumerate(sides) for row in side}
    captures = engine.sql(f"SELECT capture, series FROM captures WHERE taken_s >= {since!r}"
                          f" AND taken_s <= {until!r}")
    series = captures["series"].to_pylist()
    rows = [(number, *side_of[taken_by]) for number, taken_by in zip(
        captures["capture"].to_pylist(), series, strict=True) if taken_by in side_of]
    counted: dict[tuple[int, int], int] = {}
    for _, place, machine in rows:
        counted[place, machine] = counted.get((place, machine), 0) + 1
    engine.register("chosen_captures", pa.table({
        "capture": pa.array([row[0] for row in rows], pa.int64()),
        "side": pa.array([row[1] for row in rows], pa.int32()),
        "machine_no": pa.array([row[2] for row in rows], pa.int64()),
        "captures": pa.array([counted[row[1:]] for row in rows], pa.int64())}))
    keys = [*map(column_of, by), questions.IS_SMALL]
    found = engine.sql(questions.diff(keys, chosen.owners.conditions, chosen.owners.pages))
    found = _compared(found, len(by), *numbers)
    notes = [*machines[0].notes, *machines[1].notes]
    return FleetAnswer(named(engine, found, by), tuple(by), sum(numbers), len(rows),
                       chosen.page_size, notes)


def _compared(found: pa.Table, keys: int, before: int, after: int) -> pa.Table:
    """``keys``: how many; the column after them says whether a row is that of small owners."""
    had, have = (found[name].to_numpy() for name in ("had", "have"))
    # pairs of explicit rows, those with nothing before, and half of those with nothing at all
    more = (found["ranks"].to_numpy().astype(float) - have * (have + 1) / 2
            + have * (before - had) + (after - have) * (before - had) / 2)
    pairs = before * after
    spread = math.sqrt(pairs * (before + after + 1) / 12)
    mean_before = found["before"].to_numpy() / before
    mean_after = found["after"].to_numpy() / after
    share = more / pairs
    small = found[f"k{keys}"].to_numpy() == 1
    sure = (np.abs(more - pairs / 2) >= _SURE * spread) & ~small
    change = mean_after - mean_before
    weight = np.abs(change) * np.abs(2 * share - 1)
    labels = [found[f"k{place}"].to_pylist() for place in range(keys + 1)]
    tie = sorted(range(found.num_rows), key=lambda row: [
        (values[row] is None, str(values[row])) for values in labels])
    rank = np.empty(found.num_rows, np.int64)
    rank[tie] = np.arange(found.num_rows)
    order = pa.array(np.lexsort((rank, -np.round(weight, 6), ~sure)))
    columns = {f"k{place}": found[f"k{place}"] for place in range(keys)}
    return pa.table({**columns, "small": small, "before": mean_before, "after": mean_after,
                     "change": change, "had": had, "have": have, "more": share, "sure": sure,
                     }).take(order)


def who_else(engine: Engine, chosen: Chosen, since: float, until: float) -> FleetAnswer:
    """The machines that have memory which the filters select: one row for each series, most pages
    first.

    Columns: ``host``, ``kernel``, ``boot_id``, ``labels``, ``pages`` at the end, ``most`` pages at
    any time, ``captures`` that have it, ``first_s`` and ``last_s`` (seconds since 1970).
    """
    engine.register("chosen_captures", engine.sql(
        f"SELECT c.capture FROM captures c JOIN chosen_series s ON c.series = s.series"
        f" WHERE c.taken_s >= {since!r} AND c.taken_s <= {until!r}"))
    found = engine.sql(questions.who_else(chosen.owners.conditions, chosen.owners.pages)
                       ).to_pylist()
    about = {row["series"]: row for row in chosen.series}
    rows = [{**row, **{name: about[row["series"]][name]
                       for name in ("kernel", "boot_id", "labels")},
             "host": chosen.machines.names[chosen.machines.number[row["series"]]]}
            for row in found]
    rows.sort(key=lambda row: (-row["pages"], row["host"], row["series"]))
    names = ("host", "kernel", "boot_id", "labels", "pages", "most", "captures", "first_s",
             "last_s")
    types = {"pages": pa.int64(), "most": pa.int64(), "captures": pa.int64(),
             "first_s": pa.float64(), "last_s": pa.float64()}
    table = pa.table({name: pa.array([row[name] for row in rows], types.get(name, pa.string()))
                      for name in names})
    return FleetAnswer(table, (), len(chosen.machines.names), sum(row["captures"] for row in rows),
                       chosen.page_size, chosen.machines.notes)
