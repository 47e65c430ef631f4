"""Who owns the objects that are followed, look after look: for the live view.

What is counted are objects and bytes, as they are estimated: each object stands for as many as it
was chosen out of.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel import gfp, kallsyms, zones
from pageowner.model.live import Look
from pageowner.model.object_hooks import ALLOCATED_BY, FREED_BY
from pageowner.tracker.read.capture_objects import cache_labels
from pageowner.tracker.read.decoding import StackTexts, Task, encoded, tasks
from pageowner.tracker.read.gone_objects import among, chosen, gone
from pageowner.tracker.read.live_health import SELDOM_NS, KeptHealth
from pageowner.tracker.read.missed import missed_of_objects
from pageowner.tracker.read.objects import check_objects, objects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Store
    from pageowner.tracker.read.objects import Objects

__all__ = ["ObjectReader"]

_SOURCE = {"stack": "stack_id", "task": "task_id", "gfp": "gfp_mask", "cache": "cache"}
"""Of each field that objects have (`pageowner.model.live.OBJECT_FIELDS`) that of their record."""

_LOST = ("objects_full", "objects_busy", "objects_bulk_missed")


class ObjectReader:
    """Looks at the objects that a running tracker follows, as `LiveReader` does at pages: what it
    calls pages are bytes. ``health``: how slabs and the tracker stand, as of the last `counts`.

    Raises PageownerError if objects are not tracked.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.share = check_objects(store)
        self._kept = KeptHealth(store, "object_hooks", missed_of_objects)
        self.health = self._kept.health
        self._stacks = StackTexts(store, kallsyms.RunningKallsyms())
        self._gfp = gfp.running()
        self._last_ns = self._stale = 0
        self._asked_ns = -SELDOM_NS  # at once, also right after boot
        self._gone: Objects | None = None

    def counts(self, fields: Iterable[str], least_age: int | None = None,
               most_age: int | None = None) -> Look:
        """Count what is live now, with these fields, and of these ages (ns) alone. Fields that
        objects do not have are null.

        Raises PageownerError if tracking was turned off.
        """
        self.store.check_on()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        rows = self._standing().rows
        rows = rows[rows["ts"] <= now]  # what came later is left to the next look
        self._account(int(rows["bytes"].sum(dtype=np.uint64)) * self.share, now)
        age = now - rows["ts"].astype(np.int64)
        keep = np.ones(len(rows), bool)
        if least_age is not None:
            keep &= age >= least_age
        if most_age is not None:
            keep &= age <= most_age
        rows, last = rows[keep], self._last_ns or now
        self._last_ns = now
        columns = {name: self._column(name, rows) for name in sorted({*fields, "stack", "task"})}
        codes, kinds = _kinds(list(columns.values()))
        share, size = self.share, len(kinds)
        ones = np.full(len(rows), share, np.int64)
        counted = [np.bincount(codes, weights, size).astype(np.int64) for weights in (
            rows["bytes"].astype(np.int64) * share, ones, np.where(rows["ts"] > last, ones, 0))]
        return Look(now, {name: self._labelled(name, column[kinds])
                          for name, column in columns.items()}, *counted)

    def _standing(self) -> Objects:
        """The objects without those that are gone. For flags the kernel is asked seldom, and what
        was gone once is gone; it is stale if it is in the table at the next look yet."""
        self.store.renew()
        asks = time.monotonic_ns() - self._asked_ns >= SELDOM_NS
        found = objects(self.store)
        which, stale = gone(self.store, found, flags=asks), 0
        if self._gone is not None:
            known = among(found, self._gone)
            which, stale = which | known, int(known.sum())
        if asks:
            self._asked_ns = time.monotonic_ns()
        self._gone, self._stale = chosen(found, which), stale
        return chosen(found, ~which)

    def _column(self, name: str, rows: NDArray[np.void]) -> NDArray[np.uint32]:
        if name not in _SOURCE:
            return np.zeros(len(rows), np.uint32)
        if name == "cache":
            codes, _ = self._caches(rows)
            return codes.astype(np.uint32)
        return np.ascontiguousarray(rows[_SOURCE[name]])

    def _caches(self, rows: NDArray[np.void]) -> tuple[NDArray[np.int64], list[str | None]]:
        codes, self._cache_labels = cache_labels(self.store, rows)
        return codes, self._cache_labels

    def _labelled(self, name: str, column: NDArray[Any]) -> tuple[NDArray[np.int32], list[Any]]:
        codes, distinct = encoded(column)
        values = distinct.tolist()
        if name == "stack":
            labels: list[Any] = list(self._stacks.of(values))
        elif name == "task":
            labels = _tasks(self.store, values)
        elif name == "gfp":
            labels = [self._gfp.decode(mask) for mask in values]
        elif name == "cache":
            labels = [self._cache_labels[code] for code in values]
        else:
            labels = [None] * len(values)
        return codes.astype(np.int32), labels

    def _account(self, owned: int, now: int) -> None:
        health = self.health
        slabs = zones.meminfo_pages(zones.read_text("/proc/meminfo"), "Slab", 1) or 0
        health.pages = {"owned": owned, "slabs": slabs}
        counters = self.store.counters()
        health.lost = sum(counters[name] for name in _LOST)
        health.stale = counters["objects_overwritten"] + self._stale
        born, gone = (sum(counters[name] for name in names) * self.share
                      for names in (ALLOCATED_BY, FREED_BY))
        health.checked = born // self.share
        self._kept.events(born, gone, now)


def _tasks(store: Store, ids: list[int]) -> list[Task | None]:
    return tasks(store, np.array(ids, np.uint32)) if ids else []


def _kinds(columns: list[NDArray[np.uint32]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's kind, equal rows being of one, and a row of each kind."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        places, distinct = encoded(column)
        codes, _ = encoded(codes * max(len(distinct), 1) + places)
    _, first = np.unique(codes, return_index=True)
    return codes, first
