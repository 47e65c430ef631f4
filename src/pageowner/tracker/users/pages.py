"""Blocks of pages: what their page structs point to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pageowner.tracker.users.layout import CHUNK_BYTES, NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.users.memory import KernelMemory

__all__ = ["COLUMNS", "Pages", "columns_of", "read_columns"]

COLUMNS = {"mapping": ("page_mapping", "u8"), "cache": ("slab_cache", "u8"),
           "type": ("page_type", "u4"), "references": ("page_refcount", "u4"),
           "memcg": ("page_memcg", "u8"), "magic": ("page_pool_magic", "u8"),
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


def columns_of(raw: NDArray[np.uint8], places: NDArray[np.int64], layout: dict[str, int],
               names: Iterable[str] = COLUMNS) -> dict[str, NDArray[np.uint64]]:
    """`COLUMNS` of some of these page structs, an array of bytes of the shape (pages, size of a
    page struct); zeros for what this kernel does not have."""
    found = {}
    for name in names:
        where, kind = COLUMNS[name]
        at, size = layout[where], np.dtype(kind).itemsize
        found[name] = (np.zeros(len(places), kind) if at == NOT_KNOWN else
                       raw.view(kind)[places, at // size])
    return found


def read_columns(memory: KernelMemory, pfn: NDArray[np.uint64], names: Iterable[str] = COLUMNS
                 ) -> tuple[dict[str, NDArray[np.uint64]], NDArray[np.bool_]]:
    """`COLUMNS` of these frames, which are in order, and which of them could be read."""
    whole = {name: np.zeros(len(pfn), COLUMNS[name][1]) for name in names}
    good = np.zeros(len(pfn), bool)
    at_once = CHUNK_BYTES // memory.layout["page_size_of"] // _SUBSECTION * _SUBSECTION

    def keep(start: int, stop: int, each: int) -> bool:
        """Read the structs of the frames from ``start`` on, which lie in one piece of so many."""
        if start == stop:
            return True
        first = int(pfn[start]) // each * each
        raw = memory.page_structs(first, each)
        if raw is not None:
            places = (pfn[start:stop] - np.uint64(first)).astype(np.int64)
            for name, values in columns_of(raw, places, memory.layout, whole).items():
                whole[name][start:stop] = values
            good[start:stop] = True
        return raw is not None

    for start, stop in _pieces(pfn, at_once):
        if not keep(start, stop, at_once):  # some of these have no page structs
            for low, high in _pieces(pfn[start:stop], _SUBSECTION):
                keep(start + low, start + high, _SUBSECTION)
    return whole, good


def _pieces(pfn: NDArray[np.uint64], each: int) -> list[tuple[int, int]]:
    """Runs of frames that lie in one piece of so many."""
    edges = np.flatnonzero(np.diff(pfn // np.uint64(each))) + 1
    return list(pairwise([0, *edges.tolist(), len(pfn)]))
