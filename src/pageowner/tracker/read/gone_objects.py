"""Objects whose free was not seen, told by what is in their place since.

``kfree_rcu()`` and frees in bulk go past every tracepoint where BPF may not trace functions
(`pageowner.model.object_hooks`). Such an object stays in the table until its address is allocated
again. It is gone for certain once its page is no slab's, once its page was allocated later, or once
a younger object lies over it.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import pageflags, procpages
from pageowner.kernel.flag_bits import MAX_ORDER
from pageowner.tracker.read.maps import OWNED
from pageowner.tracker.read.objects import PERCPU, objects
from pageowner.tracker.read.reading import whole_at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Span, Store
    from pageowner.tracker.read.objects import Objects

__all__ = ["allocated_later", "among", "chosen", "frames", "gone", "overlapped", "standing"]

_NEAR = 512
"""Frames so near each other are asked for together: what lies between takes less than a call."""


def standing(store: Store, found: Objects) -> tuple[Objects, int]:
    """These without those that are gone, and how many of them are in the table yet: their free was
    not seen. Others were freed between this reading and that of the table."""
    which = gone(store, found)
    if not which.any():
        return found, 0
    return chosen(found, ~which), int(among(chosen(found, which), objects(store)).sum())


def gone(store: Store, found: Objects, flags: bool = True) -> NDArray[np.bool_]:
    """Which of these objects are gone. ``flags``: whether to ask the kernel for the flags of their
    pages, which takes as long as a capture of pages reads them."""
    pfns, known = frames(store, found)
    which = overlapped(found)
    which[known] |= allocated_later(store.spans, 1 << store.span_shift, pfns[known],
                                    found.rows["ts"][known])
    if flags:
        which[known] |= _in_no_slab(pfns[known])
    return which


def frames(store: Store, found: Objects) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The page frame of each object, and whether it is known: not of percpu memory, and nothing
    where the direct map is unknown."""
    base = int(store.facts.get("direct_map") or 0)
    inside = (found.rows["cache"] != PERCPU) & (found.address >= base) & bool(base)
    shift = np.uint64(mmap.PAGESIZE.bit_length() - 1)
    return (found.address - np.uint64(base)) >> shift, inside


def overlapped(found: Objects) -> NDArray[np.bool_]:
    """Which objects a younger one lies over: they were freed before it was allocated. Judged by
    the bytes that were asked for, as no other object may have a byte of those."""
    in_slabs = np.flatnonzero(found.rows["cache"] != PERCPU)
    order = in_slabs[np.argsort(found.address[in_slabs], kind="stable")]
    first, born = found.address[order], found.rows["ts"][order]
    after = first + np.maximum(found.rows["requested"][order], 1).astype(np.uint64)
    which = np.zeros(len(found.address), bool)
    here, step = np.arange(len(order)), 0
    while len(here):  # what ends before the next one begins overlaps none behind that either
        step += 1
        here = here[here + step < len(order)]
        here = here[after[here] > first[here + step]]
        other = here + step
        which[order[np.where(born[here] < born[other], here, other)]] = True
    return which


def allocated_later(spans: Iterable[Span], length: int, pfns: NDArray[np.uint64],
                    born: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of these objects are older than the block of pages that they are in, by the records of
    the tracker: that of a slab is written before its first object. A span has ``length`` records.
    """
    asked = np.unique(pfns)
    made = np.zeros(len(asked), np.uint64)
    for span in spans:
        ends = np.array([span.first, span.first + length], np.uint64)
        low, high = np.searchsorted(asked, ends).tolist()
        if low == high:  # nor is it mapped then
            continue
        offsets = (asked[low:high] - np.uint64(span.first)).astype(np.int64)
        for order in range(MAX_ORDER + 1):
            heads = offsets >> order << order  # of a slab's block, which no span divides
            begins = np.flatnonzero(np.diff(heads, prepend=-1))
            records = whole_at(span.records, heads[begins])
            covers = (records["state"] == OWNED) & (records["order"] >= order)
            times = np.where(covers, records["ts"], np.uint64(0))
            made[low:high] = np.maximum(made[low:high], np.repeat(
                times, np.diff(np.append(begins, len(heads)))))
    later: NDArray[np.bool_] = made[np.searchsorted(asked, pfns)] > born
    return later


def _in_no_slab(pfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which frames are no slab's: the kernel marks every page of a slab, and of KFENCE
    (fs/proc/page.c, stable_page_flags). None where it shows no flags."""
    if not len(pfns) or not os.path.exists(procpages.KPAGEFLAGS):
        return np.zeros(len(pfns), bool)
    asked = np.unique(pfns)
    flags = np.zeros(len(asked), np.uint64)
    file = procpages.opened(procpages.KPAGEFLAGS)
    try:
        for run in np.split(asked, np.flatnonzero(np.diff(asked) > _NEAR) + 1):
            first = int(run[0])
            words = pageflags.words(file, first, int(run[-1]) - first + 1)
            inside = run - np.uint64(first) < len(words)
            place = np.searchsorted(asked, run[inside])
            flags[place] = words[(run[inside] - np.uint64(first)).astype(np.int64)]
    finally:
        os.close(file)
    unmarked: NDArray[np.bool_] = (flags & np.uint64(pageflags.bit("slab")) == 0)[
        np.searchsorted(asked, pfns)]
    return unmarked


def among(found: Objects, others: Objects) -> NDArray[np.bool_]:
    """Which of these are among the others: the same allocation at the same address."""
    if not len(others.address):
        return np.zeros(len(found.address), bool)
    order = np.argsort(others.address, kind="stable")
    at = np.minimum(np.searchsorted(others.address[order], found.address), len(order) - 1)
    known: NDArray[np.bool_] = (others.address[order][at] == found.address) & (
        others.rows["ts"][order][at] == found.rows["ts"])
    return known


def chosen(found: Objects, which: NDArray[np.bool_]) -> Objects:
    """Those of the objects."""
    return replace(found, address=found.address[which], rows=found.rows[which])
