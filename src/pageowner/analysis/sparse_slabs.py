"""Slabs that few objects keep: whose these are, and how many pages nobody else needs.

A slab's pages go back when its last object is freed. One object of thirty therefore keeps as much
memory as thirty do, and a cache that once was full can stay as large as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import blocks_pages, key, times

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["Sparse", "sparse"]

_HALF = 2


class Sparse(NamedTuple):
    """``owners``: a row for each cache and stack, most pages first. ``slabs`` and their ``pages``:
    slabs that are at most half full and contain only objects of this owner, ``objects`` of the
    ``room`` that would fit. The pages of all other slabs are only summed: ``shared``: at most half
    full, with objects of several owners; ``full``: more than half full; ``early``: older than
    tracking, so that only some of the objects are known."""

    owners: pa.Table
    shared: int
    full: int
    early: int


def sparse(objects: Snapshot, pages: Snapshot,
           per_slab: Mapping[str, tuple[int, int]]) -> Sparse:
    """Which objects keep slabs that are at most half full.

    ``objects``: all of them (one in one), with their page frames; ``pages``: a capture of the same
    moment, whose rows tell which pages are one slab; ``per_slab``: for how many objects a slab of
    each cache has room, and its pages: where memory is in pieces the kernel takes smaller ones.
    Left out are slabs whose room is not known, and blocks that are no slab any more: larger than
    one of that cache, or allocated after an object in them.
    """
    frames = objects.table["pfn"].fill_null(0).to_numpy()
    cache, stack = key(objects, "cache"), key(objects, "stack")
    place = _block_of(frames, pages)
    inside = place >= 0
    names = cache.labels.to_pylist()
    room_of, pages_of = (np.array([per_slab.get(name, (0, 1))[place] for name in names], np.int64)
                         for place in (0, 1))
    slab, at = np.unique(place[inside], return_inverse=True)
    if not len(slab):
        return Sparse(_table([], [], {}), 0, 0, 0)
    number = np.bincount(at)
    caches, stacks = cache.codes[inside], stack.codes[inside]
    first = np.full(len(slab), -1, np.int64)
    first[at[::-1]] = np.arange(len(at))[::-1]
    sizes = blocks_pages(pages)[slab]
    room = room_of[caches[first]] * sizes // pages_of[caches[first]]
    born, _ = times(pages)
    eldest = np.full(len(slab), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(eldest, at, times(objects)[0][inside])
    known = (room > 0) & (sizes <= pages_of[caches[first]]) & (born[slab] <= eldest)
    owner = caches * max(len(stack.labels), 1) + stacks
    alone = np.ones(len(slab), bool)
    np.logical_and.at(alone, at, owner == owner[first][at])
    state = key(pages, "state")
    states = np.array([label or "owned" for label in state.labels.to_pylist()])
    owned = (states[state.codes[slab]] == "owned") & known
    early = states[state.codes[slab]] == "early"
    half = number * _HALF <= room
    chosen = owned & half & alone
    owners, group = np.unique(owner[first][chosen], return_inverse=True)
    sums = {name: np.bincount(group, weights[chosen], len(owners)).astype(np.int64)
            for name, weights in (("slabs", np.ones(len(slab))), ("pages", sizes),
                                  ("objects", number), ("room", room))}
    order = np.argsort(-sums["pages"], kind="stable")
    width = max(len(stack.labels), 1)
    labels = stack.labels.to_pylist()
    return Sparse(
        _table([names[code] for code in (owners[order] // width).tolist()],
               [labels[code] for code in (owners[order] % width).tolist()],
               {name: values[order] for name, values in sums.items()}),
        int(sizes[owned & half & ~alone].sum()), int(sizes[owned & ~half].sum()),
        int(sizes[early].sum()))


def _table(caches: list[str | None], stacks: list[str | None],
           sums: Mapping[str, NDArray[np.int64]]) -> pa.Table:
    return pa.table({
        "cache": pa.array(caches, pa.string()), "stack": pa.array(stacks, pa.string()),
        **{name: pa.array(sums.get(name, []), pa.int64())
           for name in ("slabs", "pages", "objects", "room")}})


def _block_of(frames: NDArray[np.uint64], pages: Snapshot) -> NDArray[np.int64]:
    """The row of ``pages`` whose block each frame lies in; -1: in none."""
    first = pages.table["pfn"].to_numpy()
    order = np.argsort(first, kind="stable")
    place = np.searchsorted(first[order], frames, "right") - 1
    row = np.where(place >= 0, order[np.maximum(place, 0)], 0) if len(first) else place
    if not len(first):
        return np.full(len(frames), -1, np.int64)
    size = blocks_pages(pages)[row].astype(np.uint64)
    found: NDArray[np.int64] = np.where(
        (place >= 0) & (frames > 0) & (frames < first[row] + size), row, -1)
    return found
