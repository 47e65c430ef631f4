"""The state of every page frame now: the tracker's maps and /proc, joined into a snapshot.

`survey` reads; here its numbers become the snapshot's columns, each distinct text made once.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.kernel import gfp
from pageowner.model import unexplained
from pageowner.model.pfn_runs import joined, pack
from pageowner.model.snapshot import Metadata, Snapshot
from pageowner.tracker import control
from pageowner.tracker.read import decoding, extfrag, last_free, pageblocks
from pageowner.tracker.read.machine import Machine
from pageowner.tracker.read.maps import Store
from pageowner.tracker.read.records import MIGRATE_REASONS
from pageowner.tracker.read.survey import STATES, Survey, survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pageowner.kernel.cgroups import Cgroups
    from pageowner.kernel.kallsyms import Kallsyms

__all__ = ["MIGRATE_REASONS", "capture", "capture_near", "capture_others"]


def capture(store: Store | None = None, machine: Machine | None = None,
            users: bool = False) -> Snapshot:
    """The owners of all pages as the running tracker knows them.

    ``meta.frames`` counts every page frame of the machine in exactly one class of
    `accounts.CLASSES`; ``meta.counters`` has the tracker's counters and what was noticed during
    this capture (`survey.Survey`). Memory that was added since `on` is tracked from the first
    capture on. ``machine``: where to read about memory, if not from /proc. ``users``: also find
    what uses each page now (`users.find`), which about doubles the time. Raises PageownerError if
    tracking is off or is turned off meanwhile, or if this process may not read the maps, the page
    flags or the symbols.
    """
    if store is None:
        with control.open_covered() as opened:
            return capture(opened, machine, users)
    machine = machine or Machine()
    symbols, zone_map, names = machine.symbols, machine.zone_map, machine.gfp
    found = survey(store, zone_map, names.bits.get("__GFP_COMP", 0x40000), machine.frames())
    now = machine.now_ns()
    types, no_types = machine.block_types(store, joined(found.spans).tolist())
    free = machine.free_blocks()
    columns = _columns(store, found, machine, types)
    metadata = _metadata(store, found, machine, now)
    if users:
        metadata.extra["users"] = _users(columns, machine, symbols)
    _name_containers(metadata, columns, machine)
    if no_types:
        metadata.extra["no_block_types"] = no_types
    if new := sorted({name for _, name in names.table} - gfp.known_names()):
        metadata.extra["gfp_flags"] = new
    metadata.extra["memory"] = _between_rows(found, free, machine.can_be_ended())
    store.check_on()
    snapshot = Snapshot.from_columns(columns, metadata)
    if groups := unexplained.of_snapshot(snapshot):
        metadata.extra["unexplained"] = groups
    return snapshot


def capture_others(users: bool = False) -> Snapshot:
    """The same without the pages of this process itself."""
    snapshot = capture(users=users)
    others = pa.array(snapshot.table["tgid"].fill_null(-1).to_numpy() != os.getpid())
    return Snapshot(snapshot.table.filter(others), snapshot.meta)


def capture_near(only: Sequence[tuple[int, int]]) -> Snapshot:
    """The same rows, of what is near the frames ``only`` (first, behind the last) alone, which
    takes a fraction of the time; the metadata hold what tells these rows, not what counts all.

    Raises PageownerError as `capture` does.
    """
    with control.open_covered() as store:
        machine = Machine()
        symbols, names = machine.symbols, machine.gfp
        found = survey(store, machine.zone_map, names.bits.get("__GFP_COMP", 0x40000), only=only)
        found.keep(only)
        now = machine.now_ns()
        types = None
        if symbols.address_of(pageblocks.SYMBOL) is not None:
            # All blocks, since they are believed if they add up. The kernel counts its free lists
            # for that file, which takes longer than all else here.
            types, _ = machine.block_types(
                store, [(first, end) for first, end in store.facts["ranges"]])
        columns = _columns(store, found, machine, types)
        metadata = machine.moment(store, now, counts_types=types is not None)
        _name_containers(metadata, columns, machine)
        store.check_on()
        return Snapshot.from_columns(columns, metadata)


def _columns(store: Store, found: Survey, machine: Machine,
             types: pageblocks.BlockTypes | None) -> dict[str, Any]:
    """The snapshot's columns; each of the survey's is let go as soon as it is used."""
    state = found.take("state")
    unknown = _Missing(state != 0)
    columns = {"state": _text(state, STATES)}
    columns |= _tasks(store, found.take("task_id"), unknown)
    columns |= _masks(found.take("gfp_mask"), unknown, machine.gfp)
    columns["stack"] = _stacks(store, found.take("stack_id"), unknown, machine.symbols)
    reason = (found.take("moved") & 15).astype(np.int32) - 1
    if reason.max(initial=-1) >= 0:  # else null, as it is if left out
        columns["migrate_reason"] = _text(np.minimum(reason, len(MIGRATE_REASONS) - 1),
                                          MIGRATE_REASONS, unknown | (reason < 0))
    del reason
    pfn, times = found.take("pfn"), found.take("ts")
    if store.freed:
        # One after the allocation is of a page that was freed while it was looked at.
        freed = last_free.times(store, pfn)
        columns["free_ts_ns"] = pa.array(
            freed, mask=(freed == 0) | (~unknown.where & (freed > times)))
        del freed
    columns["ts_ns"] = unknown.array(times)
    del times
    columns["memcg"] = _memcg(found.take("cgroup"), machine.cgroups())
    zone_map = machine.zone_map
    columns["zone"], columns["node"] = zone_map.zone_column(pfn), zone_map.node_column(pfn)
    if types:
        columns["block_migratetype"] = types.column(pfn)
    columns |= {"pfn": pfn, "order": found.take("order"), "page_flags": found.take("flags")}
    return columns


def _name_containers(metadata: Metadata, columns: dict[str, Any], machine: Machine) -> None:
    if names := machine.container_names(columns["memcg"].dictionary.to_pylist()):
        metadata.extra["containers"] = names


def _users(columns: dict[str, Any], machine: Machine, symbols: Kallsyms) -> dict[str, Any]:
    """Add the column ``user``; what was noticed on the way, for the metadata."""
    from pageowner.tracker.users.find import with_gone

    found = machine.users(columns["pfn"], columns["order"], columns["page_flags"],
                          symbols)
    columns["user"] = _text(np.maximum(found.codes, 0), found.labels or [""],
                            _Missing(found.codes < 0))
    columns["memcg"] = with_gone(columns["memcg"], found)
    return {"counts": found.counts, "notes": found.notes}


class _Missing:
    """Rows whose value is not known, and the bits that Arrow has for them, made once for all
    columns."""

    def __init__(self, where: NDArray[np.bool_]) -> None:
        self.where = where
        self.count = int(np.count_nonzero(where))
        self._bits = pa.py_buffer(np.packbits(~where, bitorder="little")) if self.count else None

    def __or__(self, other: NDArray[np.bool_]) -> _Missing:
        return _Missing(self.where | other) if other.any() else self

    def array(self, values: NDArray[Any]) -> pa.Array:
        """These numbers, without a copy, and null for what is missing."""
        values = np.ascontiguousarray(values)
        found: pa.Array = pa.Array.from_buffers(
            pa.from_numpy_dtype(values.dtype), len(values), [self._bits, pa.py_buffer(values)],
            self.count)
        return found


def _distinct(values: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Each value's place among the distinct ones, and these. Neighbours are mostly alike."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))[:len(values)]
    encoded = pa.array(values[starts]).dictionary_encode()
    codes = np.repeat(encoded.indices.to_numpy(), np.diff(starts, append=len(values)))
    return codes, encoded.dictionary.to_numpy()


def _masks(masks: NDArray[np.uint32], unknown: _Missing, names: gfp.GfpFlags) -> dict[str, Any]:
    codes, distinct = _distinct(masks)
    texts = [names.decode(int(mask)) for mask in distinct]
    kinds = names.migratetype(distinct).astype(np.int32)
    return {"gfp_mask": unknown.array(masks), "gfp_flags": _coded(texts, codes, unknown),
            "migratetype": _text(kinds[codes], gfp.MIGRATETYPES, unknown)}


def _memcg(numbers: NDArray[np.uint64], known: Cgroups) -> Any:
    codes, distinct = _distinct(numbers)
    return _coded([known.path(int(number)) for number in distinct], codes,
                  _Missing(np.zeros(len(codes), bool)))


def _text(codes: NDArray[Any], values: Sequence[str], missing: _Missing | None = None) -> Any:
    codes = codes.astype(np.int32, copy=False)
    return pa.DictionaryArray.from_arrays(
        pa.array(codes) if missing is None else missing.array(codes),
        pa.array(values, pa.string()))


def _coded(values: Iterable[str | None], index: NDArray[np.int32], missing: _Missing) -> Any:
    """A dictionary column of ``values[index]``, equal texts joined."""
    places: dict[str, int] = {}
    table = np.array([-1 if value is None else places.setdefault(value, len(places))
                      for value in values] or [-1], np.int32)
    codes = table[index]
    if table.min() < 0:
        missing = missing | (codes < 0)
    return _text(codes, list(places), missing)


def _tasks(store: Store, ids: NDArray[np.uint32], unknown: _Missing) -> dict[str, Any]:
    """The columns of each row's task; null where the slot no longer carries the record's id."""
    codes, distinct = _distinct(ids)
    tasks = decoding.tasks(store, distinct)
    known = np.array([task is not None for task in tasks], bool)
    missing = unknown if known.all() else unknown | ~known[codes]
    numbers = np.array([(0, 0) if task is None else (task.pid, task.tgid) for task in tasks],
                       np.uint32).reshape(-1, 2).astype(np.int32)
    return {"pid": missing.array(numbers[:, 0][codes]), "tgid": missing.array(numbers[:, 1][codes]),
            "comm": _coded([None if task is None else task.comm for task in tasks], codes, missing)}


def _stacks(store: Store, ids: NDArray[np.uint32], unknown: _Missing,
            symbols: Kallsyms) -> Any:
    """Each distinct stack as text, without frames of tracing itself."""
    table = store.stacks
    missing = unknown | ((ids == 0) | (ids >= len(table)))
    ids = np.where(ids < len(table), ids, 0)
    counted = np.bincount(ids, minlength=1)
    counted[0] = 0  # of those that are not known
    used = np.flatnonzero(counted)
    texts = decoding.stacks(store, symbols, used.astype(np.uint32))
    place = np.zeros(len(table), np.int32)
    place[used] = np.arange(len(used))
    return _coded(texts, place[ids], missing)


def _between_rows(found: Survey, free: dict[tuple[int, str], tuple[int, ...]],
                  can_be_ended: list[int]) -> dict[str, Any]:
    """What the rows do not tell of memory: where there is any, and which frames without a row are
    not free, as runs (see `pageowner.model.pfn_runs`), the free blocks of each zone by order, from
    /proc/buddyinfo, and which tasks (tgid) could be ended."""
    about: dict[str, Any] = {"spans": pack(joined(found.spans)),
                             "held": pack(joined(found.held)),
                             "free": [[*zone, list(counts)] for zone, counts in free.items()],
                             "tasks": can_be_ended}
    if found.filtered:
        about["filtered"] = pack(joined(found.filtered))
    return about


def _metadata(store: Store, found: Survey, machine: Machine, now_ns: int) -> Metadata:
    facts = store.facts
    counters = store.counters() | found.seen
    counters["missed_in_interrupts"] = store.missed()
    counters["missed_frees"] = store.missed_frees()
    unseen = store.unseen_frees()[0]
    if unseen is not None:
        counters["unseen_frees"] = unseen
    return replace(
        machine.moment(store, now_ns),
        zones=[{"node": zone.node, "name": zone.name, "start_pfn": zone.start_pfn,
                "spanned": zone.spanned, "present": zone.present, "managed": zone.managed}
               for zone in machine.zone_map.zones],
        hooks=store.hook_states(),
        frames=found.frames, counters=counters,
        extra={"since_ns": facts.get("since_ns"), "options": facts.get("options", {}),
               "extfrag": extfrag.events(store, machine.symbols, machine.block_names())})
