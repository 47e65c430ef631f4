"""Which machines leak: every owner of every boot, by the rules of ``pageowner leaks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.leaks import LEAST_SAMPLES
from pageowner.analysis.reclaimable import RECLAIMABLE
from pageowner.analysis.subsystems import PRIVATE
from pageowner.fleet import questions
from pageowner.fleet.answers import FleetAnswer, named
from pageowner.fleet.choosing import column_of
from pageowner.fleet.columns import AGES, age_column
from pageowner.fleet.leaking import Ages, Series, ages_for, judge
from pageowner.report.text import age, count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pageowner.fleet.choosing import Chosen, Owners
    from pageowner.fleet.engine import Engine

__all__ = ["leaks"]

_HOUR = 3600.0
_PIECE = 5000
"""Owners that are looked at together: their series are in memory at once."""


class _Run(NamedTuple):
    """One boot of a machine: its captures by the clock that nobody sets, in order, and the classes
    of age that tell about so long a time."""

    series: int
    machine_no: int
    captures: NDArray[np.int64]
    clock_s: NDArray[np.float64]
    last_s: float
    ages: Ages


def leaks(engine: Engine, chosen: Chosen, by: Sequence[str], since: float, until: float,
          least_bytes: int, watched_s: float = 86400.0) -> FleetAnswer:
    """Owners that leak, each boot of a machine judged by itself. Boots that were watched for less
    than ``watched_s`` are not judged, because memory that follows the time of day grows for half of
    it.

    Columns: ``host``, ``kernel``, ``boot_id``, ``labels``, the keys, ``note`` (what pages without
    an owner are), ``program`` (whose private memory it is), ``kind`` (``leak``, or ``reclaimable``:
    a leak by the rules, but the kernel can reclaim the pages), ``pages`` at the end, ``gained``,
    ``rate``, ``rate_low``, ``rate_high`` (pages per hour), ``p``, ``survival``, ``steady``,
    ``bursts``, ``confidence``, the ``hours`` watched and the number of ``looks``, ``last_s``
    (seconds since 1970). Leaks come first, the fastest first.
    """
    runs = _runs(engine, chosen, since, until, watched_s)
    keys = [*(column_of(key) for key in by), *_beside(by)]
    least = max(least_bytes // chosen.page_size, 1)
    found = _found(engine, runs, keys, chosen.owners, least) if runs else []
    found.sort(key=lambda row: (row["kind"] != "leak", -row["rate_low"], -row["rate"],
                                row["host_no"], row["series"]))
    series = {row["series"]: row for row in chosen.series}
    for row in found:
        row |= {name: series[row["series"]][name] for name in ("kernel", "boot_id", "labels")}
        row["host"] = chosen.machines.names[row["host_no"]]
    columns = {name: pa.array([row[name] for row in found], kind)
               for name, kind in (*_HEAD.items(), *_key_types(by), *_TAIL.items())}
    table = named(engine, pa.table(columns), by)
    machines = {runs[run].machine_no for run in range(len(runs))}
    short = len(chosen.series) - len(runs)
    notes = list(chosen.machines.notes)
    if short:
        notes.append(f"{count_of(short, 'boot')} not judged: fewer than {LEAST_SAMPLES} captures,"
                     f" or watched for less than {age(watched_s * 1e9)} (--watched)")
    return FleetAnswer(table.select([*_HEAD, *(name for key in by for name in (
        (key, "stack_id") if key == "stack" else (key,))), *_TAIL]), tuple(by), len(machines),
        sum(len(run.captures) for run in runs), chosen.page_size, notes)


def _found(engine: Engine, runs: list[_Run], keys: Sequence[str], owners: Owners, least: int,
           ) -> list[dict[str, Any]]:
    """The owners of all runs that leak, by `_judged`."""
    settled = sorted({run.ages.settled for run in runs})
    _register(engine, runs, settled)
    growing = engine.sql(questions.growing(keys, owners.conditions, settled, least,
                                           owners.unit))
    ages = [column for column in map(age_column, AGES)
            if any(column in run.ages.columns for run in runs)]
    found: list[dict[str, Any]] = []
    for start in range(0, growing.num_rows, _PIECE):
        engine.register("wanted", _wanted(growing.slice(start, _PIECE), runs))
        rows = engine.sql(questions.series_of_owners(keys, owners.conditions, ages,
                                                     owners.unit))
        found += _judged(rows, runs, ages, len(keys), least)
    return found


_HEAD = {"host": pa.string(), "kernel": pa.string(), "boot_id": pa.string(),
         "labels": pa.string()}
_TAIL = {"note": pa.string(), "program": pa.string(), "kind": pa.string(), "pages": pa.int64(),
         "gained": pa.int64(), "rate": pa.float64(), "rate_low": pa.float64(),
         "rate_high": pa.float64(), "p": pa.float64(), "survival": pa.float64(),
         "steady": pa.float64(), "bursts": pa.int64(), "confidence": pa.float64(),
         "hours": pa.float64(), "looks": pa.int64(), "last_s": pa.float64()}


def _key_types(by: Sequence[str]) -> list[tuple[str, pa.DataType]]:
    kinds = {"stack": pa.int64(), "order": pa.int32()}
    return [(f"k{place}", kinds.get(key, pa.string())) for place, key in enumerate(by)]


def _beside(by: Sequence[str]) -> list[str]:
    """What tells owners apart beside the keys, as in ``leaks``: what pages without an owner are,
    whose private memory it is, and whether the kernel can take it back."""
    private = ", ".join(f"'{name}'" for name in sorted(PRIVATE))
    cache = ", ".join(f"'{name}'" for name in sorted(RECLAIMABLE))
    program = ("CASE WHEN o.pages < 0 THEN o.comm END" if "comm" in by else
               f"CASE WHEN o.subsystem IN ({private}) AND o.state = 'owned' THEN o.comm END")
    return ["CASE WHEN o.state <> 'owned' THEN o.subsystem END", program,
            f"CASE WHEN o.state = 'owned' AND (o.subsystem IN ({cache}) OR"
            " coalesce(o.migratetype, '') = 'Reclaimable') THEN 'yes' ELSE 'no' END"]


def _runs(engine: Engine, chosen: Chosen, since: float, until: float,
          watched_s: float) -> list[_Run]:
    """The boots that were captured often enough and long enough to be judged."""
    found = engine.sql(
        "SELECT c.capture, c.series, s.machine_no, coalesce(c.clock_s, c.taken_s) AS clock_s,"
        " c.taken_s FROM captures c JOIN chosen_series s ON c.series = s.series"
        f" WHERE c.taken_s >= {since!r} AND c.taken_s <= {until!r}")
    series, clock, capture, machine, taken = (found[name].to_numpy() for name in (
        "series", "clock_s", "capture", "machine_no", "taken_s"))
    order = np.lexsort((capture, clock, series))
    edges = np.flatnonzero(np.diff(series[order])) + 1
    runs = []
    for rows in np.split(order, edges):
        if not len(rows):
            continue
        rows = rows[np.concatenate([[True], np.diff(clock[rows]) > 0])]  # one a moment
        span = float(clock[rows[-1]] - clock[rows[0]])
        ages = ages_for(span)
        if len(rows) >= LEAST_SAMPLES and span >= watched_s and ages is not None:
            runs.append(_Run(int(series[rows[0]]), int(machine[rows[0]]), capture[rows],
                             clock[rows], float(taken[rows].max()), ages))
    return runs


def _span(run: _Run) -> float:
    return float(run.clock_s[-1] - run.clock_s[0])


def _register(engine: Engine, runs: list[_Run], settled: Sequence[str]) -> None:
    """The captures of all runs, each with its place in the run: weights by which a sum over a run
    is the last less the first, and the mean of the last third less that of the first."""
    number, end, third, column = [], [], [], []
    for place, run in enumerate(runs):
        length = len(run.captures)
        share = max(length // 3, 1)
        ends, thirds = np.zeros(length, np.int64), np.zeros(length)
        ends[0], ends[-1] = -1, 1
        thirds[:share], thirds[-share:] = -1 / share, 1 / share
        number.append(np.full(length, place, np.int64))
        column.append(np.full(length, settled.index(run.ages.settled), np.int32))
        end.append(ends)
        third.append(thirds)

    def joined(parts: Sequence[NDArray[Any]], kind: str) -> NDArray[Any]:
        return np.concatenate([np.zeros(0, kind), *parts]).astype(kind)

    engine.register("chosen_captures", pa.table({
        "capture": joined([run.captures for run in runs], "int64"),
        "clock_s": joined([run.clock_s for run in runs], "float64"),
        "run": joined(number, "int64"), "settled_no": joined(column, "int32"),
        "weight_end": joined(end, "int64"), "weight_third": joined(third, "float64")}))


def _wanted(growing: pa.Table, runs: list[_Run]) -> pa.Table:
    """Each owner of a run with every capture of the run."""
    run = growing["run"].to_numpy()
    lengths = np.array([len(runs[number].captures) for number in run.tolist()], np.int64)
    repeated = growing.take(pa.array(np.repeat(np.arange(len(run)), lengths)))
    columns = {"capture": np.concatenate([runs[number].captures for number in run.tolist()]),
               "clock_s": np.concatenate([runs[number].clock_s for number in run.tolist()])}
    return pa.table({**columns, **{name: repeated[name].combine_chunks()
                                   for name in growing.column_names}})


def _judged(rows: pa.Table, runs: list[_Run], ages: Sequence[str], keys: int, least: int,
            ) -> Iterator[dict[str, Any]]:
    names = [f"k{place}" for place in range(keys)]
    codes = [rows[name].combine_chunks().dictionary_encode() for name in names]
    numbers = [code.indices.fill_null(-1).to_numpy() for code in codes]
    run, clock = rows["run"].to_numpy(), rows["clock_s"].to_numpy()
    order = np.lexsort((clock, *numbers, run))
    if not len(order):
        return
    apart = np.zeros(len(order) - 1, bool)
    for values in (run, *numbers):
        apart |= np.diff(values[order]) != 0
    pages = rows["pages"].to_numpy()
    by_age = np.stack([rows[column].fill_null(-1).to_numpy() for column in ages], axis=1)
    for part in np.split(order, np.flatnonzero(apart) + 1):
        about = runs[int(run[part[0]])]
        classes = [ages.index(column) for column in about.ages.columns]
        series = _full(about, clock[part], pages[part], by_age[part][:, classes])
        found = judge(series, about.ages, least)
        if found.failed:
            continue
        key = [rows[name][int(part[0])].as_py() for name in names]
        *labels, note, program, reclaimable = key
        yield {**dict(zip(names, labels, strict=False)), "host_no": about.machine_no,
               "series": about.series, "note": note, "program": program,
               "kind": "reclaimable" if reclaimable == "yes" else "leak",
               "pages": int(series.pages[-1]),
               "gained": int(series.pages[-1] - series.pages[0]),
               "rate": found.trend.slope * _HOUR, "rate_low": found.trend.low * _HOUR,
               "rate_high": found.trend.high * _HOUR, "p": found.trend.p,
               "survival": found.survival, "steady": found.steady, "bursts": found.bursts,
               "confidence": found.confidence,
               "hours": float(about.clock_s[-1] - about.clock_s[0]) / _HOUR,
               "looks": len(about.captures), "last_s": about.last_s}


def _full(run: _Run, clock: NDArray[np.float64], pages: NDArray[np.int64],
          by_age: NDArray[np.int64]) -> Series:
    """A series with all captures of its run: none where the owner had nothing."""
    place = np.searchsorted(run.clock_s, clock)
    all_pages = np.zeros(len(run.clock_s), np.int64)
    all_pages[place] = pages
    if (by_age < 0).all():
        return Series(run.clock_s, all_pages, None)
    all_ages = np.zeros((len(run.clock_s), by_age.shape[1]), np.int64)
    all_ages[place] = np.maximum(by_age, 0)
    return Series(run.clock_s, all_pages, all_ages)
