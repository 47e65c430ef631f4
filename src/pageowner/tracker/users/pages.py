"""Blocks of pages: what their page structs point to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pageowner.tracker.users.layout import CHUNK_BYTES, NOT_KNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.tracker.users.memory import KernelMemory

__all__ = ["COLUMNS", "Pages", "columns_of", "read_columns"]

COLUMNS = {"mapping": ("page_mapping", "u8"), "cache": ("slab_cache", "u8"),
           "type": ("page_type", "u4"), "magic": ("page_pool_magic", "u8"),
           "pool": ("page_pool", "u8")}
"""What is kept of a page struct: the word of `layout.LAYOUT` that says where it is, its type."""

_SUBSECTION = 512
"""Frames of 4 KiB whose page structs are there or not there together (include/linux/mmzone.h,
SUBSECTION_SHIFT)."""


@dataclass
class Pages:
    """Blocks in order of their first page frames ``pfn``, of 2**``order`` pages, with the bits of
    /proc/kpageflags."""

    pfn: NDArray[np.uint64]
    order: NDArray[np.uint8]
    flags: NDArray[np.uint64]

    def places_of(self, pfn: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The block that each frame is in, and whether there is one."""
        place: NDArray[np.int64] = np.searchsorted(self.pfn, pfn, "right") - 1
        inside = place >= 0
        place[~inside] = 0
        if len(self.pfn):
            inside &= (pfn - self.pfn[place]) >> self.order[place].astype(np.uint64) == 0
        else:
            inside[:] = False
        return place, inside


def columns_of(raw: NDArray[np.uint8], layout: dict[str, int]) -> dict[str, NDArray[np.uint64]]:
    """`COLUMNS` of page structs, an array of bytes of the shape (pages, size of a page struct);
    zeros for what this kernel does not have."""
    found = {}
    for name, (where, kind) in COLUMNS.items():
        at, size = layout[where], np.dtype(kind).itemsize
        if at == NOT_KNOWN:
            found[name] = np.zeros(len(raw), kind)
        else:
            found[name] = np.ascontiguousarray(raw[:, at:at + size]).view(kind)[:, 0]
    return found


def read_columns(memory: KernelMemory, pfn: NDArray[np.uint64]) -> tuple[
        dict[str, NDArray[np.uint64]], NDArray[np.bool_]]:
    """`COLUMNS` of these frames, which are in order, and which of them could be read."""
    whole = {name: np.zeros(len(pfn), kind) for name, (_, kind) in COLUMNS.items()}
    good = np.zeros(len(pfn), bool)
    at_once = CHUNK_BYTES // memory.layout["page_size_of"] // _SUBSECTION * _SUBSECTION
    chunk = pfn // np.uint64(at_once)
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(pfn)]
    for start, stop in pairwise(edges):
        if stop == start:
            continue
        first = int(chunk[start]) * at_once
        raw = memory.page_structs(first, at_once)
        if raw is not None:
            _keep(whole, raw, pfn[start:stop] - np.uint64(first), start, memory.layout)
            good[start:stop] = True
            continue
        part = pfn[start:stop] // np.uint64(_SUBSECTION)  # some of these have no page structs
        for number in np.unique(part).tolist():
            raw = memory.page_structs(number * _SUBSECTION, _SUBSECTION)
            if raw is not None:
                inside = np.flatnonzero(part == number) + start
                _keep(whole, raw, pfn[inside] - np.uint64(number * _SUBSECTION),
                      int(inside[0]), memory.layout)
                good[inside] = True
    return whole, good


def _keep(whole: dict[str, NDArray[np.uint64]], raw: NDArray[np.uint8], places: NDArray[np.uint64],
          start: int, layout: dict[str, int]) -> None:
    for name, values in columns_of(raw, layout).items():
        whole[name][start:start + len(places)] = values[places.astype(np.int64)]
