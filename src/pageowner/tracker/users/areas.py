"""Areas of vmalloc and kernel stacks: which page frames they have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pageowner.kernel.page_tables import UNKNOWN
from pageowner.kernel.vmalloc_areas import is_stack_caller
from pageowner.tracker.users.layout import CHUNK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel.kallsyms import Kallsyms
    from pageowner.tracker.users.memory import KernelMemory
    from pageowner.tracker.users.tables import PageTables

__all__ = ["PERCPU", "VMAP_AREA", "Areas", "cache_names", "credible", "find_areas", "in_use",
           "label", "same_areas", "stack_frames"]

PERCPU = "pcpu_get_vm_areas"
"""The caller of the areas that hold percpu chunks (mm/percpu-vm.c), which list no pages."""

VMAP_AREA = "vmap_area"
"""The slab cache of struct vmap_area."""

VM_MAP = 0x4
"""What vmap() made: the pages are somebody else's, unless VM_MAP_PUT_PAGES gave them to the area
(include/linux/vmalloc.h)."""

_MOST_PAGES = CHUNK_BYTES // 2 // 8
_KERNEL = np.uint64(1 << 63)
_SEEN = 64
"""Bytes of a page that are compared."""


class Areas(NamedTuple):
    """``areas``: `layout.AREA`; ``callers``: the function that asked for each; ``area``: of each
    page of ``pfn`` the place among the areas; ``unread``: areas whose list of pages was not
    readable."""

    areas: NDArray[Any]
    callers: list[str]
    pfn: NDArray[np.uint64]
    area: NDArray[np.int64]
    unread: int


def cache_names(sys: str = "/sys") -> frozenset[str]:
    """What the slab cache of struct vmap_area may be called: caches of one object size are one
    under the name of the first (mm/slab_common.c, find_mergeable), and /sys/kernel/slab has links
    of all their names to it."""
    top, own = f"{sys}/kernel/slab", VMAP_AREA
    try:
        target = os.readlink(f"{top}/{own}")
        with os.scandir(top) as entries:
            return frozenset({own, *(entry.name for entry in entries if entry.is_symlink()
                                     and os.readlink(entry.path) == target)})
    except OSError:
        return frozenset((own,))


def find_areas(memory: KernelMemory, tables: PageTables, symbols: Kallsyms,
               slabs: NDArray[np.uint64], orders: NDArray[np.uint8], sizes: NDArray[np.uint32]
               ) -> Areas:
    """All areas, of the slabs (page frames, orders, bytes from object to object) that may hold a
    struct vmap_area: no list of them can be found without symbols that few kernels show, but an
    area that is in use is in one, and belongs to a struct vm_struct of its address."""
    addresses = [np.zeros(0, np.uint64)]
    base, layout = memory.anchors.direct_map, memory.layout
    if base is not None:
        for order, size in {(int(o), int(s)) for o, s in zip(orders, sizes, strict=True)}:
            of_these = (orders == order) & (sizes == size)
            whole = 1 << memory.page_shift + order
            if size < layout["area_size"] or whole > CHUNK_BYTES // 2:
                continue
            start = np.uint64(base) + (slabs[of_these] << np.uint64(memory.page_shift))
            raw, _ = memory.copy(start, whole)
            objects = raw[:, :whole // size * size].reshape(len(raw), -1, size)
            begin, vm = (np.ascontiguousarray(objects[:, :, at:at + 8]).view(np.uint64)[:, :, 0]
                         for at in (layout["area_start"], layout["area_vm"]))
            slab, place = np.nonzero((begin >= _KERNEL) & (vm >= _KERNEL))
            addresses.append(start[slab] + place.astype(np.uint64) * np.uint64(size))
    areas = memory.areas(np.concatenate(addresses))
    areas = areas[credible(areas, memory.page_shift)]
    areas = areas[in_use(memory, tables, areas)]
    pfn, area, unread = _frames(memory, areas)
    # One that was freed while its list was read may have had another's.
    same = same_areas(areas, memory.areas(areas["address"]))
    callers = [name.partition("+")[0] for name in symbols.resolve(areas["caller"])]
    return Areas(areas, callers, pfn[same[area]], area[same[area]],
                 unread + int(np.count_nonzero(~same)))


def credible(areas: NDArray[Any], page_shift: int) -> NDArray[np.bool_]:
    """Which of these (`layout.AREA`) can be areas that are in use: whole pages of the kernel's
    addresses, with room for the pages that they list."""
    size = areas["end"] - areas["start"]
    found: NDArray[np.bool_] = (
        (areas["state"] == 1) & (areas["start"] >= _KERNEL) & (areas["end"] > areas["start"])
        & ((areas["start"] | areas["end"]) & np.uint64((1 << page_shift) - 1) == 0)
        & (areas["count"].astype(np.uint64) << np.uint64(page_shift) <= size))
    return found


def in_use(memory: KernelMemory, tables: PageTables, areas: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of these have their first page where they begin.

    An area that was freed keeps its structs for long, unchanged: it waits to be purged with others,
    and a free object of a slab is as it was left. Its pages are somebody else's by then. But it is
    unmapped at once (mm/vmalloc.c, free_unmap_vmap_area), or another area is mapped there. Where
    page tables do not tell which page is, what is in it has to.
    """
    lists = (areas["count"] > 0) & (areas["pages"] != 0)
    found: NDArray[np.bool_] = ~lists
    mine = np.flatnonzero(lists)
    listed, good = memory.copy(areas["pages"][mine], 8)
    pfn = (listed.view(np.uint64).ravel() - np.uint64(memory.anchors.vmemmap)
           ) // np.uint64(memory.layout["page_size_of"])
    frame = tables.frames_at(areas["start"][mine])
    found[mine] = good & (frame >= 0) & (frame == pfn.astype(np.int64))
    unknown = np.flatnonzero(good & (frame == UNKNOWN))
    shown, mapped = memory.copy(areas["start"][mine[unknown]], _SEEN)
    found[mine[unknown]] = mapped
    base = memory.anchors.direct_map
    rivals = np.flatnonzero(mapped & _overlapping(areas)[mine[unknown]])
    if len(rivals) and base is not None:
        held, there = memory.copy(
            np.uint64(base) + (pfn[unknown[rivals]] << np.uint64(memory.page_shift)), _SEEN)
        found[mine[unknown[rivals]]] = there & (held == shown[rivals]).all(axis=1)
    return found


def _overlapping(areas: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of these have addresses of others."""
    order = np.argsort(areas["start"], kind="stable")
    start, end = areas["start"][order], areas["end"][order]
    behind = start[1:] < np.maximum.accumulate(end)[:-1]
    found = np.zeros(len(areas), bool)
    found[order[1:]] = behind
    found[order[:-1]] |= start[1:] < end[:-1]
    return found


def same_areas(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether two readings are of the same areas."""
    same: NDArray[np.bool_] = after["state"] == 1
    for name in ("start", "end", "vm", "caller", "pages", "count", "flags"):
        same &= before[name] == after[name]
    return same


def stack_frames(memory: KernelMemory, tasks: NDArray[Any]) -> tuple[
        NDArray[np.uint64], NDArray[np.int64], int]:
    """The page frames of the tasks' kernel stacks, the place of each one's task, and how many
    stacks could not be read."""
    if memory.layout["has_stack_areas"]:
        mine = np.flatnonzero(tasks["area"])
        areas = memory.areas(tasks["area"][mine], of_vm_structs=True)
        # The task's stack begins where its area does, unless the task has gone.
        good = credible(areas, memory.page_shift) & (areas["start"] == tasks["stack"][mine])
        areas, owner = areas[good], mine[good]
        pfn, area, unread = _frames(memory, areas)
        same = same_areas(areas, memory.areas(areas["address"], of_vm_structs=True))
        lost = int(np.count_nonzero(~good)) + int(np.count_nonzero(~same))
        return pfn[same[area]], owner[area[same[area]]], unread + lost
    base = memory.anchors.direct_map
    if base is None:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), len(tasks)
    mine = np.flatnonzero(tasks["stack"] >= np.uint64(base))
    pfn = (tasks["stack"][mine] - np.uint64(base)) >> np.uint64(memory.page_shift)
    return pfn, mine, 0


def _frames(memory: KernelMemory, areas: NDArray[Any]) -> tuple[
        NDArray[np.uint64], NDArray[np.int64], int]:
    """The page frames that areas list, the place of each one's area, and how many lists could not
    be read."""
    own = np.flatnonzero((areas["count"] > 0) & (areas["pages"] != 0))
    count = areas["count"][own].astype(np.int64)
    pieces = (count + _MOST_PAGES - 1) // _MOST_PAGES  # lists that do not fit into one copy
    owner = np.repeat(own, pieces)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    length = np.minimum(areas["count"][owner].astype(np.int64) - nth * _MOST_PAGES, _MOST_PAGES)
    start = areas["pages"][owner] + (nth * _MOST_PAGES * 8).astype(np.uint64)
    pfns, places, unread = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for size in np.unique(length).tolist():
        these = length == size
        raw, good = memory.copy(start[these], size * 8)
        offset = raw[good].view(np.uint64).ravel() - np.uint64(memory.anchors.vmemmap)
        each = np.uint64(memory.layout["page_size_of"])
        whole = offset % each == 0
        pfns.append((offset // each)[whole])
        places.append(np.repeat(owner[these][good], size)[whole])
        unread += int(np.count_nonzero(~good))
    return np.concatenate(pfns), np.concatenate(places), unread


def label(caller: str, flags: int) -> str:
    """What the pages of an area are called, by its caller and flags."""
    if is_stack_caller(caller):
        return "kernel stacks kept for new tasks"
    if caller == PERCPU:
        return "per-CPU memory"
    return f"vmap {caller}" if flags & VM_MAP else f"vmalloc {caller}"


