"""Who owns what right now, over and over, for a fraction of what a capture costs.

A capture looks at every page frame's flags; here only the records are read, in place. What is in
use and has no record shows in the kernel's own sums (/proc/zoneinfo), and is told as one number.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import Key, blocks_pages, key
from pageowner.analysis.leaks import RECLAIMABLE, Rows, programs, rows_of
from pageowner.analysis.subsystems import PRIVATE, distinctive_frame, module_of, subsystem
from pageowner.kernel import gfp, kallsyms, zones
from pageowner.kernel.task_names import to_text
from pageowner.model.hook_states import is_whole
from pageowner.model.snapshot import Snapshot
from pageowner.tracker import control
from pageowner.tracker.read import reading
from pageowner.tracker.read.capture import capture, stack_texts
from pageowner.tracker.read.maps import EARLY, FILTERED, OWNED, RECORD, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.filters import Filter
    from pageowner.tracker.read.maps import Store

__all__ = ["UNTRACKED", "UNTRACKED_STACKS", "UNTRACKED_VMALLOC", "CaptureSampler",
           "Sampler", "untracked_by_kind"]

_CHEAP_KEYS = frozenset({"stack", "module", "subsystem", "frame", "comm", "pid", "tgid", "order",
                         "gfp", "migratetype"})

UNTRACKED = "untracked"
"""What pages in use without a record are called; see `Sampler.look`."""

IN_MOTION = "in motion (their records were being written)"

UNTRACKED_STACKS = "kernel stacks (untracked; KernelStack in /proc/meminfo)"
UNTRACKED_VMALLOC = "vmalloc (untracked; VmallocUsed in /proc/meminfo)"
"""Those of them that the kernel counts: all kernel stacks, and what vmalloc holds beside."""

_OF_STACK: dict[str, Callable[[str], str]] = {
    "stack": str, "module": module_of, "subsystem": subsystem, "frame": distinctive_frame}


class Sampler:
    """Looks at the live pages of a running tracker, but for those of this process itself."""

    @staticmethod
    def answers(names: Sequence[str]) -> bool:
        """Whether records alone tell these keys; else it takes a `CaptureSampler`."""
        return _CHEAP_KEYS.issuperset(names)

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self.store = store
        self.names = list(names)
        self.symbols = kallsyms.load()
        self.gfp = gfp.running()
        self.managed = sum(zone.managed for zone in zones.running().zones)
        self._texts: dict[int, str | None] = {}

    def look(self) -> tuple[int, Rows, dict[str, int]]:
        """Now (CLOCK_MONOTONIC ns), the live blocks that have a record, and the pages in use that
        have none by what they are: exact where the kernel counts such, the rest only as exact as
        memory stands still for a tenth of a second."""
        if self.store.directory:
            control.attend()
        free = zones.free_pages(zones.read_text("/proc/zoneinfo"))
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        parts = [np.zeros(0, RECORD)]
        known = moving = 0
        for span in self.store.spans:
            taken = reading.whole(span.records)
            state = taken["state"]
            known += int(np.count_nonzero(state == EARLY))
            known += reading.pages_of(taken, FILTERED)
            moving += reading.pages_of(taken, WRITTEN)
            parts.append(taken[state == OWNED])
        records = np.concatenate(parts)
        free += zones.free_pages(zones.read_text("/proc/zoneinfo"))
        pages = np.int64(1) << records["order"].astype(np.int64)
        known += int(pages.sum())
        others = self._unseen()
        if moving:
            others[IN_MOTION] = moving
        # Below 0 where a record outlived its page: what counts is whether it rises.
        others[UNTRACKED] = self.managed - free // 2 - known - sum(others.values())
        mine = self._own(records["task_id"])
        # What came after the clock was read is left to the next look.
        keep = ~mine & (records["ts"] <= now)
        return now, self._rows(records[keep], pages[keep]), others

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

    def _own(self, ids: NDArray[np.uint32]) -> NDArray[np.bool_]:
        table = self.store.tasks
        own = table["id"][table["tgid"] == os.getpid()]
        mine: NDArray[np.bool_] = np.isin(ids, own[own != 0])
        return mine

    def _rows(self, records: NDArray[np.void], pages: NDArray[np.int64]) -> Rows:
        stack, texts = self._stacks(records["stack_id"])
        migratetype = gfp.MIGRATETYPES.index("Reclaimable")
        uses = [None if text is None else subsystem(text) for text in texts]
        cache = np.array([use in RECLAIMABLE for use in uses], bool)[stack]
        private = np.array([use in PRIVATE for use in uses], bool)[stack]
        kinds = self.gfp.migratetype(records["gfp_mask"])
        keys = [self._key(name, records, stack, texts, kinds) for name in self.names]
        nothing = Key("note", np.zeros(len(records), np.int64), pa.nulls(1, pa.string()))
        comm, pid, tgid = (self._task(one, records["task_id"]) for one in ("comm", "pid", "tgid"))
        program, called = programs(self.names, private, comm, pid, tgid)
        return Rows(keys, pages, records["ts"], cache | (kinds == migratetype), nothing, program,
                    called, comm, tgid)

    def _key(self, name: str, records: NDArray[np.void], stack: NDArray[np.int64],
             texts: list[str | None], kinds: NDArray[np.uint8]) -> Key:
        if name in _OF_STACK:
            derive = _OF_STACK[name]
            return _joined(name, stack,
                           [None if text is None else derive(text) for text in texts])
        if name in ("comm", "pid", "tgid"):
            return self._task(name, records["task_id"])
        if name == "migratetype":
            return Key(name, kinds.astype(np.int64), pa.array(gfp.MIGRATETYPES))
        if name == "order":
            return Key(name, records["order"].astype(np.int64), pa.array(np.arange(256)))
        codes, distinct = _distinct(records["gfp_mask"])
        return _joined(name, codes, [self.gfp.decode(int(mask)) for mask in distinct])

    def _stacks(self, ids: NDArray[np.uint32]) -> tuple[NDArray[np.int64], list[str | None]]:
        """Each record's place in a list of stacks, and these as text; each is looked up once."""
        codes, distinct = _distinct(ids)
        table = self.store.stacks
        new = [int(one) for one in distinct
               if int(one) not in self._texts and 0 < one < len(table)]
        if new:
            entries = table[new]
            depth = np.arange(self.store.depth)
            frames = np.where(depth[None, :] < entries["n"][:, None], entries["frames"], 0)
            self._texts.update((one, text) for one, text in zip(
                new, stack_texts(self.symbols, frames), strict=True) if text is not None)
        return codes, [self._texts.get(int(one)) for one in distinct]

    def _task(self, name: str, ids: NDArray[np.uint32]) -> Key:
        codes, distinct = _distinct(ids)
        labels: list[Any] = [
            None if not known else
            to_text(bytes(entry["comm"])) if name == "comm" else int(entry[name])
            for entry, known in zip(*reading.known_tasks(self.store.tasks, distinct), strict=True)]
        return _joined(name, codes, labels)


class CaptureSampler:
    """The same by whole captures, for keys and filters that records alone do not answer."""

    def __init__(self, names: Sequence[str], chosen: Filter) -> None:
        self.names, self.chosen = list(names), chosen

    def look(self) -> tuple[int, Rows, dict[str, int]]:
        """Now and the live blocks; untracked ones are among these."""
        snapshot = capture()
        others = pa.array(snapshot.table["tgid"].fill_null(-1).to_numpy() != os.getpid())
        snapshot = Snapshot(snapshot.table.filter(others), snapshot.meta).where(self.chosen)
        assert snapshot.meta.clock_ns is not None
        return snapshot.meta.clock_ns, rows_of(snapshot, self.names), {}


def untracked_by_kind(store: Store) -> dict[str, int]:
    """Pages in use without a record, by what their page flags say they are."""
    found = capture(store).select(state="untracked")
    use = key(found, "subsystem")
    pages = np.bincount(use.codes, blocks_pages(found), len(use.labels)).astype(np.int64)
    return dict(zip(use.labels.to_pylist(), pages.tolist(), strict=True))


def _distinct(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    encoded = pa.array(values).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_numpy()


def _joined(name: str, codes: NDArray[np.int64], labels: list[Any]) -> Key:
    """Equal labels as one."""
    places: dict[Any, int] = {}
    joined = np.array([places.setdefault(label, len(places)) for label in labels] or [0], np.int64)
    return Key(name, joined[codes] if len(codes) else codes, pa.array(list(places) or [None]))
