"""The state of every page frame now: the tracker's maps and /proc, joined into a snapshot.

Span by span: flags, records, flags again, so that little time lies between; then the texts, each
distinct stack and task once.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.kernel import cgroups, gfp, kallsyms, pageflags, zones
from pageowner.snapshot import Metadata, Snapshot
from pageowner.tracker.accounts import (
    ABSENT,
    CLASSES,
    FREE,
    IS_EARLY,
    RESERVED,
    UNTRACKED,
    Account,
    account,
)
from pageowner.tracker.maps import (
    OWNED,
    RECORD,
    TASK_SLOT,
    TRACING_SYMBOLS,
    Store,
    open_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

__all__ = ["MIGRATE_REASONS", "capture"]

MIGRATE_REASONS = (
    "compaction", "memory_failure", "memory_hotplug", "syscall_or_cpuset",
    "mempolicy_mbind", "numa_misplaced", "contig_range", "longterm_pin", "demotion", "damon")
"""mm/debug.c, migrate_reason_names, by enum migrate_reason (6.12); earlier kernels have fewer."""

_TRIES = 2


@dataclass
class _Rows:
    """Columns of the rows found so far, one array a span."""

    pfn: list[NDArray[np.uint64]] = field(default_factory=list)
    order: list[NDArray[np.uint8]] = field(default_factory=list)
    state: list[NDArray[np.uint8]] = field(default_factory=list)
    record: list[NDArray[np.void]] = field(default_factory=list)
    flags: list[NDArray[np.uint64]] = field(default_factory=list)
    cgroup: list[NDArray[np.uint64]] = field(default_factory=list)


def capture(store: Store | None = None) -> Snapshot:
    """The owners of all pages as the running tracker knows them.

    ``meta.frames`` counts every page frame of the machine in exactly one class of
    `accounts.CLASSES`; ``meta.counters`` holds the tracker's counters and, from this reading,
    ``stale_pages``, ``split_blocks`` and ``reread_pages``. Raises PageownerError if tracking is
    off or this process may not read the maps, the page flags or the symbols.
    """
    if store is None:
        with open_store() as opened:
            return capture(opened)
    symbols = kallsyms.load()
    zone_map = zones.running()
    names = gfp.running()
    rows, frames, seen = _read(store, zone_map, names.bits.get("__GFP_COMP", 0x40000))
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    columns = _columns(store, rows, symbols, zone_map, names)
    return Snapshot.from_columns(columns, _metadata(store, zone_map, frames, seen, now))


def _read(store: Store, zone_map: zones.ZoneMap,
          comp_gfp: int) -> tuple[_Rows, dict[str, int], dict[str, int]]:
    rows = _Rows()
    totals = np.zeros(len(CLASSES), np.int64)
    seen = {"stale_pages": 0, "split_blocks": 0, "reread_pages": 0}
    carried: list[tuple[int, int]] = []
    size = 1 << store.span_shift
    spans = {span.first: span.records for span in store.spans}
    none = np.zeros(size, RECORD)
    flags_file, cgroup_file = _open(pageflags.KPAGEFLAGS), _open(pageflags.KPAGECGROUP)
    try:
        held_back = _deferred(flags_file, zone_map) + _outside(store.facts["ranges"])
        end = _frame_count(flags_file, zone_map)
        for first in range(0, end, size):
            stop = min(first + size, end)
            if not carried and any(one[0] <= first and stop <= one[1] for one in held_back):
                # Nothing here was ever the page allocator's: there is no need to look.
                totals[RESERVED] += stop - first
                continue
            before = _frames(flags_file, first, size)
            live = spans.get(first)
            if live is None and not carried and _none_exists(before):
                totals[ABSENT] += len(before)
                continue
            if live is not None and not carried and _all_free(live, before):
                totals[FREE] += len(before)
                continue
            inside = [(max(start - first, 0), min(stop - first, size)) for start, stop in held_back
                      if start < first + size and stop > first]
            judge = partial(account, comp_gfp=comp_gfp, carried=carried, deferred=inside)
            records, after, done = _settled(store, live if live is not None else none, before,
                                            flags_file, first, judge, seen)
            carried = done.beyond
            totals += np.bincount(done.classes, minlength=len(CLASSES))
            seen["stale_pages"] += done.stale
            seen["split_blocks"] += done.split
            _collect(rows, done, records, after, first,
                     _frames(cgroup_file, first, size) if cgroup_file is not None else None)
    finally:
        for file in (flags_file, cgroup_file):
            if file is not None:
                os.close(file)
    frames = dict(zip(CLASSES, map(int, totals), strict=True))
    del frames[CLASSES[ABSENT]]
    if not frames["filtered"]:
        del frames["filtered"]
    return rows, frames, seen


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if path == pageflags.KPAGECGROUP:
            return None  # a kernel without memory cgroups
        raise PageownerError(
            f"{path} is not there: this kernel is without CONFIG_PROC_PAGE_MONITOR") from None
    except PermissionError as error:
        raise PageownerError(f"cannot read {path}: run as root") from error


def _frames(file: int | None, first: int, count: int) -> NDArray[np.uint64]:
    """One word a frame of a /proc/kpage* file; fewer where memory ends."""
    if file is None:
        return np.zeros(0, np.uint64)
    words = np.empty(count, np.uint64)
    octets = words.view(np.uint8)
    done = 0
    while done < len(octets):
        got = os.preadv(file, [octets[done:].data], first * 8 + done)
        if not got:
            break
        done += got
    return words[:done // 8]


def _deferred(flags_file: int | None, zone_map: zones.ZoneMap) -> list[tuple[int, int]]:
    """Frames (first, behind the last) at the ends of zones that the page allocator was not given.

    See `pageflags.deferred`; only the part of a zone that may be held back is read.
    """
    ranges = []
    for zone in zone_map.zones:
        missing = min(zone.present - zone.managed, zone.spanned)
        start, stop = max(zone.end_pfn - missing, zone.start_pfn), zone.end_pfn
        step = 1 << 20
        while stop > start:
            used = np.flatnonzero(_frames(flags_file, max(stop - step, start),
                                          min(step, stop - start)))
            if len(used):
                start = max(stop - step, start) + int(used[-1]) + 1
                break
            stop -= step
        if start < zone.end_pfn:
            ranges.append((start, zone.end_pfn))
    return ranges


def _outside(ranges: list[list[int]]) -> list[tuple[int, int]]:
    """Frames between the ranges of memory: kernels with a flat memory map know them too."""
    edges = [0, *(edge for one in sorted(ranges) for edge in one), 1 << 62]
    return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)
            if stop > start]


def _frame_count(flags_file: int | None, zone_map: zones.ZoneMap) -> int:
    """One more than the highest pfn that /proc/kpageflags knows."""
    low, high = 0, max((zone.end_pfn for zone in zone_map.zones), default=0)
    while len(_frames(flags_file, high, 1)):
        low, high = high, high * 2 + 1
    while low < high:
        middle = (low + high) // 2
        if len(_frames(flags_file, middle, 1)):
            low = middle + 1
        else:
            high = middle
    return low


def _all_free(live: NDArray[np.void], flags: NDArray[np.uint64]) -> bool:
    return bool(((flags & pageflags.bit("buddy")) != 0).all()) and not live["state"].any()


def _none_exists(flags: NDArray[np.uint64]) -> bool:
    return bool(((flags & pageflags.bit("nopage")) != 0).all())


def _settled(store: Store, live: NDArray[np.void], before: NDArray[np.uint64],
             flags_file: int | None, first: int, judge: Callable[..., Account],
             seen: dict[str, int]) -> tuple[NDArray[np.void], NDArray[np.uint64], Account]:
    """Read a span until no page looks untracked only because it changed hands meanwhile.

    A page counts as untracked if it does so in every reading.
    """
    doubt: NDArray[np.bool_] | None = None
    for again in range(_TRIES):
        records = live.copy()
        after = _frames(flags_file, first, len(before))
        done = judge(records, before, after)
        unknown = done.classes == UNTRACKED
        silent = np.flatnonzero(unknown & (after == 0))
        if len(silent):
            # The flags do not tell a page on a CPU's list of free pages from one in use.
            unused = store.unused((silent + first).astype(np.uint64))
            done.classes[silent[unused]] = FREE
            unknown[silent[unused]] = False
        newly = unknown if doubt is None else unknown & doubt
        if doubt is not None:
            seen["reread_pages"] += int(doubt.sum())
        if not newly.any() or (doubt is not None and again + 1 == _TRIES):
            # What was known in another reading changed hands: it is in flux, not untracked.
            done.classes[unknown & ~newly] = FREE
            return records, after, done
        doubt, before = newly, after
    return records, after, done


def _collect(rows: _Rows, done: Account, records: NDArray[np.void], flags: NDArray[np.uint64],
             first: int, cgroup: NDArray[np.uint64] | None) -> None:
    """Add the owned blocks, and early and untracked pages by compound page, in pfn order."""
    size = len(done.classes)
    owned = records["state"][done.blocks.record] == OWNED
    place = done.blocks.place[owned]
    row = np.zeros(size, np.uint8)  # 1: owned, 2: early, 3: untracked; 0: no row begins here
    order = np.zeros(size, np.uint8)
    source = np.arange(size)
    row[place] = 1
    order[place] = done.blocks.order[owned]
    source[place] = done.blocks.record[owned]
    others = (done.classes == IS_EARLY) | (done.classes == UNTRACKED)
    if others.any():
        heads, sizes = _by_compound(done.classes, others, pageflags.compound_order(flags))
        row[heads] = np.where(done.classes[heads] == IS_EARLY, 2, 3)
        order[heads] = sizes
    places = np.flatnonzero(row)
    if not len(places):
        return
    rows.pfn.append((places + first).astype(np.uint64))
    rows.order.append(order[places])
    rows.state.append(row[places] - np.uint8(1))
    rows.record.append(records[source[places]])
    rows.flags.append(flags[places])
    rows.cgroup.append(cgroup[places] if cgroup is not None and len(cgroup) >= size
                       else np.zeros(len(places), np.uint64))


def _by_compound(classes: NDArray[np.uint8], mine: NDArray[np.bool_],
                 shape: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """First frames and orders of rows for pages without a record: a compound page is one row if
    all of it is of one class, else its pages stand alone."""
    heads = np.flatnonzero(mine)
    sizes = shape[heads]
    large = heads[sizes > 0]
    if not len(large):
        return heads, np.zeros(len(heads), np.uint8)
    ends = np.minimum(large + (np.int64(1) << shape[large].astype(np.int64)), len(mine))
    changes = np.concatenate([[0], np.cumsum(np.diff(classes) != 0)])
    alike = changes[ends - 1] == changes[large]
    large, ends = large[alike], ends[alike]
    inside = np.zeros(len(mine) + 1, np.int32)
    np.add.at(inside, large + 1, 1)
    np.add.at(inside, ends, -1)
    alone = np.cumsum(inside[:-1])[heads] == 0
    orders = np.zeros(len(mine), np.uint8)
    orders[large] = shape[large]
    heads = heads[alone]
    return heads, orders[heads]


def _columns(store: Store, rows: _Rows, symbols: kallsyms.Kallsyms, zone_map: zones.ZoneMap,
             names: gfp.GfpFlags) -> dict[str, Any]:
    if not rows.pfn:
        return {}
    pfn = np.concatenate(rows.pfn)
    state = np.concatenate(rows.state)
    record = np.concatenate(rows.record)
    owned = state == 0
    unknown = ~owned
    tasks = _tasks(store, record["task_id"], owned)
    gfp_codes, gfp_texts = names.decode_all(np.where(owned, record["gfp_mask"], 0))
    kinds = names.migratetype(record["gfp_mask"])
    group_codes, group_paths = cgroups.memory().column(np.concatenate(rows.cgroup))
    reason = record["migrate_reason"].astype(np.int32) - 1
    return {
        "pfn": pfn,
        "order": np.concatenate(rows.order),
        "gfp_mask": pa.array(record["gfp_mask"], mask=unknown),
        "gfp_flags": _text(gfp_codes, gfp_texts, unknown),
        "migratetype": _text(kinds.astype(np.int32), list(gfp.MIGRATETYPES), unknown),
        **tasks,
        "ts_ns": pa.array(record["ts"], mask=unknown),
        "stack": _stacks(store, record["stack_id"], owned, symbols),
        "state": _text(state.astype(np.int32), ["owned", "early", "untracked"],
                       np.zeros(len(state), bool)),
        "zone": zone_map.zone_column(pfn),
        "node": zone_map.node_column(pfn),
        "page_flags": np.concatenate(rows.flags),
        "memcg": _text(group_codes, group_paths, group_codes < 0),
        "migrate_reason": _text(np.clip(reason, 0, len(MIGRATE_REASONS) - 1),
                                list(MIGRATE_REASONS), unknown | (reason < 0)),
    }


def _text(codes: NDArray[np.int32], values: list[str], missing: NDArray[np.bool_]) -> Any:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int32), mask=missing), pa.array(values, pa.string()))


def _coded(values: Iterable[str | None], index: NDArray[np.int32],
           missing: NDArray[np.bool_]) -> Any:
    """A dictionary column of ``values[index]``, equal texts joined."""
    places: dict[str, int] = {}
    codes = np.array([-1 if value is None else places.setdefault(value, len(places))
                      for value in values] or [-1], np.int32)[index]
    return _text(np.maximum(codes, 0), list(places), missing | (codes < 0))


def _tasks(store: Store, ids: NDArray[np.uint32], owned: NDArray[np.bool_]) -> dict[str, Any]:
    """The columns of each row's task; null where the slot no longer carries the record's id."""
    from pageowner.formats.names import to_text

    table = store.tasks.copy()
    slot = (ids & np.uint32(TASK_SLOT)).astype(np.int32)
    slot[slot >= len(table)] = 0
    missing = ~(owned & (ids != 0) & (table["id"][slot] == ids))
    used = np.zeros(len(table), bool)
    used[slot[~missing]] = True
    names = [to_text(bytes(comm)) if wanted else None
             for comm, wanted in zip(table["comm"].tolist(), used.tolist(), strict=True)]
    slot[missing] = 0
    return {"pid": pa.array(table["pid"].astype(np.int32)[slot], mask=missing),
            "tgid": pa.array(table["tgid"].astype(np.int32)[slot], mask=missing),
            "comm": _coded(names, slot, missing)}


def _stacks(store: Store, ids: NDArray[np.uint32], owned: NDArray[np.bool_],
            symbols: kallsyms.Kallsyms) -> Any:
    """Each distinct stack as text, without frames of tracing itself."""
    table = store.stacks
    missing = ~owned | (ids == 0) | (ids >= len(table))
    used = np.zeros(len(table), bool)
    used[ids[~missing]] = True
    wanted = np.flatnonzero(used)
    entries = table[wanted]
    depth = np.arange(store.depth)
    frames = np.where(depth[None, :] < entries["n"][:, None], entries["frames"], 0)
    texts: list[str | None] = []
    for text in symbols.stacks(frames):
        lines = text.split("\n")
        while len(lines) > 1 and lines[0].startswith(TRACING_SYMBOLS):
            del lines[0]
        texts.append("\n".join(lines) or None)
    place = np.zeros(len(table), np.int32)
    place[wanted] = np.arange(len(wanted))
    return _coded(texts, place[np.where(missing, 0, ids)], missing)


def _metadata(store: Store, zone_map: zones.ZoneMap, frames: dict[str, int],
              seen: dict[str, int], now_ns: int) -> Metadata:
    facts = store.facts
    hooks = {hook.name: hook.missed for hook in store.hooks()}
    counters = store.counters() | seen
    counters["missed_in_interrupts"] = sum(hooks.values())
    return Metadata(
        source="", kind="tracker", host=socket.gethostname(), kernel=platform.release(),
        boot_id=str(facts.get("boot_id") or "") or None,
        taken_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), clock_ns=now_ns,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        pageblock_order=zones.pageblock_order(
            zones.read_text("/proc/pagetypeinfo"), zones.read_text("/proc/meminfo")),
        zones=[{"node": zone.node, "name": zone.name, "start_pfn": zone.start_pfn,
                "spanned": zone.spanned, "present": zone.present, "managed": zone.managed}
               for zone in zone_map.zones],
        hooks={name: str(why) for name, why in facts.get("hooks", {}).items()},
        frames=frames, counters=counters,
        extra={"since_ns": facts.get("since_ns"), "options": facts.get("options", {})})
