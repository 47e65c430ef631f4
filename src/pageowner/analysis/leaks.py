"""Which owners leak: whose pages grow steadily and stay, where those of others come and go.

`Watch` is shown all live pages again and again, as columns; `Watch.leaks` judges. What makes the
difference is the time of allocation of every page: an owner's *settled* pages are those at least
``settle_ns`` old. Most of the noise of a machine at work dies young and never settles, so that the
trend of settled pages shows a slow leak even beneath an owner's own coming and going.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import (
    Key,
    blocks_pages,
    check_keys,
    coded_stacks,
    key,
    key_names,
    times,
)
from pageowner.analysis.leak_rules import FINE, PARTS, Evidence, evidence
from pageowner.analysis.owners import groups
from pageowner.analysis.reclaimable import is_reclaimable
from pageowner.analysis.sampled import share
from pageowner.errors import UsageError
from pageowner.model.live import TASK
from pageowner.model.source_kinds import kind_of, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot

__all__ = ["KINDS", "LEAST_SAMPLES", "Leaks", "Rows", "Watch",
           "Watched", "available_pages", "least_rows", "of_snapshots", "programs", "rows_of",
           "settling_ns"]

KINDS = ("leak", "reclaimable", "grows")
"""What a growing owner is: it leaks; so would it, but the kernel can take the pages back (page
cache, reclaimable slab); it is a suspect, which has more pages than at first, and more settled
ones, and fails one of the rules of `leak_rules`."""

LEAST_SAMPLES = 4
"""With fewer no trend is unlikely to be chance: three values rise in one of six orders."""

_LEAST_CHOSEN = PARTS
"""One a part of the time, of objects chosen by chance."""

_HOUR_NS = 3600 * 10**9
_TASKS = 3


@dataclass(frozen=True)
class Watched:
    """What was watched: ``looks`` in ``seconds``; ``owners``: their number, grouped by ``by``;
    ``page_size`` in bytes; ``available``: pages of available memory at the end (None: unknown)."""

    name: str
    seconds: float
    looks: int
    owners: int
    by: Sequence[str]
    page_size: int
    available: int | None = None
    untracked: dict[str, int] | None = None
    commands: dict[int, str] | None = None
    """Command lines of processes that run yet, by tgid."""
    room: str = "available"
    """What ``available`` is: MemAvailable, or of a snapshot what it knows."""
    times_from: str = ""
    """Where the times of looks are from, if the sources do not say them."""
    earlier: int = 0
    """Captures of the same folders that were left out: of another boot or time of tracking."""


@dataclass(frozen=True)
class Leaks:
    """``owners``: the table of `Watch.leaks`, in pages and pages per hour; ``watched``: what it is
    based on."""

    owners: pa.Table
    watched: Watched


class Rows(NamedTuple):
    """The live blocks at one moment: ``keys`` (one code a row each), base ``pages`` (int64),
    ``ts`` (uint64 ns since boot; 0 where unknown, that is older than all), ``reclaimable`` (bool),
    ``note``, what is said of rows without an owner (a `Key`; null for the others), ``program``,
    the tgid of whose memory it is where it is a process's own and keys do not say, and ``called``,
    the names of these processes (`programs`); ``comm`` and ``tgid``, by whom each was allocated.
    """

    keys: list[Key]
    pages: NDArray[np.int64]
    ts: NDArray[np.uint64]
    reclaimable: NDArray[np.bool_]
    note: Key
    program: Key
    called: dict[int, str]
    comm: Key | None = None
    tgid: Key | None = None


@dataclass
class _Series:
    """Of one owner, by sample: its live pages, those settled, and those that settled since the
    sample before; what its process is called, if it is one."""

    since: int
    called: str = ""
    pages: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)
    aged: bool = True


class Watch:
    """All owners at all looks so far, and whether they leak."""

    def __init__(self, by: str | Sequence[str], settle_ns: int, since_ns: int = 0,
                 least_rows: int = 0) -> None:
        """Owners by ``by``; pages at least ``settle_ns`` old are settled; times of allocation are
        known from ``since_ns`` on (ns since boot), when tracking began. Who grew by less than
        ``least_rows`` rows is left out: where one in many is a row, few of them are chance."""
        self.names = key_names(list(by) if not isinstance(by, str) else by)
        self.settle_ns = settle_ns
        self.since_ns = since_ns
        self.least_rows = least_rows
        self.times: list[int] = []
        self.meta: Metadata | None = None  # of the last snapshot, if looks are such
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._forgotten = 0
        self._last: tuple[list[tuple[Any, ...]], NDArray[np.int64], Rows] | None = None

    def add(self, time_ns: int, rows: Rows, others: dict[str, int] | None = None) -> None:
        """Add a look: the live blocks at ``time_ns`` (ns since boot, later than the previous look).
        ``others``: pages of which only the number is known, by what they are. If this call is
        interrupted, it has no effect."""
        place, last = len(self.times), self._last
        try:
            self._add(time_ns, rows, others or {})
        except BaseException:
            self._take_back(place)
            self._last = last
            raise
        self._forget(place)

    def add_snapshot(self, snapshot: Snapshot, time_ns: int, aged: bool = True) -> None:
        """Add a snapshot as a look at ``time_ns``, as `add`; ``aged``: of that clock are the times
        of allocation, too. The first says when tracking began, and one in how many is a row.

        Raises UsageError if it is of another boot, time of tracking or kind than the snapshot
        before, or not later.
        """
        meta, before = snapshot.meta, self.meta
        if before is not None and meta.boot_id != before.boot_id:
            raise UsageError("the snapshots are from different machines or boots; compare them"
                             " with 'pageowner diff'")
        since_ns = meta.extra.get("since_ns") or self.since_ns
        if before is not None and self.since_ns and since_ns != self.since_ns:
            raise UsageError("tracking was turned off and on between the snapshots; a series is of"
                             " one time of tracking")
        if before is not None and unit_of(meta) != unit_of(before):
            raise UsageError(f"{meta.source or 'a snapshot'}: {kind_of(meta).title} in a series"
                             " of others; a series is of one kind")
        if self.times and time_ns <= self.times[-1]:
            when = f" of {meta.taken_at}" if meta.taken_at else ""
            raise UsageError(f"{meta.source or 'a snapshot'}{when}: not later than the previous"
                             " snapshot")
        rows = rows_of(snapshot, self.names)
        if before is None:
            self.since_ns = meta.extra.get("since_ns") or 0
            self.least_rows = least_rows(share(meta))
        self.add(time_ns, rows if aged else rows._replace(ts=np.zeros_like(rows.ts)))
        self.meta = meta

    def _add(self, time_ns: int, rows: Rows, others: dict[str, int]) -> None:
        keys = [*rows.keys, rows.note, rows.program]
        flag = Key("reclaimable", rows.reclaimable.astype(np.int64), pa.array([False, True]))
        group, number, codes = groups([*keys, flag], len(rows.pages))
        labels = []
        for labelled, code in zip([*keys, flag], codes, strict=True):
            values = labelled.labels.to_pylist()
            labels.append([values[place] for place in code.tolist()])
        owners = list(zip(*labels, strict=True))
        # Pages of no known time (0) are older than all.
        is_aged = rows.ts > 0
        settled = (rows.ts + np.uint64(self.settle_ns) <= np.uint64(time_ns)) | ~is_aged
        before = self.times[-1] if self.times else time_ns
        arrived = settled & is_aged & (rows.ts + np.uint64(self.settle_ns) > np.uint64(before))
        sums = [np.bincount(group, weights, minlength=number).astype(np.int64).tolist()
                for weights in (rows.pages, np.where(settled, rows.pages, 0),
                                np.where(arrived, rows.pages, 0), is_aged)]
        place = len(self.times)
        self.times.append(time_ns)
        for owner, *counted in zip(owners, *sums, strict=True):
            self._append(owner, place, *counted[:3])
            series = self._series[owner]
            series.aged &= counted[3] > 0 or not counted[0]
            if owner[-2] is not None:
                series.called = rows.called[owner[-2]]
        for note, pages in others.items():
            owner = (*(None for _ in rows.keys), note, None, False)
            self._append(owner, place, pages, pages, 0)
            self._series[owner].aged = False
        self._last = owners, group, rows

    def _take_back(self, place: int) -> None:
        """What of sample ``place`` was added."""
        del self.times[place:]
        self._series = {owner: series for owner, series in self._series.items()
                        if series.since < place}
        for series in self._series.values():
            for column in (series.pages, series.settled, series.arrived):
                del column[place - series.since:]

    def _forget(self, place: int) -> None:
        """Drop the owners that are tasks, had nothing at the first sample and have nothing at this
        one: those that come and go have no end, and would fill memory.

        That changes neither what one that comes again has gained since the first sample nor
        whether it leaks. Who has no page now has at last none that was allocated before now, and so
        is not steady, unless now is in the first tenth of the time. Its series alone begins anew.
        """
        of_tasks = bool(set(TASK) & set(self.names))
        gone = [owner for owner, series in self._series.items()
                if series.since and (of_tasks or owner[-2] is not None)
                and series.since + len(series.pages) <= place]
        for owner in gone:
            del self._series[owner]
        self._forgotten += len(gone)

    def _append(self, owner: tuple[Any, ...], place: int, pages: int, settled: int,
                arrived: int) -> None:
        series = self._series.get(owner)
        if series is None:
            series = self._series[owner] = _Series(place)
        missing = place - series.since - len(series.pages)
        for column, value in ((series.pages, pages), (series.settled, settled),
                              (series.arrived, arrived)):
            column.extend([0] * missing)
            column.append(value)

    @property
    def owners(self) -> int:
        """The number of owners so far; a task that had no pages for a while counts again as a new
        one."""
        return len(self._series) + self._forgotten

    def leaks(self, min_pages: int = 256) -> pa.Table:
        """A row for each owner whose settled pages grew by ``min_pages`` or more in the watched
        time, by its trend: leaks first, the fastest first; suspects last, by how much stays.

        Columns:

        - the keys; ``note``: what pages without an owner are; ``program``: whose private memory it
          is; ``kind``: one of `KINDS`
        - ``pages``: at the end; ``gained``: how many more than at the first look
        - ``rate``, ``rate_low`` and ``rate_high``: the trend of the settled pages and its 95 %
          interval, in pages per hour; ``p``, of Mann-Kendall; ``tau``
        - ``survival``: of the pages that settled, the share that lives at the end (null if ages are
          unknown); ``steady``: the share of the time in which pages were added that live at the
          end; ``bursts``: the number of bursts, with pauses between them
        - ``each``: pages of a block on average, at the end; null if there is none
        - ``settled``: the pages that settled in the watched time; ``stayed``: those of them that
          live at the end (null if ages are unknown)
        - ``failed``: which rules it fails (`leak_rules.FAILED`); ``confidence``: (1 - p) x survival
          x steady
        - ``series``: the pages at each look; ``settled_series``: the settled pages
        - ``came``: the pages that came after the first look and live at the end, 0 if ages or tasks
          are unknown; ``tasks``: who allocated most of them: comm, tgid and pages

        Raises UsageError if there were fewer than `LEAST_SAMPLES` looks.
        """
        if len(self.times) < LEAST_SAMPLES:
            raise UsageError(f"a trend takes at least {LEAST_SAMPLES} looks,"
                             f" there were {len(self.times)}")
        births, each = self._births(), self._row_pages()
        found = [self._judge(owner, series, max(
                    min_pages, round(self.least_rows * each.get(owner, 0))), births.get(owner))
                 for owner, series in self._series.items()]
        # What has no more pages than at first has not grown: older ones of it have settled.
        rows = [row | {"each": each.get(row["owner"])} for row in found
                if row is not None and (row["kind"] != "grows" or row["gained"] > 0)]
        rows.sort(key=lambda row: (KINDS.index(row["kind"]), -row["rate_low"], -row["rate"])
                  if row["kind"] != "grows" else
                  (KINDS.index("grows"), -(row["stayed"] or 0), -row["gained"]))
        for row in rows:
            row["tasks"], row["came"] = self._tasks(row.pop("owner"))
        names = [*self.names, *_COLUMNS]
        return pa.table({name: pa.array([row[name] for row in rows], _COLUMNS.get(name))
                         for name in names})

    def _tasks(self, owner: tuple[Any, ...]) -> tuple[list[dict[str, Any]], int]:
        if self._last is None:
            return [], 0
        owners, group, rows = self._last
        if rows.comm is None or rows.tgid is None or owner not in owners:
            return [], 0
        new = (group == owners.index(owner)) & (rows.ts > np.uint64(self.times[0]))
        width = max(len(rows.tgid.labels), 1)
        pairs, at = np.unique(rows.comm.codes[new] * width + rows.tgid.codes[new],
                              return_inverse=True)
        pages = np.bincount(at, rows.pages[new], len(pairs)).astype(np.int64)
        return [{"comm": rows.comm.labels[int(pairs[pair]) // width].as_py(),
                 "tgid": rows.tgid.labels[int(pairs[pair]) % width].as_py(),
                 "pages": int(pages[pair])} for pair in np.argsort(-pages, kind="stable")[:_TASKS]
                ], int(pages.sum())

    def table(self) -> pa.Table:
        """All owners, without judgement, except tasks that had no pages at the first and the last
        look: the keys, ``note``, ``program``, ``reclaimable``, and for each look ``series``, the
        pages, and ``settled``, the settled pages."""
        names = [*self.names, "note", "program", "reclaimable"]
        columns: dict[str, Any] = {
            name: [owner[place] for owner in self._series] for place, name in enumerate(names)}
        columns["program"] = [_program(owner, series) for owner, series in self._series.items()]
        columns["series"] = [self._full(series.pages, series.since).astype(np.int64).tolist()
                             for series in self._series.values()]
        columns["settled"] = [self._full(series.settled, series.since).astype(np.int64).tolist()
                              for series in self._series.values()]
        return pa.table(columns)

    def _full(self, values: list[int], since: int) -> NDArray[np.float64]:
        series = np.zeros(len(self.times))
        series[since:since + len(values)] = values  # 0 again where it had none at last
        return series

    def _row_pages(self) -> dict[tuple[Any, ...], float]:
        """How many pages a row of each owner has on average, at last."""
        if self._last is None:
            return {}
        owners, group, rows = self._last
        number = np.bincount(group, minlength=len(owners))
        pages = np.bincount(group, rows.pages, len(owners))
        return dict(zip(owners, (pages / np.maximum(number, 1)).tolist(), strict=True))

    def _births(self) -> dict[tuple[Any, ...], NDArray[np.int64]]:
        """The pages that live at last by time of allocation: equal parts of the time in which a
        page could be allocated and settle, without what was before tracking began."""
        if self._last is None:
            return {}
        owners, group, rows = self._last
        start, stop = self.times[0] - self.settle_ns, self.times[-1] - self.settle_ns
        number = min(PARTS, len(self.times) - 1)
        width = max((stop - start) // number, 1)
        if start < self.since_ns < stop:  # as long parts, but fewer
            start = self.since_ns
            number = max((stop - start) // width, 1)
        number *= FINE
        width = max((stop - start) // number, 1)
        ts = rows.ts.astype(np.int64)
        inside = (ts > start) & (ts <= stop)
        part = np.minimum((ts[inside] - start - 1) // width, number - 1)
        counted = np.bincount(group[inside] * number + part, rows.pages[inside],
                              len(owners) * number).astype(np.int64).reshape(-1, number)
        return dict(zip(owners, counted, strict=True))

    def _judge(self, owner: tuple[Any, ...], series: _Series, min_pages: int,
               births: NDArray[np.int64] | None) -> dict[str, Any] | None:
        settled = self._full(series.settled, series.since)
        if settled[-1] - settled[0] < min_pages:
            return None
        at = (np.array(self.times) - self.times[0]).astype(float)
        pages = self._full(series.pages, series.since)
        found = evidence(at, settled, sum(series.arrived) if series.aged else None, births,
                         min_pages)
        reclaimable = owner[-1]
        kind = "grows" if found.failed else "reclaimable" if reclaimable else "leak"
        return dict(zip(self.names, owner, strict=False)) | {
            "owner": owner, "note": owner[-3], "program": _program(owner, series), "kind": kind,
            "reclaimable": reclaimable,
            "pages": int(pages[-1]), "gained": int(pages[-1] - pages[0]),
            **_evident(found), "series": pages.astype(np.int64).tolist(),
            "settled_series": settled.astype(np.int64).tolist()}


def _program(owner: tuple[Any, ...], series: _Series) -> str | None:
    return None if owner[-2] is None else f"{series.called} (pid {owner[-2]})"


def _evident(found: Evidence) -> dict[str, Any]:
    """Columns of `Watch.leaks`."""
    return {"rate": found.trend.slope * _HOUR_NS, "rate_low": found.trend.low * _HOUR_NS,
            "rate_high": found.trend.high * _HOUR_NS, "p": found.trend.p, "tau": found.trend.tau,
            "survival": found.survival, "steady": found.steady, "bursts": found.bursts,
            "settled": found.settled, "stayed": found.stayed, "failed": list(found.failed),
            "confidence": found.confidence}


_COLUMNS: dict[str, pa.DataType] = {
    "note": pa.string(), "program": pa.string(), "kind": pa.string(), "reclaimable": pa.bool_(),
    "pages": pa.int64(), "gained": pa.int64(), "each": pa.float64(), "rate": pa.float64(),
    "rate_low": pa.float64(), "rate_high": pa.float64(), "p": pa.float64(), "tau": pa.float64(),
    "survival": pa.float64(),
    "steady": pa.float64(), "bursts": pa.int64(), "settled": pa.int64(), "stayed": pa.int64(),
    "failed": pa.list_(pa.string()), "confidence": pa.float64(), "series": pa.list_(pa.int64()),
    "settled_series": pa.list_(pa.int64()), "came": pa.int64(),
    "tasks": pa.list_(pa.struct({"comm": pa.string(), "tgid": pa.int64(), "pages": pa.int64()}))}


def least_rows(one_in: int) -> int:
    """By how many rows an owner must have grown where one object in so many is a row."""
    return _LEAST_CHOSEN if one_in > 1 else 0


def settling_ns(window_ns: int) -> int:
    """The age from which pages count as settled: a sixth of the time that is watched."""
    return window_ns // 6


def rows_of(snapshot: Snapshot, names: Sequence[str]) -> Rows:
    """A snapshot's rows by ``names``; pages without an owner are noted by what their flags say."""
    from pageowner.analysis import coded
    from pageowner.analysis.subsystems import PRIVATE

    check_keys(snapshot, names)
    keys = [key(snapshot, name) for name in names]
    state = key(snapshot, "state")
    owned = np.array([label in (None, "owned") for label in state.labels.to_pylist()],
                     bool)[state.codes]
    use = key(snapshot, "subsystem")
    ts, _ = times(snapshot)
    stacks = key(snapshot, "stack")
    of_stacks = coded.labels_of(stacks.labels,
                                coded.subsystems(coded_stacks(snapshot))).to_pylist()
    private = np.array([label in PRIVATE for label in of_stacks], bool)[stacks.codes] & owned
    cache = is_reclaimable(snapshot, of_stacks)
    labels = [*use.labels.to_pylist(), None]
    note = Key("note", np.where(owned, len(labels) - 1, use.codes), pa.array(labels, pa.string()))
    comm, tgid = key(snapshot, "comm"), key(snapshot, "pid")
    program, called = programs(names, private, comm, key(snapshot, "tid"), tgid)
    return Rows(keys, blocks_pages(snapshot), ts, cache & owned, note, program, called, comm, tgid)


def programs(names: Sequence[str], private: NDArray[np.bool_], comm: Key, pid: Key,
             tgid: Key) -> tuple[Key, dict[int, str]]:
    """Of the rows that are ``private``, the memory of processes, each's tgid; null for others, and
    for all where the keys ``names`` tell tasks apart already. And what each process is called: as
    its first thread is, or, if that has no page, as the thread with most rows.

    All programs take their memory through the same few stacks. As one owner, the many that come
    and go would hide the one that leaks, and one that grows would make them all look so.
    """
    nobody = Key("program", np.zeros(len(private), np.int64), pa.nulls(1, pa.int64()))
    if set(TASK) & set(names) or not private.any():
        return nobody, {}
    width = len(comm.labels)
    tgids = np.array([-1 if task is None else task for task in tgid.labels.to_pylist()], np.int64)
    pids = np.array([-2 if task is None else task for task in pid.labels.to_pylist()], np.int64)
    first = pids[pid.codes[private]] == tgids[tgid.codes[private]]
    kinds, inverse, rows = np.unique(
        (tgid.codes[private] * width + comm.codes[private]) * 2 + first,
        return_inverse=True, return_counts=True)
    of_kind = tgids[kinds // 2 // width]
    order = np.lexsort((rows, kinds % 2))  # the last of a process names it
    comms = comm.labels.to_pylist()
    called = {int(of_kind[place]): comms[int(kinds[place]) // 2 % width] or "?" for place in order}
    called.pop(-1, None)
    # What is of an unknown process is nobody's, too: a label stands for one owner.
    found, place = np.unique(np.append(of_kind, -1), return_inverse=True)
    nobody.codes[private] = place[inverse]
    labels = [None, *found[1:].tolist()]
    return Key("program", nobody.codes, pa.array(labels, pa.int64())), called


def of_snapshots(snapshots: Iterable[Snapshot], by: str | Sequence[str],
                 window_ns: int, times: Sequence[int] | None = None) -> Watch:
    """What a series of snapshots shows, oldest first, over ``window_ns`` in all. ``times``: when
    each was taken (ns, increasing), where they do not say.

    Raises UsageError as `Watch.add_snapshot`.
    """
    from pageowner.analysis.select import newest_ns

    watch = Watch(by, settling_ns(window_ns))
    for place, snapshot in enumerate(snapshots):
        # Such times are of another clock than those of allocations.
        watch.add_snapshot(snapshot, newest_ns(snapshot) if times is None else times[place],
                           aged=times is None)
    return watch


def available_pages(snapshot: Snapshot) -> int | None:
    """Free pages and page cache, where the source sees all of memory, else None."""
    free = snapshot.meta.frames.get("free")
    if free is None:
        return None
    use = key(snapshot, "subsystem")
    cache = np.array([str(label).startswith("page cache") for label in use.labels.to_pylist()],
                     bool)[use.codes]
    return free + int(blocks_pages(snapshot)[cache].sum())
