"""The objects that are followed, as a snapshot: a row for each, that stands for as many as it was
chosen out of."""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.kernel import gfp, kallsyms, pageflags, procpages, slabs
from pageowner.kernel.task_names import to_text
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import OBJECTS
from pageowner.tracker.read import decoding
from pageowner.tracker.read.machine import Machine
from pageowner.tracker.read.maps import Store, open_store
from pageowner.tracker.read.missed import missed_of_objects
from pageowner.tracker.read.objects import PERCPU, Objects, caches, objects
from pageowner.tracker.read.seen import objects_seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Slab", "cache_labels", "capture_objects", "capture_slab", "direct_map"]

_PERCPU = "percpu"

_NEAR = 512
"""Frames so near each other are asked for together: what lies between takes less than a call."""


class Slab(NamedTuple):
    """``objects``: those in one slab that are followed, by their address; the slab is ``pages``
    page frames from ``first`` on, at ``address``."""

    objects: Snapshot
    first: int
    pages: int
    address: int


def capture_slab(store: Store, address: int) -> Slab:
    """The slab at an address of the kernel's direct map.

    An object that a younger one overlaps is left out: its free was not seen, and the page is of
    another slab since. Raises PageownerError if objects are not tracked, the direct map is not
    known, there is no slab there, or this process may not read the maps, the symbols or the page
    flags.
    """
    found, base = objects(store), direct_map(store)
    shift = mmap.PAGESIZE.bit_length() - 1
    pfn = (address - base) >> shift
    run = procpages.compound_run(pfn) if address >= base else None
    if run is None:
        raise PageownerError(f"{address:#x}: not an address of the kernel's direct map, in which"
                             " slabs are")
    first, pages, flags = run
    if not flags & pageflags.bit("slab"):
        raise PageownerError(f"{address:#x}: not in a slab; for its page: pageowner who {pfn:#x}")
    start = base + (first << shift)
    inside = (found.address >= start) & (found.address < start + (pages << shift))
    found = replace(found, address=found.address[inside], rows=found.rows[inside])
    order = np.argsort(found.address)
    order = order[_youngest(found.address[order], found.rows[order])]
    found = replace(found, address=found.address[order], rows=found.rows[order])
    return Slab(_snapshot(store, found, _frames(store, found), 0), first, pages, start)


def direct_map(store: Store) -> int:
    """Where the kernel maps all memory. Raises PageownerError if `on` could not find it."""
    base = int(store.facts.get("direct_map") or 0)
    if not base:
        raise PageownerError("where this kernel maps all memory was not found, so that no slab is"
                             " known by its page; 'sudo pageowner off' and 'sudo pageowner on"
                             " --objects' look for it again")
    return base


def _youngest(address: NDArray[np.uint64], rows: NDArray[np.void]) -> list[int]:
    """Those of a slab's objects, in order of their address, that no younger one overlaps."""
    kept: list[int] = []
    for place in range(len(address)):
        # Each may take the place of the last ones, which begin before it.
        while kept and address[kept[-1]] + rows["bytes"][kept[-1]] > address[place] and (
                rows["ts"][kept[-1]] < rows["ts"][place]):
            kept.pop()
        if not kept or address[kept[-1]] + rows["bytes"][kept[-1]] <= address[place]:
            kept.append(place)
    return kept


def capture_objects(store: Store | None = None) -> Snapshot:
    """The owners of the objects that the running tracker follows.

    A row is one object: ``address``, ``cache``, ``requested`` bytes, and as in a capture of pages
    its stack, task and time. It stands for ``blocks`` objects of ``amount`` bytes in all, since one
    in so many is followed: ``meta.extra["objects"]`` has the number (``share``), how many objects
    of each cache are in use by /proc/slabinfo (``there``), and how many of these at most are older
    than tracking (``early``; empty where only some tasks' are tracked); ``meta.counters`` what was
    lost, and ``meta.hooks`` through which hooks objects are seen.

    Raises PageownerError if tracking is off or without objects, or this process may not read the
    maps or the symbols.
    """
    if store is None:
        with open_store() as opened:
            return capture_objects(opened)
    found = objects(store)
    frames, stale = _frames(store, found), 0
    if (gone := _gone(frames)) is not None and gone.any():
        stale = _still(store, found, gone)
        found = replace(found, address=found.address[~gone], rows=found.rows[~gone])
        frames = frames.filter(pa.array(~gone))
    return _snapshot(store, found, frames, stale)


def _snapshot(store: Store, found: Objects, frames: pa.Array, stale: int) -> Snapshot:
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    columns = {"pfn": frames, **_columns(store, found, kallsyms.load())}
    hooks = objects_seen(store.facts.get("object_hooks", {}), store.counters())
    metadata = replace(
        Machine().moment(store, now, counts_types=False), kind=OBJECTS, page_size=1, hooks=hooks,
        counters=_counters(store, found) | {"objects_stale": stale},
        extra={"since_ns": store.facts.get("since_ns"), "options": store.facts.get("options", {}),
               "objects": {"share": found.share, "there": _there()}})
    metadata.extra["objects"]["early"] = {} if metadata.of_some_tasks() else _early(
        metadata.extra["objects"]["there"], columns)
    store.check_on()
    return Snapshot.from_columns(columns, metadata)


def _columns(store: Store, found: Objects, symbols: kallsyms.Kallsyms) -> dict[str, Any]:
    rows = found.rows
    task_ids, task_of = np.unique(rows["task_id"], return_inverse=True)
    tasks = decoding.tasks(store, task_ids)
    stack_ids, stack_of = np.unique(rows["stack_id"], return_inverse=True)
    masks, mask_of = np.unique(rows["gfp_mask"], return_inverse=True)
    flags = gfp.running()
    comms = [None if task is None else task.comm for task in tasks]
    numbers = [(None, None) if task is None else (task.pid, task.tgid) for task in tasks]
    share = np.uint64(found.share)
    codes, labels = cache_labels(store, rows)
    names = _taken(labels, codes)
    return {
        "address": found.address,
        "cache": names,
        "requested": rows["requested"],
        "migratetype": _migratetypes(names),
        "gfp_mask": rows["gfp_mask"],
        "gfp_flags": _taken([flags.decode(int(mask)) for mask in masks], mask_of),
        "pid": pa.array([pid for pid, _ in numbers], pa.int32()).take(pa.array(task_of)),
        "tgid": pa.array([tgid for _, tgid in numbers], pa.int32()).take(pa.array(task_of)),
        "comm": _taken(comms, task_of),
        "ts_ns": rows["ts"],
        "stack": _taken(decoding.stacks(store, symbols, stack_ids), stack_of),
        "blocks": np.full(len(rows), share),
        "amount": rows["bytes"].astype(np.uint64) * share,
    }


def _frames(store: Store, found: Objects) -> pa.Array:
    """The page frame of each object; null for percpu memory, and where the direct map is unknown.
    """
    base = int(store.facts.get("direct_map") or 0)
    inside = (found.rows["cache"] != PERCPU) & (found.address >= base) & bool(base)
    shift = np.uint64(mmap.PAGESIZE.bit_length() - 1)
    return pa.array((found.address - np.uint64(base)) >> shift, mask=~inside)


def _gone(frames: pa.Array) -> NDArray[np.bool_] | None:
    """Which objects lie in a page that is no slab's any more, so that their free was not seen: the
    kernel marks every page of a slab, and of KFENCE (fs/proc/page.c, stable_page_flags). None where
    it shows no flags."""
    pfns = frames.fill_null(0).to_numpy()
    asked = np.unique(pfns[frames.is_valid().to_numpy(zero_copy_only=False)])
    if not len(asked) or not os.path.exists(procpages.KPAGEFLAGS):
        return None
    runs = np.split(asked, np.flatnonzero(np.diff(asked) > _NEAR) + 1)
    flags = np.zeros(len(asked), np.uint64)
    file = procpages.opened(procpages.KPAGEFLAGS)
    try:
        for run in runs:
            first = int(run[0])
            words = pageflags.words(file, first, int(run[-1]) - first + 1)
            inside = run - np.uint64(first) < len(words)
            place = np.searchsorted(asked, run[inside])
            flags[place] = words[(run[inside] - np.uint64(first)).astype(np.int64)]
    finally:
        os.close(file)
    is_slab = flags & np.uint64(pageflags.bit("slab")) != 0
    known = frames.is_valid().to_numpy(zero_copy_only=False)
    gone = np.zeros(len(pfns), bool)
    gone[known] = ~is_slab[np.searchsorted(asked, pfns[known])]
    return gone


def _still(store: Store, found: Objects, gone: NDArray[np.bool_]) -> int:
    """How many of these are there yet, now that their page was seen to be no slab's; others were
    freed between the two looks, with their slab."""
    now = objects(store)
    if not len(now.address):
        return 0
    order = np.argsort(now.address)
    place = np.minimum(np.searchsorted(now.address[order], found.address[gone]), len(order) - 1)
    there = now.address[order][place] == found.address[gone]
    return int((there & (now.rows["ts"][order][place] == found.rows["ts"][gone])).sum())


def _taken(texts: Sequence[str | None], codes: NDArray[np.intp]) -> pa.DictionaryArray:
    """A dictionary column of ``texts[codes]``, equal texts joined."""
    return pa.array(texts, pa.string()).dictionary_encode().take(pa.array(codes))


def cache_labels(store: Store, rows: NDArray[np.void]
                 ) -> tuple[NDArray[np.int64], list[str | None]]:
    """Each object's place among the names of caches, and these; one that is not known is of
    kmalloc() by its size, or percpu, where the allocator has no caches."""
    table = caches(store)
    names = [to_text(name.split(b"\0", 1)[0]) if address and not address & 1 else ""
             for address, name in zip(table["address"].tolist(), table["name"].tolist(),
                                      strict=True)]
    codes = np.where(rows["cache"] < len(names), rows["cache"], 0).astype(np.int64)
    unknown = np.array([not name for name in names])[codes]
    sizes, size_of = np.unique(rows["bytes"][unknown], return_inverse=True)
    labels = [*names, *(f"kmalloc-{size}" if size else None for size in sizes.tolist()), _PERCPU]
    codes[unknown] = len(names) + size_of
    codes[rows["cache"] == PERCPU] = len(labels) - 1
    return codes, labels


def _migratetypes(names: pa.DictionaryArray) -> pa.DictionaryArray:
    """Reclaimable where the kernel can take back what the cache holds, such as dentries."""
    labels = names.dictionary.to_pylist()
    taken_back = slabs.reclaimable_names(labels) or set()
    kinds = [gfp.MIGRATETYPES[2] if label in taken_back else gfp.MIGRATETYPES[0]
             for label in (*labels, None)]  # the last for objects of a cache that is not known
    return _taken(kinds, names.indices.fill_null(len(labels)).to_numpy())


def _counters(store: Store, found: Objects) -> dict[str, int]:
    counters = {name: number for name, number in store.counters().items()
                if name.startswith(("object", "stacks_"))}
    return counters | {"objects_missed": missed_of_objects(store),
                       "objects_in_motion": found.in_motion}


def _early(there: dict[str, int], columns: dict[str, Any]) -> dict[str, int]:
    """Of each cache how many objects are in use and not among these. At most, since the kernel
    counts as in use all of a slab that a CPU allocates from (mm/slub.c, get_slabinfo)."""
    names = columns["cache"]
    known_names = names.is_valid().to_numpy(zero_copy_only=False)
    counted = np.bincount(names.indices.drop_null().to_numpy(),
                          columns["blocks"].astype(float)[known_names], len(names.dictionary))
    known = dict(zip(names.dictionary.to_pylist(), counted.astype(np.int64).tolist(), strict=True))
    return {name: left for name, number in there.items()
            if (left := number - known.get(name, 0)) > 0}


def _there() -> dict[str, int]:
    """Objects in use of each slab cache, by the kernel's own count; empty where it has none."""
    try:
        text = Path("/proc/slabinfo").read_text(errors="backslashreplace")
    except OSError:
        return {}
    return {cache.name: cache.active for cache in slabs.parse_slabinfo(text)}
