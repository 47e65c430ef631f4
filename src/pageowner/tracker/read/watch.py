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

from pageowner.kernel import gfp, kallsyms, zones
from pageowner.model.hook_states import is_whole
from pageowner.model.live import LiveBlocks
from pageowner.model.snapshot import Snapshot
from pageowner.tracker import control
from pageowner.tracker.read import reading
from pageowner.tracker.read.capture import capture
from pageowner.tracker.read.decoding import StackTexts, encoded, tasks
from pageowner.tracker.read.maps import EARLY, FILTERED, OWNED, RECORD, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Store

__all__ = ["UNTRACKED", "UNTRACKED_STACKS", "UNTRACKED_VMALLOC", "Sampler", "capture_others"]

UNTRACKED = "untracked"
"""What pages in use without a record are called; see `Sampler.look`."""

IN_MOTION = "in motion (their records were being written)"

UNTRACKED_STACKS = "kernel stacks (untracked; KernelStack in /proc/meminfo)"
UNTRACKED_VMALLOC = "vmalloc (untracked; VmallocUsed in /proc/meminfo)"
"""Those of them that the kernel counts: all kernel stacks, and what vmalloc holds beside."""


class Sampler:
    """Looks at the live pages of a running tracker, but for those of this process itself."""

    def __init__(self, store: Store, fields: Sequence[str] = ()) -> None:
        """A look has the fields ``stack``, ``task`` and ``migratetype``, and of ``order`` and
        ``gfp`` those in ``fields``."""
        self.store = store
        self.fields = {"order", "gfp"} & set(fields)
        self.symbols = kallsyms.load()
        self.gfp = gfp.running()
        self.managed = sum(zone.managed for zone in zones.running().zones)
        self._stacks = StackTexts(store, self.symbols)

    def look(self) -> LiveBlocks:
        """Now (CLOCK_MONOTONIC), the live blocks that have a record, and the pages in use that
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
        records = records[keep]
        return LiveBlocks(now, self._fields(records), pages[keep], records["ts"], others)

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

    def _fields(self, records: NDArray[np.void]) -> dict[str, tuple[NDArray[np.int64], list[Any]]]:
        stack, stacks = encoded(records["stack_id"])
        task, ids = encoded(records["task_id"])
        kinds = self.gfp.migratetype(records["gfp_mask"]).astype(np.int64)
        fields: dict[str, tuple[NDArray[np.int64], list[Any]]] = {
            "stack": (stack, self._stacks.of(stacks.tolist())),
            "task": (task, list(tasks(self.store, ids))),
            "migratetype": (kinds, list(gfp.MIGRATETYPES))}
        if "order" in self.fields:
            order, orders = encoded(records["order"])
            fields["order"] = order, orders.tolist()
        if "gfp" in self.fields:
            mask, masks = encoded(records["gfp_mask"])
            fields["gfp"] = mask, [self.gfp.decode(one) for one in masks.tolist()]
        return fields


def capture_others() -> Snapshot:
    """A whole capture without the pages of this process itself."""
    snapshot = capture()
    others = pa.array(snapshot.table["tgid"].fill_null(-1).to_numpy() != os.getpid())
    return Snapshot(snapshot.table.filter(others), snapshot.meta)
