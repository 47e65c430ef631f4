"""Who owns what right now, again and again, for a fraction of what a capture costs.

A capture looks at every page frame's flags; here only the records are read, in place. What is in
use and has no record shows in the kernel's own sums (/proc/zoneinfo). The live blocks are given one
by one (`LiveReader.blocks`), or counted by kind before anything is looked up (`LiveReader.counts`).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from pageowner.kernel import gfp, kallsyms, zones
from pageowner.kernel.containers import OF_PATH
from pageowner.model.hook_states import is_whole
from pageowner.model.live import LiveBlocks, Look
from pageowner.tracker.read import reading
from pageowner.tracker.read.charges import Charges
from pageowner.tracker.read.decoding import StackTexts, Task, encoded, tasks
from pageowner.tracker.read.live_health import LiveHealth
from pageowner.tracker.read.maps import EARLY, FILTERED, OWNED, RECORD, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from pageowner.model.live import Health
    from pageowner.tracker.read.live_users import LiveUsers
    from pageowner.tracker.read.maps import Span, Store

__all__ = ["LiveReader"]

UNTRACKED = "untracked"
"""What pages in use without a record are called; see `LiveReader.blocks`."""

IN_MOTION = "in motion (their records were being written)"

UNTRACKED_STACKS = "kernel stacks (untracked; KernelStack in /proc/meminfo)"
UNTRACKED_VMALLOC = "vmalloc (untracked; VmallocUsed in /proc/meminfo)"
"""Those of them that the kernel counts: all kernel stacks, and what vmalloc holds beside."""

_SINCE = "allocated while users were looked for"
"""What has pages that were not in use when looking for users began."""

_MANY_TASKS = 1 << 16

_OF_RECORD = {"stack": "stack_id", "task": "task_id", "order": "order", "gfp": "gfp_mask",
              "migratetype": "gfp_mask"}
"""What of a record tells a field (records.h)."""
_OF_CHARGES = frozenset(("memcg", *OF_PATH))
"""The fields that the cgroup charged tells."""

_Read = TypeVar("_Read")


class _Owned(NamedTuple):
    """The owned blocks of a span: ``records`` of all its frames, a copy that is good until the next
    span is read, and where in it blocks begin (``at``), with their order and time."""

    span: Span
    records: NDArray[np.void]
    at: NDArray[np.int64]
    order: NDArray[np.uint8]
    ts: NDArray[np.uint64]


class _Ages:
    """Blocks allocated ``since`` and ``until`` are counted; those after ``last`` are born since the
    last look."""

    def __init__(self, last: int, now: int, least_age: int | None, most_age: int | None) -> None:
        self.last = np.uint64(last or now)
        self.until = np.uint64(max(now - (least_age or 0), 0))
        self.since = np.uint64(0 if most_age is None else max(now - most_age, 0))


class LiveReader:
    """Looks at the live blocks of a running tracker. ``health``: how memory and the tracker stand,
    as of the last `counts`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.gfp = gfp.running()
        self.zones = zones.running()
        self._managed = sum(zone.managed for zone in self.zones.zones)
        self._health = LiveHealth(store, self._managed)
        self._stacks = StackTexts(store, kallsyms.RunningKallsyms())
        self._tasks: dict[int, Task | None] = {0: None}
        self._charges: Charges | None = None
        self._users: LiveUsers | None = None
        self._last_ns = 0
        self._records = np.empty(0, RECORD)

    @property
    def health(self) -> Health:
        """How memory and the tracker stand, as of the last `counts`."""
        return self._health.health

    def container_names(self, paths: Iterable[str | None]) -> dict[str, str]:
        """What containers and pods in these paths of cgroups, which a look showed, are called."""
        assert self._charges is not None
        self._charges.name_containers(paths)
        return self._charges.container_names

    # -- one pass over the records -----------------------------------------------------------------

    def _pass(self, of: Callable[[_Owned, int], _Read]) -> tuple[int, dict[str, int], list[_Read]]:
        """The moment (CLOCK_MONOTONIC, ns), base pages by state, ``free`` among them, and what
        ``of`` makes of the owned blocks of each span at that moment.

        Raises PageownerError if tracking was turned off.
        """
        self.store.check_on()
        if self._health.attend():
            self._keep_up()
        free = zones.free_pages(zones.read_text("/proc/zoneinfo"))
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        pages = {"owned": 0, "early": 0, "filtered": 0, "in_motion": 0}
        read = [of(self._owned(span, pages), now) for span in self.store.spans]
        # Memory does not stand still meanwhile: the middle of before and after.
        free = (free + zones.free_pages(zones.read_text("/proc/zoneinfo"))) // 2
        return now, pages | {"free": free}, read

    def _keep_up(self) -> None:
        """Memory may have been added or taken away since the last time."""
        grown, now = self.store.renew(), zones.running()
        if grown or [zone.present for zone in now.zones] != [
                zone.present for zone in self.zones.zones]:
            self.zones, self._charges = now, None
            self._managed = self._health.managed = sum(zone.managed for zone in now.zones)

    def _owned(self, span: Span, pages: dict[str, int]) -> _Owned:
        """The owned blocks of a span; ``pages`` is added to."""
        records = reading.whole(span.records, self._buffer(len(span.records)))
        state = records["state"].copy()  # side by side, they are compared many at a time
        pages["early"] += int(np.count_nonzero(state == EARLY))
        pages["filtered"] += reading.pages_of(records, FILTERED)
        pages["in_motion"] += reading.pages_of(records, WRITTEN)
        at = np.flatnonzero(state == OWNED)
        order = records["order"][at]
        large = order[order > 0].astype(np.int64)
        pages["owned"] += len(order) - len(large) + int((np.int64(1) << large).sum())
        return _Owned(span, records, at, order, records.view("u8").reshape(-1, 3)[at, 0])

    def _buffer(self, length: int) -> NDArray[np.void]:
        """Where a span's records are copied to, the same place for all spans."""
        if len(self._records) < length:
            self._records = np.empty(length, RECORD)
        return self._records[:length]

    # -- block by block ----------------------------------------------------------------------------

    def blocks(self, fields: Iterable[str] = ()) -> LiveBlocks:
        """The live blocks that have a record, but for those of this process itself, and the pages
        in use that have none by what they are: exact where the kernel counts such, the rest only as
        exact as memory stands still for a tenth of a second.

        The fields are ``stack``, ``task`` and ``migratetype``, and of ``order`` and ``gfp`` those
        in ``fields``. Raises PageownerError if tracking was turned off.
        """
        own = self.store.tasks["id"][self.store.tasks["tgid"] == os.getpid()]
        own = own[own != 0]

        def others_blocks(owned: _Owned, now: int) -> NDArray[np.void]:
            # What came after the clock was read is left to the next look.
            records = owned.records[owned.at[owned.ts <= now]]
            kept: NDArray[np.void] = records[~np.isin(records["task_id"], own)]
            return kept

        now, pages, parts = self._pass(others_blocks)
        records = np.concatenate([np.zeros(0, RECORD), *parts])
        names = ["stack", "task", "migratetype", *sorted({"order", "gfp"} & set(fields))]
        others = self._unseen()
        if pages["in_motion"]:
            others[IN_MOTION] = pages.pop("in_motion")
        # Below 0 where a record outlived its page: what counts is whether it rises.
        others[UNTRACKED] = self._managed - sum(pages.values()) - sum(others.values())
        return LiveBlocks(
            now, {name: self._labelled(name, self._of_record(name, records)) for name in names},
            np.int64(1) << records["order"].astype(np.int64), records["ts"], others)

    def _unseen(self) -> dict[str, int]:
        """Pages that the kernel counts itself, where the bulk allocator cannot be hooked: vmalloc
        takes its pages there, and so do kernel stacks (CONFIG_VMAP_STACK)."""
        if is_whole(self.store.facts["hooks"].get("alloc_pages_bulk", "")):
            return {}
        meminfo = zones.read_text("/proc/meminfo")
        page_size = os.sysconf("SC_PAGE_SIZE")
        stacks = zones.meminfo_pages(meminfo, "KernelStack", page_size) or 0
        areas = zones.meminfo_pages(meminfo, "VmallocUsed", page_size) or 0
        return {UNTRACKED_STACKS: stacks, UNTRACKED_VMALLOC: max(areas - stacks, 0)}

    # -- counted by kind ---------------------------------------------------------------------------

    def counts(self, fields: Iterable[str], least_age: int | None = None,
               most_age: int | None = None) -> Look:
        """Count what is live now, with these fields, and of these ages (ns) alone. With ``user``,
        which takes longer, also pages without a record, unless an age is asked for.

        Raises PageownerError if tracking was turned off.
        """
        further = sorted(set(fields) - {"stack", "task"})
        recorded: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        if "user" in further:
            from pageowner.tracker.read.live_users import live_users

            self._users = live_users(self.zones)

        def runs(owned: _Owned, now: int) -> dict[str, NDArray[Any]]:
            if "user" in further:
                records = owned.records
                at = np.flatnonzero(np.isin(records["state"], (OWNED, FILTERED)))
                recorded.append((at + owned.span.first,
                                 np.int64(1) << records["order"][at].astype(np.int64)))
            return self._runs(owned, further, _Ages(self._last_ns, now, least_age, most_age))

        if self._charges is not None and not _OF_CHARGES.isdisjoint(further):
            self._charges.begin()
        now, pages, parts = self._pass(runs)
        self._health.account(pages, now)
        self._last_ns = now
        look = self._joined(now, parts)
        if "user" in further and least_age is None and most_age is None:
            return self._with_unrecorded(look, recorded)
        return look

    def _with_unrecorded(self, look: Look, recorded: list[
            tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Look:
        """With what uses the pages that have no record."""
        assert self._users is not None
        codes, pages, blocks = self._users.without(sorted(recorded, key=lambda part: (
            int(part[0][0]) if len(part[0]) else 0)))
        fields = {}
        for name, (places, labels) in look.fields.items():
            mine = [self._users.labels[code] for code in codes.tolist()] if name == "user" else (
                [None] * len(codes))
            fields[name] = (np.concatenate([places, np.arange(
                len(labels), len(labels) + len(codes), dtype=np.int32)]), [*labels, *mine])
        return Look(look.time_ns, fields, *(np.concatenate(both) for both in (
            (look.pages, pages), (look.blocks, blocks),
            (look.born, np.zeros(len(codes), np.int64)))), unrecorded=len(codes))

    def _runs(self, owned: _Owned, fields: list[str], ages: _Ages) -> dict[str, NDArray[Any]]:
        """The owned blocks of a span, side by side ones of one kind together: neighbours are most
        often taken by one owner, and so what is left to be counted is much less."""
        # What came after the clock was read is left to the next look.
        if len(owned.ts) and (ages.since or owned.ts.max() > ages.until):
            keep = (owned.ts <= ages.until) & (owned.ts >= ages.since)
            owned = owned._replace(at=owned.at[keep], ts=owned.ts[keep], order=owned.order[keep])
        at, ts, order = owned.at, owned.ts, owned.order
        columns = {"owner": owned.records.view("u8").reshape(-1, 3)[at, 1]}
        columns |= {name: self._column(name, owned) for name in fields}
        change = np.zeros(max(len(at) - 1, 0), bool)
        for column in columns.values():
            change |= column[1:] != column[:-1]
        starts = np.concatenate([[0], np.flatnonzero(change) + 1]) if len(at) else at
        blocks = np.diff(starts, append=len(at))
        # Few are larger than a page, few are new.
        large, new = np.flatnonzero(order), np.flatnonzero(ts > ages.last)
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
            places, distinct = encoded(column)
            # Numbers of pairs that occur, not of all that could.
            codes, pairs = encoded(codes * len(distinct) + places)
            kind, value = np.divmod(pairs, max(len(distinct), 1))
            columns = {had: values[kind] for had, values in columns.items()}
            columns[name] = distinct[value]
        size = len(columns["stack"])
        return Look(now, {name: self._labelled(name, column) for name, column in columns.items()},
                    *(np.bincount(codes, weights, size).astype(np.int64) for weights in counted))

    # -- fields ------------------------------------------------------------------------------------

    def _column(self, name: str, owned: _Owned) -> NDArray[Any]:
        """A field of the owned blocks, as numbers."""
        if name == "user":
            assert self._users is not None
            return self._users.of(owned.at + owned.span.first, owned.ts)
        if name == "cache":  # of objects alone
            return np.zeros(len(owned.at), np.uint8)
        if name in (*_OF_CHARGES, "zone", "node"):
            pfns = owned.at + owned.span.first
            if name not in _OF_CHARGES:
                return self.zones.locate(pfns.astype(np.uint64))
            if self._charges is None:
                self._charges = Charges(self.store.spans)
            return self._charges.of(pfns, owned.ts)
        return self._of_record(name, owned.records, owned.at)

    def _of_record(self, name: str, records: NDArray[np.void],
                   at: NDArray[np.int64] | slice = slice(None)) -> NDArray[Any]:
        """A field that records tell, as numbers."""
        column = np.ascontiguousarray(records[_OF_RECORD[name]][at])
        return self.gfp.migratetype(column) if name == "migratetype" else column

    def _labelled(self, name: str, column: NDArray[Any]) -> tuple[NDArray[np.int32], list[Any]]:
        """Each number's place among the distinct ones, and what these are called."""
        codes, distinct = encoded(column)
        return codes.astype(np.int32), self._labels(name, distinct.tolist())

    def _labels(self, name: str, values: list[Any]) -> list[Any]:
        """What the numbers of a column are called."""
        if name == "stack":
            return list(self._stacks.of(values))
        if name == "task":
            self._learn_tasks(values)
            return [self._tasks.get(number) for number in values]
        if name == "user":
            assert self._users is not None
            return [_SINCE if code < 0 else self._users.labels[code] for code in values]
        if name == "cache":
            return [None] * len(values)
        if name == "gfp":
            return [self.gfp.decode(mask) for mask in values]
        if name == "migratetype":
            return [gfp.MIGRATETYPES[number] for number in values]
        if name in _OF_CHARGES:
            assert self._charges is not None
            paths = [self._charges.path(number) for number in values]
            if name not in OF_PATH:
                return list(paths)
            names = self.container_names(paths)
            return [OF_PATH[name](path, names) for path in paths]
        if name in ("zone", "node"):
            return [None if number < 0 else getattr(
                self.zones.zones[number], "name" if name == "zone" else "node")
                for number in values]
        return values

    def _learn_tasks(self, ids: list[int]) -> None:
        """An id names one task for good (its slot and how often that was taken)."""
        if len(self._tasks) > _MANY_TASKS:
            self._tasks = {0: None, **{number: self._tasks[number] for number in ids
                                       if number in self._tasks}}
        new = np.array([number for number in ids if number not in self._tasks], np.uint32)
        if not len(new):
            return
        self._tasks.update((number, task) for number, task in zip(
            new.tolist(), tasks(self.store, new), strict=True) if task is not None)


def _added(places: NDArray[np.int64], values: NDArray[np.int64],
           starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of values at some places by run, where runs start."""
    runs = np.searchsorted(starts, places, "right") - 1
    return np.bincount(runs, values, len(starts)).astype(np.int64)
