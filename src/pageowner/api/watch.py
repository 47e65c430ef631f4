"""Who owns memory now, look after look: what ``pageowner top`` draws."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pageowner.analysis.filters import Filter, duration_ns
from pageowner.analysis.live import ORDERS, Live, Question, check_objects_have
from pageowner.errors import UsageError, near
from pageowner.model.schema import AGE, ALIASES, FILTERS, LOOKED_AT, LOOKS
from pageowner.sources import of_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from pageowner.model.live import Health
    from pageowner.tracker.read.live import LiveReader
    from pageowner.tracker.read.live_objects import ObjectReader

__all__ = ["LiveOwners", "live_model", "live_reader", "object_reader", "watch"]

_LEAST_NS = 200 * 10**6


@dataclass(frozen=True)
class LiveOwners:
    """One look, at ``time_ns`` (ns since boot).

    ``owners``: the key, ``pages`` and ``blocks`` now, ``change`` in pages since the first look,
    ``rate`` (pages per second over ten seconds), ``allocs`` and ``frees`` (blocks per second since
    the previous look). ``health``: the state of memory and of the tracker.
    """

    time_ns: int
    owners: pa.Table
    health: Health


def watch(by: str = "stack", *, every: str = "2s", count: int | None = None,
          where: Filter | None = None, sort: str = "size") -> Iterator[LiveOwners]:
    """Look at this machine every ``every``. This is a generator: each step waits for the next look
    and yields it. It ends after ``count`` looks, or never if ``count`` is None.

    Owners are grouped by one key, ``where`` selects allocations, and the largest come first by
    size, change, rate, allocs or frees.

    Raises UsageError for an unknown key or sort order, or for ``every`` below 0.2 s. The first step
    raises PageownerError if tracking is off.
    """
    if sort not in ORDERS:
        raise UsageError(f"cannot sort by {sort!r}; {near(sort, ORDERS)}")
    model, step = live_model(by, every, where or Filter())
    return _looks(model, step, count, sort)


def live_model(by: str, every: str, where: Filter) -> tuple[Live, int]:
    """The model that looks are added to, and the ns from one look to the next. Raises UsageError as
    `watch` does."""
    if not of_objects.wanted() and (where.cache is not None or by == "cache"):
        raise UsageError("pages have no cache; for objects in slabs: pageowner top --objects")
    step = duration_ns(every)
    if step < _LEAST_NS:
        raise UsageError(f"--every {every}: not more often than every 0.2 seconds")
    if where.state is not None:
        raise UsageError("top shows pages that have an owner, and sums the others up; by state:"
                         " pageowner report --by state")
    for word in where.given():
        if FILTERS[word].takes != AGE and LOOKED_AT[word] not in LOOKS:
            raise UsageError(f"top cannot select by --{word.replace('_', '-')}; a capture can:"
                             f" pageowner report --{word.replace('_', '-')}")
    if of_objects.wanted():
        check_objects_have(ALIASES.get(by, by), where)
    return Live(by, Question(where)), step


@contextmanager
def live_reader() -> Iterator[LiveReader]:
    """Reads the tracker's live blocks. Raises PageownerError if tracking is off."""
    from pageowner.tracker.read.live import LiveReader
    from pageowner.tracker.read.maps import open_store

    with open_store() as store:
        yield LiveReader(store)


@contextmanager
def object_reader() -> Iterator[ObjectReader]:
    """Reads the objects that the tracker follows. Raises PageownerError if tracking is off, or
    objects are not tracked."""
    from pageowner.tracker.read.live_objects import ObjectReader
    from pageowner.tracker.read.maps import open_store

    with open_store() as store:
        yield ObjectReader(store)


def _looks(model: Live, step: int, count: int | None, sort: str) -> Iterator[LiveOwners]:
    import pyarrow as pa

    names = ("pages", "blocks", "change", "rate", "allocs", "frees")
    with object_reader() if of_objects.wanted() else live_reader() as reader:
        number, due = 0, time.monotonic_ns()
        while True:
            look = reader.counts(model.needs(), *model.asked.chosen.ages_ns())
            model.add(look)
            rows, _ = model.rows(sort)
            columns = {model.by: [row.label for row in rows],
                       **{name: [getattr(row, name) for row in rows] for name in names}}
            yield LiveOwners(look.time_ns, pa.table(columns), replace(reader.health))
            number += 1
            if count is not None and number >= count:
                return
            due = max(due + step, time.monotonic_ns())
            time.sleep(max(due - time.monotonic_ns(), 0) / 1e9)
