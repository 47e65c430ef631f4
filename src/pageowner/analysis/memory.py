"""Physical memory as fragmentation sees it: who lies where, what is free, what was never given to
the page allocator; as far as the source tells.

Frames are runs, never single objects. What a source knows:

- a live capture, and a snapshot saved of one: every frame. The ones without a row are free, or
  held back from the page allocator, which ``meta.extra["memory"]`` tells apart
- a dump: frames in use. Those without a record are free, reserved, or no memory at all
- a dump with the bits of /proc/kpageflags of the same time: every frame
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.analysis.keys import Key, column, key
from pageowner.errors import PageownerError
from pageowner.kernel import compaction, pageflags
from pageowner.kernel.gfp import MIGRATETYPES
from pageowner.model.pfn_runs import unpack
from pageowner.model.source_kinds import check_pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot

__all__ = ["NO_ROW", "TYPES", "Memory", "Stretch", "free_said", "memory", "spread",
           "without_process"]

TYPES = (*MIGRATETYPES[:3], "unknown")
"""What a page was allocated as; ``unknown`` before tracking, or past every hook."""

NO_ROW = -1
_DEFAULT_PAGEBLOCK_ORDER = 9
_ODD = 0.05
_HOLE = 1 << 22
"""Frames (16 GiB of 4 KiB): where a dump has none in use in so many in a row is a hole."""
_HELD_BACK = ("reserved", "offline", "hwpoison", "nopage")


@dataclass(frozen=True)
class Stretch:
    """Page frames ``start`` up to ``end`` of one zone of one node: where there is memory, so that
    one zone may be several."""

    node: int | None
    zone: str | None
    start: int
    end: int

    @property
    def name(self) -> str:
        """``node 0 DMA32``; a dump knows the zone's number only: ``node 0 zone 1``."""
        zone = "?" if self.zone is None else self.zone
        return f"node {'?' if self.node is None else self.node}" + (
            f" zone {zone}" if zone.isdigit() or zone == "?" else f" {zone}")


@dataclass(frozen=True)
class Memory:
    """Allocations in pfn order, one item each, and the frames between them.

    ``first``, ``pages`` (int64), ``order`` (uint8); ``row``: the row of the snapshot's table, or
    `NO_ROW` for a page in use that it has no row of; ``kind``: a place in `TYPES`; ``moves``: see
    `pageowner.kernel.compaction.movability`; ``cache``: page cache that reclaim can drop,
    ``stays``: it and tmpfs, as far as the source tells, which outlive the task.
    ``held``: runs of frames (n x 2: first, behind the last) that the page allocator was not given,
    in order; ``left``: those that `without` took the allocations from. ``sees_free``: all other
    frames without an allocation are free; else they may be anything.
    """

    first: NDArray[np.int64]
    pages: NDArray[np.int64]
    order: NDArray[np.uint8]
    row: NDArray[np.int64]
    kind: NDArray[np.uint8]
    moves: NDArray[np.uint8]
    cache: NDArray[np.bool_]
    stays: NDArray[np.bool_]
    held: NDArray[np.int64]
    stretches: tuple[Stretch, ...]
    pageblock_order: int
    sees_free: bool
    max_order: int = pageflags.MAX_ORDER
    """The largest order of the page allocator of that kernel."""
    notes: tuple[str, ...] = ()
    left: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    moves_large: bool = True
    """See `pageowner.kernel.compaction.moves_large_folios`."""

    @property
    def end(self) -> int:
        """The first frame behind all zones."""
        return max((stretch.end for stretch in self.stretches), default=0)

    @property
    def start(self) -> int:
        """The first frame of all zones."""
        return min((stretch.start for stretch in self.stretches), default=0)

    def stretch_of(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place in ``stretches`` of each frame, -1 outside; where two overlap, the later."""
        index = np.full(len(frames), -1, np.int64)
        for place, stretch in enumerate(self.stretches):
            index[(frames >= stretch.start) & (frames < stretch.end)] = place
        return index

    def without(self, rows: NDArray[np.bool_]) -> Memory:
        """The same after the allocations chosen by ``rows`` (one item an allocation) are gone."""
        kept = ~rows
        left = np.stack([self.first[rows], self.first[rows] + self.pages[rows]], axis=1)
        return Memory(self.first[kept], self.pages[kept], self.order[kept], self.row[kept],
                      self.kind[kept], self.moves[kept], self.cache[kept], self.stays[kept],
                      self.held, self.stretches, self.pageblock_order, self.sees_free,
                      self.max_order, self.notes, left, self.moves_large)


def free_said(meta: Metadata) -> list[tuple[int, str, list[int]]] | None:
    """Node, zone and free blocks by order, as the kernel said when the snapshot was taken."""
    about = meta.extra.get("memory")
    zones = about.get("free") if isinstance(about, dict) else None
    if isinstance(zones, list) and all(
            isinstance(zone, list) and len(zone) == 3 and isinstance(zone[2], list)
            and all(type(n) is int for n in zone[2]) for zone in zones):
        return [(node, zone, counts) for node, zone, counts in zones]
    return None


def spread(first: NDArray[np.int64], pages: NDArray[np.int64],
           edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many frames of the runs (in order, not overlapping) lie between each two edges."""
    if not len(first):
        return np.zeros(max(len(edges) - 1, 0), np.int64)
    before = np.cumsum(pages) - pages
    at = np.searchsorted(first, edges, side="right") - 1
    below = np.where(at < 0, 0, before[at] + np.minimum(edges - first[at], pages[at]))
    counts: NDArray[np.int64] = np.diff(below)
    return counts


def memory(snapshot: Snapshot, flags: NDArray[np.uint64] | None = None) -> Memory:
    """The memory that a snapshot speaks of; ``flags``: the bits of /proc/kpageflags, from pfn 0
    on, of the same machine and time, for a dump.

    Raises PageownerError if the source does not say where the pages are.
    """
    table, meta = snapshot.table, snapshot.meta
    check_pages(meta)
    if table["pfn"].null_count:
        raise PageownerError(
            f"{meta.source or 'the source'} does not show where the pages are (a dump without its"
            " PFN lines?), which fragmentation needs")
    order = table["order"].to_numpy()
    first = table["pfn"].to_numpy().astype(np.int64)
    pageblock_order = meta.pageblock_order
    notes = []
    if pageblock_order is None:
        pageblock_order = _DEFAULT_PAGEBLOCK_ORDER
        notes.append(f"the source does not contain the pageblock order; assuming"
                     f" {pageblock_order}")
    kind = _kinds(key(snapshot, "migratetype"))
    moves, cache, stays = _movability(snapshot, order, kind, pageblock_order)
    row = np.arange(len(first))
    pages = np.left_shift(np.int64(1), order.astype(np.int64))
    by_pfn = np.argsort(first, kind="stable") if not bool((np.diff(first) > 0).all()) else row
    columns: list[NDArray[Any]] = [
        values[by_pfn] for values in (first, pages, order, row, kind, moves, cache,
                                     stays)]
    columns, overlaps = _without_overlaps(columns)
    if overlaps:
        notes.append(f"{overlaps:,} allocations overlap others that begin later or at the same"
                     " page, which changed while they were read: they are left out")
    about = meta.extra.get("memory") if meta.kind == "tracker" else None
    stretches, hole = _stretches(snapshot, columns[0], columns[1], columns[3], flags, about)
    if hole:
        notes.append(f"no page in use for {hole:,} frames in a row: gaps of this size are assumed"
                     " not to be memory")
    held = np.zeros((0, 2), np.int64)
    sees_free = False
    if isinstance(about, dict) and (runs := unpack(about.get("held"))) is not None:
        held, sees_free = runs, True
        if deferred := meta.counters.get("deferred_pages", 0):
            notes.append(f"{deferred:,} pages are not in the page allocator yet (deferred"
                         " initialisation) and are no part of this; MemFree may count them")
        if (filtered := unpack(about.get("filtered"))) is not None:
            columns = _with_filtered(columns, filtered)
            notes.append(f"{int(np.diff(filtered).sum()):,} pages were left out by a filter of"
                         " 'on': whether they can be moved is not known")
    elif flags is not None:
        notes += _check_fit(columns[0], columns[1], flags)
        held = _runs_of(_held_back(flags))
        columns = _with_unrecorded(columns, flags)
        sees_free = True
    elif meta.kind == "tracker":
        notes.append("this snapshot is from an older version and does not separate free frames"
                     " from frames outside the page allocator")
    else:
        notes.append("a dump contains only pages in use: frames without a record are free, reserved"
                     " or not memory, and the orders of free blocks are not known; --kpageflags"
                     " adds both, from a copy of /proc/kpageflags made with the dump")
    if sees_free:
        columns = _outside_of(held, columns)
    first, pages, order, row, kind, moves, cache, stays = columns
    # As many orders as the kernel told free blocks of; a pageblock is never larger than the largest
    # (include/linux/pageblock-flags.h), and as large with pages of 16 and 64 KiB on arm64.
    orders = [len(counts) - 1 for _, _, counts in free_said(meta) or ()]
    max_order = max(orders) if orders else max(pageflags.MAX_ORDER, pageblock_order)
    moves_large = compaction.moves_large_folios(meta.kernel) and not _is_of_before_6_7(meta)
    return Memory(first, pages, order, row, kind, moves, cache, stays, held, stretches,
                  pageblock_order, sees_free, max_order, tuple(notes), moves_large=moves_large)


def _is_of_before_6_7(meta: Metadata) -> bool:
    """Whether the text is as such kernels print it: with decimal page frame numbers (before 6.5) or
    the time of the last free (before 6.7; print_page_owner)."""
    return bool(meta.dump_format.get("decimal_pfn") or meta.dump_format.get("free_ts"))


def _kinds(found: Key) -> NDArray[np.uint8]:
    places = [TYPES.index(label) if label in TYPES else
              (0 if label == "HighAtomic" else len(TYPES) - 1)
              for label in found.labels.to_pylist()]
    kinds: NDArray[np.uint8] = np.array(places or [0], np.uint8)[found.codes]
    return kinds


def _movability(
        snapshot: Snapshot, order: NDArray[np.uint8], kind: NDArray[np.uint8],
        pageblock_order: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """``moves``, ``cache`` and ``stays`` of each row, from the flags that the source has."""
    movable = np.array([0, 1, 0, -1], np.int8)[kind]
    bits = snapshot.table["page_flags"]
    if bits.null_count < len(bits):
        flags = bits.fill_null(0).to_numpy()
        lru = (flags & pageflags.bit("lru") != 0).astype(np.int8)
        moves = compaction.movability(order, lru, movable, pageblock_order)
        return (compaction.by_flags(flags, moves), compaction.cache_by_flags(flags),
                compaction.outlives_tasks(flags))
    texts = column(snapshot, "flags")
    lru, cache = _flag(texts, compaction.by_text), _flag(texts, compaction.cache_by_text) == 1
    return compaction.movability(order, lru, movable, pageblock_order), cache, cache


def _flag(found: Key, says: Callable[[str | None], bool | None]) -> NDArray[np.int8]:
    """What flags as texts say: 1, 0, or -1 for unknown."""
    known = [says(label) for label in found.labels.to_pylist()]
    values = [-1 if is_set is None else int(is_set) for is_set in known]
    result: NDArray[np.int8] = np.array(values or [-1], np.int8)[found.codes]
    return result


def _without_overlaps(columns: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], int]:
    """Of allocations that overlap, the one that begins later is kept."""
    lost = 0
    while len(columns[0]) > 1:
        first, pages = columns[0], columns[1]
        clash = np.flatnonzero(first[:-1] + pages[:-1] > first[1:])
        if not len(clash):
            break
        lost += len(clash)
        columns = [np.delete(values, clash) for values in columns]
    return columns, lost


def _runs_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2)


def _held_back(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    bits = np.uint64(sum(int(pageflags.bit(name)) for name in _HELD_BACK))
    held: NDArray[np.bool_] = flags & bits != 0
    return held


def _check_fit(first: NDArray[np.int64], pages: NDArray[np.int64],
               flags: NDArray[np.uint64]) -> list[str]:
    """Raises PageownerError if the flags cannot be of the same machine; a note if they seem to be
    of another time."""
    end = int(first[-1] + pages[-1]) if len(first) else 0
    if end > len(flags):
        raise PageownerError(f"these page flags end at pfn {len(flags):,}, and the dump has page"
                             f" {end - 1:,}: they are not of the same machine")
    free = int(np.count_nonzero(pageflags.is_free(flags[first])))
    if free > _ODD * len(first):
        return [f"{free:,} of {len(first):,} allocations are free by the page flags: those are of"
                " another time"]
    return []


def _with_unrecorded(columns: list[NDArray[Any]],
                     flags: NDArray[np.uint64]) -> list[NDArray[Any]]:
    """The allocations and the frames in use that have no record: taken between the readings, or
    without a stack. Frames without a flag and a record lie on a CPU's list of free pages."""
    edges = np.zeros(len(flags) + 1, np.int32)
    np.add.at(edges, np.minimum(columns[0], len(flags)), 1)
    np.add.at(edges, np.minimum(columns[0] + columns[1], len(flags)), -1)
    bare = (np.cumsum(edges[:-1]) == 0) & (flags != 0)
    bare &= ~pageflags.is_free(flags) & ~_held_back(flags)
    more = np.flatnonzero(bare)
    if not len(more):
        return columns
    unsure = np.full(len(more), compaction.UNKNOWN, np.uint8)
    return _joined(columns, more, compaction.by_flags(flags[more], unsure))


def _with_filtered(columns: list[NDArray[Any]],
                   runs: NDArray[np.int64]) -> list[NDArray[Any]]:
    """The allocations and runs of pages in use of which nothing is known; a run is one item, of
    order 0, since its pages are."""
    return _joined(columns, runs[:, 0], np.full(len(runs), compaction.UNKNOWN, np.uint8),
                   runs[:, 1] - runs[:, 0])


def _joined(columns: list[NDArray[Any]], more: NDArray[np.int64], moves: NDArray[np.uint8],
            pages: NDArray[np.int64] | None = None) -> list[NDArray[Any]]:
    """The allocations and the pages in use that have no row, single ones or so many in a row."""
    added: list[NDArray[Any]] = [
        more, np.ones(len(more), np.int64) if pages is None else pages,
        np.zeros(len(more), np.uint8),
        np.full(len(more), NO_ROW), np.full(len(more), len(TYPES) - 1, np.uint8), moves,
        np.zeros(len(more), bool), np.zeros(len(more), bool)]
    both = [np.concatenate(two) for two in zip(columns, added, strict=True)]
    by_pfn = np.argsort(both[0], kind="stable")
    return [values[by_pfn] for values in both]


def _outside_of(held: NDArray[np.int64], columns: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Allocations that do not lie in frames held back: records of memory that was since reserved
    or taken away."""
    if not len(held) or not len(columns[0]):
        return columns
    first, pages = columns[0], columns[1]
    at = np.searchsorted(held[:, 0], first + pages, side="left") - 1
    inside = (at >= 0) & (held[np.maximum(at, 0), 1] > first)
    return [values[~inside] for values in columns] if inside.any() else columns


def _stretches(snapshot: Snapshot, first: NDArray[np.int64], pages: NDArray[np.int64],
               row: NDArray[np.int64], flags: NDArray[np.uint64] | None,
               about: Any) -> tuple[tuple[Stretch, ...], int]:
    """Zones in pfn order, without the holes in them, and how large gaps must be to be taken for
    holes, 0 if there are none such. A dump does not say where zones begin: at the roundest frame
    between the last record of one and the first of the next."""
    zones = snapshot.meta.zones
    if zones:
        known = [Stretch(zone.get("node"), zone.get("name"), int(zone["start_pfn"]),
                         int(zone["start_pfn"]) + int(zone["spanned"])) for zone in zones]
        where = unpack(about.get("spans")) if isinstance(about, dict) else None
        if where is not None:
            known = [part for stretch in known for part in _parts(stretch, where)]
        return tuple(sorted(known, key=lambda stretch: stretch.start)), 0
    if not len(first):
        return (), 0
    node, zone = key(snapshot, "node"), key(snapshot, "zone")
    codes = (node.codes * len(zone.labels) + zone.codes)[row]
    gaps = first[1:] - (first[:-1] + pages[:-1])
    holes = gaps >= _HOLE if flags is None else np.zeros(len(gaps), bool)
    changes = np.flatnonzero((np.diff(codes) != 0) | holes) + 1
    starts = [0, *changes.tolist()]
    block = 1 << (snapshot.meta.pageblock_order or _DEFAULT_PAGEBLOCK_ORDER)
    last = int(first[-1] + pages[-1])
    end = len(flags) if flags is not None else -(-last // block) * block
    bounds = [int(first[0]) // block * block if flags is None else 0]
    ends = []
    for at in changes.tolist():
        low, high = int(first[at - 1] + pages[at - 1]), int(first[at])
        if holes[at - 1]:
            ends.append(-(-low // block) * block)
            bounds.append(high // block * block)
        else:
            bounds.append(_roundest(low, high))
            ends.append(bounds[-1])
    node_labels, zone_labels = node.labels.to_pylist(), zone.labels.to_pylist()
    return tuple(
        Stretch(node_labels[code // len(zone_labels)], zone_labels[code % len(zone_labels)],
                start, stop)
        for code, start, stop in zip(codes[starts].tolist(), bounds, [*ends, max(end, last)],
                                     strict=True)), _HOLE if bool(holes.any()) else 0


def _parts(stretch: Stretch, where: NDArray[np.int64]) -> list[Stretch]:
    """What of a stretch lies in these runs."""
    low = int(np.searchsorted(where[:, 1], stretch.start, side="right"))
    high = int(np.searchsorted(where[:, 0], stretch.end, side="left"))
    return [Stretch(stretch.node, stretch.zone, max(start, stretch.start), min(end, stretch.end))
            for start, end in where[low:high].tolist()]


def _roundest(low: int, high: int) -> int:
    """The number from low to high that is divisible by the largest power of two."""
    for order in range(high.bit_length(), -1, -1):
        found = -(-low >> order) << order
        if low <= found <= high:
            return found
    return high


def without_process(snapshot: Snapshot, tgid: int) -> Snapshot:
    """The snapshot without what a process allocated, except page cache, which outlives it."""
    import pyarrow as pa

    from pageowner.model.snapshot import Snapshot as Made

    seen = memory(snapshot)
    stays = np.zeros(snapshot.table.num_rows, bool)
    stays[seen.row[(seen.row >= 0) & seen.stays]] = True
    owners = snapshot.table["tgid"].fill_null(-1).to_numpy()
    return Made(snapshot.table.filter(pa.array((owners != tgid) | stays)), snapshot.meta)
