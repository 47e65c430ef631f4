"""The live pages counted by kind, again and again, for the live view.

The records are read in place and counted by stack and task before anything is looked up, so that a
look costs what reading the records costs. Page flags are read for a small part of memory at each
look, which goes round: what it finds stale is a sample of what a capture would find.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel import gfp, kallsyms, pageflags, zones
from pageowner.model.hook_states import is_whole
from pageowner.model.live import Health, Look
from pageowner.tracker import control
from pageowner.tracker.read import reading
from pageowner.tracker.read.charges import Charges
from pageowner.tracker.read.decoding import StackTexts, Task, encoded, tasks
from pageowner.tracker.read.maps import EARLY, FILTERED, OWNED, RECORD, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Span, Store

__all__ = ["Tally"]

_PATROL = 1 << 14
_SELDOM_NS = 10 * 10**9
_MANY_TASKS = 1 << 16
_LOST = ("out_of_range", "stacks_full", "stacks_failed", "tasks_full", "bulk_missed", "contended",
         "overwritten")


class _Asked:
    """What to count: further ``fields``, blocks allocated ``since`` and ``until``; those after
    ``last`` are born since the last look."""

    def __init__(self, fields: frozenset[str], last: int, now: int, least_age: int | None,
                 most_age: int | None) -> None:
        self.fields = fields
        self.last = np.uint64(last or now)
        self.until = np.uint64(max(now - (least_age or 0), 0))
        self.since = np.uint64(0 if most_age is None else max(now - most_age, 0))


class Tally:
    """Counts the live pages of a running tracker."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.symbols = kallsyms.load()
        self.gfp = gfp.running()
        self.zones = zones.running()
        self.health = Health(since_ns=int(store.facts.get("since_ns") or 0))
        self._managed = sum(zone.managed for zone in self.zones.zones)
        self._stacks = StackTexts(store, self.symbols)
        self._tasks: dict[int, Task | None] = {0: None}
        self._charges: Charges | None = None
        self._last_ns = 0
        self._seldom_ns = 0
        self._events: tuple[int, int, int] | None = None
        self._patrolled: tuple[int, int] = (0, 0)
        self._records = np.empty(0, RECORD)

    def look(self, fields: Iterable[str], least_age: int | None = None,
             most_age: int | None = None) -> Look:
        """Count what is live now, with these fields, and of these ages (ns) alone.

        Raises PageownerError if tracking was turned off.
        """
        self.store.check_on()
        free = zones.free_pages(zones.read_text("/proc/zoneinfo"))
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        known = {"owned": 0, "early": 0, "filtered": 0, "in_motion": 0}
        asked = _Asked(frozenset(fields) - {"stack", "task"}, self._last_ns, now,
                       least_age, most_age)
        parts = [self._runs(span, asked, known) for span in self.store.spans]
        free = (free + zones.free_pages(zones.read_text("/proc/zoneinfo"))) // 2
        self._account(known, free, now)
        if self._charges is not None and "memcg" in asked.fields:
            self._charges.asked(now)
        self._last_ns = now
        return self._joined(now, parts)

    def _runs(self, span: Span, asked: _Asked, known: dict[str, int]) -> dict[str, NDArray[Any]]:
        """The owned blocks of a span, side by side ones of one kind together: neighbours are most
        often taken by one owner, and so what is left to be counted is much less. What is known is
        added up."""
        records = reading.whole(span.records, self._buffer(len(span.records)))
        state = records["state"].copy()  # side by side, they are compared many at a time
        known["early"] += int(np.count_nonzero(state == EARLY))
        known["filtered"] += reading.pages_of(records, FILTERED)
        known["in_motion"] += reading.pages_of(records, WRITTEN)
        at = np.flatnonzero(state == OWNED)
        words = records.view("u8").reshape(-1, 3)
        ts, order = words[at, 0], records["order"][at]
        # What came after the clock was read is left to the next look.
        if len(ts) and (asked.since or ts.max() > asked.until):
            known["owned"] += int((np.int64(1) << order.astype(np.int64)).sum())
            keep = (ts <= asked.until) & (ts >= asked.since)
            at, ts, order = at[keep], ts[keep], order[keep]
        else:
            large = order[order > 0].astype(np.int64)
            known["owned"] += len(order) - len(large) + int((np.int64(1) << large).sum())
        columns = {"owner": words[at, 1]}
        columns |= {name: self._column(name, span.first, records, at, ts)
                    for name in sorted(asked.fields)}
        change = np.zeros(max(len(at) - 1, 0), bool)
        for column in columns.values():
            change |= column[1:] != column[:-1]
        starts = np.concatenate([[0], np.flatnonzero(change) + 1]) if len(at) else at
        blocks = np.diff(starts, append=len(at))
        # Few are larger than a page, few are new.
        large, new = np.flatnonzero(order), np.flatnonzero(ts > asked.last)
        more = (np.int64(1) << order[large].astype(np.int64)) - 1
        return {name: column[starts] for name, column in columns.items()} | {
            "pages": blocks + _added(large, more, starts), "blocks": blocks,
            "born": _added(new, np.ones(len(new), np.int64), starts)}

    def _joined(self, now: int, parts: list[dict[str, NDArray[Any]]]) -> Look:
        """All runs of a kind together."""
        runs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        counted = [runs.pop(name) for name in ("pages", "blocks", "born")]
        codes, owners = encoded(runs.pop("owner"))
        columns = {"stack": (owners & np.uint64(0xFFFFFFFF)).astype(np.uint32),
                   "task": (owners >> np.uint64(32)).astype(np.uint32)}
        for name, column in runs.items():
            one, distinct = encoded(column)
            # Numbers of pairs that occur, not of all that could.
            codes, pairs = encoded(codes * len(distinct) + one)
            kind, value = np.divmod(pairs, max(len(distinct), 1))
            columns = {had: values[kind] for had, values in columns.items()}
            columns[name] = distinct[value]
        size = len(columns["stack"])
        return Look(now, {name: self._labelled(name, column) for name, column in columns.items()},
                    *(np.bincount(codes, weights, size).astype(np.int64) for weights in counted))

    def _buffer(self, length: int) -> NDArray[np.void]:
        """Where a span's records are copied to, the same place for all spans."""
        if len(self._records) < length:
            self._records = np.empty(length, RECORD)
        return self._records[:length]

    def _column(self, name: str, first: int, records: NDArray[np.void], at: NDArray[np.int64],
                ts: NDArray[np.uint64]) -> NDArray[Any]:
        if name == "order":
            return np.ascontiguousarray(records["order"][at])
        if name == "gfp":
            return np.ascontiguousarray(records["gfp_mask"][at])
        if name == "migratetype":
            return self.gfp.migratetype(np.ascontiguousarray(records["gfp_mask"][at]))
        pfns = at + first
        if name == "memcg":
            if self._charges is None:
                self._charges = Charges(self.store.spans)
            return self._charges.of(pfns, ts)
        return self.zones.locate(pfns.astype(np.uint64))

    def _labelled(self, name: str, column: NDArray[Any]) -> tuple[NDArray[np.int32], list[Any]]:
        codes, distinct = encoded(column)
        values = distinct.tolist()
        if name == "stack":
            labels: list[Any] = list(self._stacks.of(values))
        elif name == "task":
            self._learn_tasks(values)
            labels = [self._tasks.get(one) for one in values]
        elif name == "gfp":
            labels = [self.gfp.decode(one) for one in values]
        elif name == "migratetype":
            labels = [gfp.MIGRATETYPES[one] for one in values]
        elif name == "memcg":
            assert self._charges is not None
            labels = [self._charges.path(one) for one in values]
        elif name in ("zone", "node"):
            labels = [None if one < 0 else getattr(
                self.zones.zones[one], "name" if name == "zone" else "node") for one in values]
        else:
            labels = values
        return codes.astype(np.int32), labels

    def _learn_tasks(self, ids: list[int]) -> None:
        if len(self._tasks) > _MANY_TASKS:
            self._tasks = {0: None, **{one: self._tasks[one] for one in ids if one in self._tasks}}
        new = np.array([one for one in ids if one not in self._tasks], np.uint32)
        if not len(new):
            return
        self._tasks.update((one, task) for one, task in zip(
            new.tolist(), tasks(self.store, new), strict=True) if task is not None)

    def _account(self, known: dict[str, int], free: int, now: int) -> None:
        health = self.health
        free = min(free, self._managed)
        untracked = max(self._managed - free - sum(known.values()), 0)
        health.pages = {"owned": known["owned"], "early": known["early"], "untracked": untracked,
                        "free": free}
        for rare in ("filtered", "in_motion"):
            if known[rare]:
                health.pages[rare] = known[rare]
        counters = self.store.counters()
        health.lost = sum(counters[name] for name in _LOST)
        allocs = counters["allocs"] + counters["nested_allocs"] + counters["bulk"]
        frees = counters["frees"] + counters["nested_frees"]
        if self._events is not None and now > self._events[0]:
            seconds = (now - self._events[0]) / 1e9
            health.allocs = (allocs - self._events[1]) / seconds
            health.frees = (frees - self._events[2]) / seconds
        self._events = now, allocs, frees
        if now - self._seldom_ns >= _SELDOM_NS:
            self._seldom_ns = now
            if self.store.directory:
                control.attend()
            hooks = self.store.facts.get("hooks", {})
            health.hooks = sum(map(is_whole, hooks.values()))
            health.all_hooks = len(hooks)
            health.missed = self.store.missed()
            health.memory = health.memory or self.store.memory()
        self._patrol()

    def _patrol(self) -> None:
        """Check the next part of memory: a record that is the same before and after its page was
        seen in the free lists is stale, for it is cleared before the page gets there."""
        spans = self.store.spans
        for _ in range(len(spans) * max(len(spans[0].records) // _PATROL, 1)):
            number, start = self._patrolled
            span = spans[number % len(spans)]
            after = start + _PATROL
            self._patrolled = (number, after) if after < len(span.records) else (
                (number + 1) % len(spans), 0)
            part = span.records[start:after]
            at = np.flatnonzero(part["state"] == OWNED)
            if not len(at):
                continue  # costs nothing to speak of: go on to one that says something
            before = reading.whole_at(part, at)
            flags = pageflags.read(pageflags.KPAGEFLAGS, span.first + start, len(part))
            there = reading.whole_at(part, at)
            inside = at < len(flags)
            stale = pageflags.is_free(flags[at[inside]]) & (before[inside] == there[inside])
            stale &= before["state"][inside] == OWNED
            self.health.stale += int(np.count_nonzero(stale))
            self.health.checked += len(at)
            return


def _added(places: NDArray[np.int64], values: NDArray[np.int64],
           starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of values at some places by run, where runs start."""
    runs = np.searchsorted(starts, places, "right") - 1
    return np.bincount(runs, values, len(starts)).astype(np.int64)
