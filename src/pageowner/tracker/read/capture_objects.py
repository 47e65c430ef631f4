"""The objects that are followed, as a snapshot: a row for each, that stands for as many as it was
chosen out of."""

from __future__ import annotations

import math
import mmap
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.kernel import gfp, kallsyms, pageflags, procpages, slabs
from pageowner.kernel.task_names import to_text
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import OBJECTS
from pageowner.tracker.read import decoding
from pageowner.tracker.read.gone_objects import frames, standing
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

_DEVIATIONS = 3
"""So far apart an estimate and the kernel's count may be by chance, of any cache of many."""


class Slab(NamedTuple):
    """``objects``: those in one slab that are followed, by their address; the slab is ``pages``
    page frames from ``first`` on, at ``address``."""

    objects: Snapshot
    first: int
    pages: int
    address: int


def capture_slab(store: Store, address: int) -> Slab:
    """The slab at an address of the kernel's direct map.

    Objects of which something shows that they are gone are left out (`gone_objects`). Raises
    PageownerError if objects are not tracked, the direct map is not known, there is no slab there,
    or this process may not read the maps, the symbols or the page flags.
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
    order = np.flatnonzero(inside)[np.argsort(found.address[inside])]
    found, stale = standing(
        store, replace(found, address=found.address[order], rows=found.rows[order]))
    return Slab(_snapshot(store, found, stale, {}), first, pages, start)


def direct_map(store: Store) -> int:
    """Where the kernel maps all memory. Raises PageownerError if `on` could not find it."""
    base = int(store.facts.get("direct_map") or 0)
    if not base:
        raise PageownerError("where this kernel maps all memory was not found, so that no slab is"
                             " known by its page; 'sudo pageowner off' and 'sudo pageowner on"
                             " --objects' look for it again")
    return base


def capture_objects(store: Store | None = None) -> Snapshot:
    """The owners of the objects that the running tracker follows.

    A row is one object: ``address``, ``cache``, ``requested`` bytes, and as in a capture of pages
    its stack, task and time. It stands for ``blocks`` objects of ``amount`` bytes in all, since one
    in so many is followed: ``meta.extra["objects"]`` has the number (``share``), how many objects
    of each cache are in use by /proc/slabinfo (``there``), how many of these at most are older than
    tracking (``early``) and how many more are not among the rows (``later``; both are lacking where
    only some tasks' are tracked); ``meta.counters`` what was lost, and ``meta.hooks`` through which
    hooks objects are seen. Objects of which something shows that they are gone are left out
    (`gone_objects`).

    Raises PageownerError if tracking is off or without objects, or this process may not read the
    maps or the symbols.
    """
    if store is None:
        with open_store() as opened:
            return capture_objects(opened)
    store.renew()
    in_use = slabs.in_use()
    return _snapshot(store, *standing(store, objects(store)), in_use)


def _snapshot(store: Store, found: Objects, stale: int, in_use: dict[str, int]) -> Snapshot:
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    pfns, known = frames(store, found)
    columns = {"pfn": pa.array(pfns, mask=~known), **_columns(store, found, kallsyms.load())}
    hooks = objects_seen(store.facts.get("object_hooks", {}), store.counters())
    metadata = replace(
        Machine().moment(store, now, counts_types=False), kind=OBJECTS, page_size=1, hooks=hooks,
        counters=_counters(store, found) | {"objects_stale": stale},
        extra={"since_ns": store.facts.get("since_ns"), "options": store.facts.get("options", {}),
               "objects": {"share": found.share, "there": in_use}})
    if not metadata.of_some_tasks():
        about = metadata.extra["objects"]
        about["early"], about["later"] = _not_followed(
            about["there"], store.facts.get("objects_before") or None, found.share, columns)
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


def _not_followed(there: dict[str, int], before: dict[str, int] | None, share: int,
                  columns: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Objects of each cache that are in use and not among these: how many of them at most are older
    than tracking, and how many are not.

    ``there``, ``before``: in use now, and when tracking began, if that is known. The kernel counts
    as in use all of a slab that a CPU allocates from (mm/slub.c, get_slabinfo).
    """
    names = columns["cache"]
    known_names = names.is_valid().to_numpy(zero_copy_only=False)
    counted = np.bincount(names.indices.drop_null().to_numpy(),
                          columns["blocks"].astype(float)[known_names], len(names.dictionary))
    known = dict(zip(names.dictionary.to_pylist(), counted.astype(np.int64).tolist(), strict=True))
    left = {name: number - known.get(name, 0) for name, number in there.items()}
    early = {name: number if before is None else min(number, before.get(name, 0))
             for name, number in left.items()}
    later = {name: number - early[name] for name, number in left.items()
             if number - early[name] > _DEVIATIONS * math.sqrt(there[name] * (share - 1))}
    return {name: number for name, number in early.items() if number > 0}, later
