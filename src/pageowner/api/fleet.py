"""Many machines' owners in one store, and questions about them: ``pageowner fleet``."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.analysis.filters import duration_ns, size_bytes
from pageowner.errors import UsageError
from pageowner.model.times import moment
from pageowner.sources.source import read as read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from pageowner.analysis.filters import Filter
    from pageowner.errors import PageownerError
    from pageowner.fleet.answers import FleetAnswer
    from pageowner.fleet.asking import Asked
    from pageowner.fleet.choosing import Chosen
    from pageowner.fleet.compaction import Compacted
    from pageowner.fleet.engine import Engine
    from pageowner.fleet.pushing import Pushed
    from pageowner.model.snapshot import Snapshot

__all__ = ["Fleet"]

_LEAST_MEMORY = 16 << 20
"""With less an engine does not even start; who writes 4 means other units."""


class Fleet:
    """A store of captures of many machines: a directory, or a URL such as ``s3://bucket/prefix``.

    ``engine`` runs the queries: ``"duckdb"`` in this process, with up to ``memory`` (by default
    half of the available memory), or a Spark cluster (``"spark://host:7077"``,
    ``"sc://host:15002"``).

    Queries are about captures from ``since`` to ``until`` (a time, or how long ago; by default now)
    of the machines that match all of ``machines``: ``"host=db*"``, ``"kernel=6.12.95"``,
    ``"rack=7"``. They raise UsageError for invalid arguments, PageownerError if the store cannot be
    read or has nothing in that time.
    """

    def __init__(self, store: str | os.PathLike[str], *, engine: str = "duckdb",
                 memory: str | None = None) -> None:
        self.store, self.engine, self.memory = os.fspath(store), engine, memory

    def push(self, source: str | os.PathLike[str] | None = None, *,
             labels: Mapping[str, str] | None = None, every: str | None = None,
             count: int | None = None, least: str = "64KiB", whole: bool = False,
             all_captures: bool = False, host: str | None = None, kernel: str | None = None,
             taken: float | None = None, spool: str | os.PathLike[str] | None = None,
             spool_limit: str = "256MiB", read: Callable[[str | None], Snapshot] = read_source,
             ) -> Iterator[Pushed | PageownerError]:
        """Send the owners of ``source``: this machine, a snapshot, a dump, or a directory of
        captures (the newest capture, or each with ``all_captures``).

        This is a generator: each step sends one capture. With ``every`` it continues, ``count``
        times or without end, and if a later capture fails, its error is yielded. ``labels``: labels
        of the machine; ``host``, ``kernel`` and ``taken`` (seconds since 1970): for sources that do
        not contain them. Owners of less than ``least`` are summed in one row; ``whole`` also sends
        the snapshot. Captures that cannot be sent wait in ``spool``, up to ``spool_limit``, and are
        sent with the next one. ``read``: the function that reads a source given by name.

        Raises UsageError for invalid arguments, PageownerError if the source cannot be read or the
        machine or the time is not known.
        """
        step = None if every is None else duration_ns(every) / 1e9
        if step is not None and step < 1:
            raise UsageError("--every must be a second at least")
        if all_captures and (step is not None or source is None or not os.path.isdir(source)):
            raise UsageError("--all is for a directory of 'pageowner record', without --every")
        from pageowner.api.fleet_push import pushes
        from pageowner.fleet.capture import Machine
        from pageowner.fleet.spool import Spool, default_folder

        waiting = Spool(default_folder() if spool is None else Path(spool), self.store,
                        size_bytes(spool_limit))
        return pushes(self.store, None if source is None else os.fspath(source),
                      Machine(host, kernel, None, labels or {}, taken), size_bytes(least), whole,
                      all_captures, step, 1 if step is None else count, waiting, read)

    def report(self, by: str | Sequence[str] = "stack", *, since: str = "1d",
               until: str | None = None, machines: Sequence[str] = (),
               where: Filter | None = None, least: str = "1MiB") -> FleetAnswer:
        """Owners across machines, by the last capture of each: median and 99th percentile over all
        machines, and the machines that exceed the median by more than ``least`` and by more than
        six times the spread. Columns: see `pageowner.fleet.answers.report`."""
        from pageowner.fleet import answers
        from pageowner.fleet.choosing import key_names

        names, least_bytes = key_names(by), size_bytes(least)
        asked = self._asked(since, until)
        return self._answer(asked, machines, where, lambda engine, chosen: answers.report(
            engine, chosen, names, *asked.window, least_bytes))

    def leaks(self, by: str | Sequence[str] = "stack", *, since: str = "7d",
              until: str | None = None, machines: Sequence[str] = (),
              where: Filter | None = None, least: str = "1MiB", watched: str = "1d") -> FleetAnswer:
        """Which machines leak, by the rules of `pageowner.leaks`: every owner that grew by
        ``least`` or more, in every boot whose captures cover ``watched`` or longer. ``where``
        cannot choose by age, which the rules do themselves. Columns: see
        `pageowner.fleet.leaks.leaks`."""
        from pageowner.analysis.leak_rules import check_chosen
        from pageowner.fleet import leaks
        from pageowner.fleet.choosing import key_names

        names, least_bytes, watched_s = key_names(by), size_bytes(least), duration_ns(watched) / 1e9
        check_chosen(where)
        asked = self._asked(since, until)
        return self._answer(asked, machines, where, lambda engine, chosen: leaks.leaks(
            engine, chosen, names, *asked.window, least_bytes, watched_s))

    def diff(self, before: Sequence[str], after: Sequence[str],
             by: str | Sequence[str] = "stack", *, since: str = "7d", until: str | None = None,
             machines: Sequence[str] = (), where: Filter | None = None) -> FleetAnswer:
        """Compare owners on the machines ``before``, such as ``["kernel=6.12.95"]``, with those
        ``after``, such as ``["kernel=6.12.107"]``. Columns: see `pageowner.fleet.answers.diff`."""
        from pageowner.fleet import answers
        from pageowner.fleet.choosing import key_names, parsed

        names = key_names(by)
        if not parsed(before) or not parsed(after):
            raise UsageError("say which machines are before and which after: --before"
                             " kernel=6.12.95 --after kernel=6.12.107")
        asked = self._asked(since, until)
        return self._answer(asked, machines, where, lambda engine, chosen: answers.diff(
            engine, chosen, names, *asked.window, before, after))

    def who_else(self, *, since: str = "7d", until: str | None = None,
                 machines: Sequence[str] = (), where: Filter) -> FleetAnswer:
        """The machines that have memory which ``where`` selects, such as
        ``Filter(stack="nicdrv_*")``. Columns: see `pageowner.fleet.answers.who_else`."""
        from pageowner.fleet import answers

        if not where:
            raise UsageError("say what to look for: a function, or a filter such as --comm")
        asked = self._asked(since, until)
        return self._answer(asked, machines, where, lambda engine, chosen: answers.who_else(
            engine, chosen, *asked.window))

    def query(self, sql: str, *, since: str = "1d", until: str | None = None,
              notes: Callable[[str], None] = lambda text: None) -> pa.Table:
        """The result of one SELECT over the tables ``owners``, ``stacks`` and ``captures``
        (docs/reference/fleet.md). In DuckDB it cannot read anything else. ``notes`` is called with
        each problem found in the store's files."""
        from pageowner.fleet.asking import ask

        if self.engine == "duckdb":
            from pageowner.analysis.query import check

            check(sql)
        found, said = ask(self._asked(since, until)._replace(locked=True),
                          lambda engine: engine.sql(sql))
        for note in said:
            notes(note)
        return found

    def compact(self, grace: str = "10m") -> Compacted:
        """Write the captures of hours that ended at least ``grace`` ago into one file for each
        hour, and remove the small files that were compacted at least so long ago. It may run at any
        time, and on several machines at once."""
        from pageowner.fleet.compaction import compact
        from pageowner.fleet.store import Store

        return compact(Store(self.store), grace_s=duration_ns(grace) / 1e9)

    def expire(self, keep: str) -> int:
        """Remove the captures of days that ended longer than ``keep`` ago; returns the number of
        files."""
        from pageowner.fleet.compaction import expire
        from pageowner.fleet.store import Store

        return expire(Store(self.store), duration_ns(keep) / 1e9)

    def _asked(self, since: str, until: str | None) -> Asked:
        from pageowner.fleet.asking import Asked, window

        between = window(moment(since), None if until is None else moment(until))
        if between.since >= between.until:
            raise UsageError(f"--since {since} is not before --until {until}")
        memory = None if self.memory is None else size_bytes(self.memory)
        if memory is not None and memory < _LEAST_MEMORY:
            raise UsageError(f"--memory {self.memory} is less than {_LEAST_MEMORY >> 20} MiB;"
                             " write 4GB")
        return Asked(self.store, between, self.engine, memory)

    def _answer(self, asked: Asked, machines: Sequence[str], where: Filter | None,
                work: Callable[[Engine, Chosen], FleetAnswer]) -> FleetAnswer:
        from pageowner.fleet.asking import ask
        from pageowner.fleet.choosing import choose, parsed

        parsed(machines)  # before files are looked for
        answer, notes = ask(asked, lambda engine: work(engine, choose(
            engine, *asked.window, machines, where, time.time())))
        return replace(answer, notes=[*notes, *answer.notes])
