"""A walk over all page frames: for each span flags, records, and flags again where the first do not
say enough, so that little time lies between, and from them the rows of a snapshot and the account
of all frames.

Only spans are looked at in which there is memory, so that what a walk costs grows with memory, not
with the highest address. Each is worked on without its quiet parts, windows of 1,024 frames that
are free and have no record, and what is kept of it is only what the rows need.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel import pageflags
from pageowner.kernel.limits import HIGHEST_ORDER, LISTED_ORDER
from pageowner.system.ahead_of import in_turn
from pageowner.tracker.read import reading
from pageowner.tracker.read.accounts import (
    ABSENT,
    CLASSES,
    FREE,
    IS_EARLY,
    IS_FILTERED,
    RESERVED,
    UNTRACKED,
    Account,
    account,
    spoken_for,
    unsure,
)
from pageowner.tracker.read.frames import Frames
from pageowner.tracker.read.maps import OWNED, RECORD, Store
from pageowner.tracker.read.runs import consecutive, outside, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pageowner.kernel import zones

__all__ = ["COLUMNS", "SEEN", "STATES", "Survey", "not_given", "survey"]

COLUMNS: dict[str, str] = {
    "pfn": "u8", "order": "u1", "state": "u1", "ts": "u8", "stack_id": "u4", "task_id": "u4",
    "gfp_mask": "u4", "moved": "u1", "flags": "u8", "cgroup": "u8",
}
"""What is kept of a row, and as which NumPy type. ``state`` is a place in `STATES`; what comes
from a record is 0 for rows that have none."""

STATES = ("owned", "early", "untracked")

SEEN = ("stale_pages", "split_blocks", "reread_pages", "changed_pages", "deferred_pages")
"""What is counted on the way: see `Survey`."""

_FROM_RECORD = ("ts", "stack_id", "task_id", "gfp_mask", "moved")
_BUDDY = pageflags.bit("buddy")
_NOPAGE = pageflags.bit("nopage")

_WINDOW = 1 << pageflags.MAX_ORDER

_TRIES = 4


@dataclass
class Survey:
    """What a walk found: rows in pfn order, ``frames`` by class (`accounts.CLASSES` without
    ``absent``) and ``seen``, counts of what was noticed on the way:

    - ``stale_pages``: free, also on a CPU's list, with a record that stands: their free was missed
    - ``split_blocks``: found split past every hook
    - ``reread_pages``: looked untracked at first and were read again; ``changed_pages`` of them
      only changed hands just then, and count as free
    - ``deferred_pages``: exist and are not in the page allocator yet, which the kernel gives memory
      as it needs more; they count as reserved

    ``spans``: runs of the frames that were looked at; beside them there is no memory.
    ``held``, ``filtered``: runs (first, behind the last), in order, of frames that have no row and
    are not free: absent or reserved ones, and those left out by a filter.
    """

    frames: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)
    filtered: list[tuple[int, int]] = field(default_factory=list)
    _parts: dict[str, list[NDArray[Any]]] = field(
        default_factory=lambda: {name: [] for name in COLUMNS})

    def add(self, **columns: NDArray[Any]) -> None:
        """Append rows."""
        for name, kind in COLUMNS.items():
            self._parts[name].append(columns[name].astype(kind, copy=False))

    def keep(self, only: Sequence[tuple[int, int]]) -> None:
        """Forget the rows of blocks that have none of these frames."""
        pfn, order = (np.concatenate(self._parts[name] or [np.zeros(0, COLUMNS[name])])
                      for name in ("pfn", "order"))
        end = pfn + np.left_shift(np.uint64(1), order.astype(np.uint64))
        wanted = np.zeros(len(pfn), bool)
        for first, stop in only:
            wanted |= (pfn < np.uint64(stop)) & (end > np.uint64(first))
        for name, parts in self._parts.items():
            self._parts[name] = [np.concatenate(parts)[wanted]] if parts else []

    def take(self, name: str) -> NDArray[Any]:
        """One of `COLUMNS`, once: it is forgotten here, to save memory."""
        parts = self._parts.pop(name)
        return np.concatenate(parts) if parts else np.zeros(0, COLUMNS[name])


def survey(store: Store, zone_map: zones.ZoneMap, comp_gfp: int, frames: Frames | None = None,
           only: Sequence[tuple[int, int]] | None = None) -> Survey:
    """Walk over all memory: what /proc/iomem has, and what the store speaks for.

    ``comp_gfp`` is the kernel's __GFP_COMP. ``frames``: what tells of each frame, if not /proc.
    ``only``: frames (first, behind the last) that matter: no more is looked at than the spans that
    can say something of them, and the counts are of these. Raises PageownerError if a file cannot
    be read.
    """
    with _Walk(store, zone_map, comp_gfp, frames) as walk:
        return walk.run(only)


def not_given(store: Store, zone_map: zones.ZoneMap) -> list[tuple[int, int]]:
    """Page frames (first, behind the last) at the ends of zones that the page allocator was not
    given, as far as flags tell."""
    with _Walk(store, zone_map, 0) as walk:
        return list(walk._deferred())


class _Walk:
    def __init__(self, store: Store, zone_map: zones.ZoneMap, comp_gfp: int,
                 frames: Frames | None = None) -> None:
        self.store, self.zone_map, self.comp_gfp = store, zone_map, comp_gfp
        self.frames = frames or Frames()
        self.size = 1 << store.span_shift
        # Blocks of the page allocator lie in one window; only contiguous ranges may be larger.
        self.order = min(max(self.frames.max_order, pageflags.MAX_ORDER), store.span_shift)
        self.spans = {span.first: span for span in store.spans}
        self.totals = np.zeros(len(CLASSES), np.int64)
        self.seen = dict.fromkeys(SEEN, 0)
        self.result = Survey(seen=self.seen)
        self.gone: list[tuple[int, int]] = []
        self._records = np.empty(self.size, RECORD)

    def __enter__(self) -> _Walk:
        self.frames.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.frames.__exit__(*_)

    def run(self, only: Sequence[tuple[int, int]] | None = None) -> Survey:
        deferred = list(self._deferred())
        if only is None:
            self.seen["deferred_pages"] = sum(stop - start for start, stop in deferred)
        there = self.frames.ranges()
        if there:
            self.gone = outside(there)
        beside = outside([(start, end) for start, end in self.store.facts["ranges"]])
        carried: list[tuple[int, int]] = []
        behind = 0
        places = self._places(there)
        if only is not None:
            places = self._near(only, places)
        # Deferred frames were just read.
        quiet = {first for first in places
                 if any(start <= first and first + self.size <= end for start, end in deferred)}
        # The kernel takes longer to tell flags than all else here takes.
        for first, read in in_turn(
                lambda first: None if first in quiet else self._frames(first, self.size), places):
            stop = first + self.size
            if first > behind:
                self.result.held.append((behind, first))
                carried = []
            behind = stop
            self.result.spans.append((first, stop))
            if not carried and first in quiet:  # nothing here was ever the page allocator's
                self.totals[RESERVED] += self.size
                self.result.held.append((first, stop))
                continue
            before = self._frames(first, self.size) if read is None else read
            span = self.spans.get(first)
            carried = self._span(first, before, None if span is None else span.records, carried,
                                 within(deferred, first, stop), within(beside, first, stop))
            if span is not None:
                span.let_go()
        frames = dict(zip(CLASSES, map(int, self.totals), strict=True))
        del frames["absent"]
        for rare in ("filtered", "in_motion"):
            if not frames[rare]:
                del frames[rare]
        self.result.frames = frames
        return self.result

    def _near(self, only: Sequence[tuple[int, int]], places: list[int]) -> list[int]:
        """Those of the places that these frames are in, or a block that they may be in begins in.
        """
        wanted = [(self._begin(first), stop) for first, stop in only]
        return [place for place in places
                if any(first < place + self.size and place < stop for first, stop in wanted)]

    def _begin(self, pfn: int) -> int:
        """Where the block begins that this frame may be in, if it is larger than a span."""
        shift = self.store.span_shift
        for order in range(HIGHEST_ORDER, shift, -1):
            head = pfn >> order << order
            span = self.spans.get(head >> shift << shift)
            if span is not None and head != pfn:
                record = reading.whole_at(span.records, np.array([head & (self.size - 1)]))[0]
                if record["state"] and record["order"] == order:
                    return head
        return pfn

    def _places(self, there: list[tuple[int, int]]) -> list[int]:
        """The first frames of all spans in which there is memory, or of which the store speaks:
        memory that was added may have a span and not be among the ranges yet."""
        shift = self.store.span_shift
        places = set(self.spans)
        for start, end in [*self.store.facts["ranges"], *there]:
            places.update(range(start >> shift << shift, end, self.size))
        return sorted(places)

    def _span(self, first: int, before: NDArray[np.uint64], live: NDArray[np.void] | None,
              carried: list[tuple[int, int]], deferred: list[tuple[int, int]],
              outside: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Judge one span by its flags and records; what its last blocks hold of the next one."""
        count = len(before)
        tracked = live is not None
        if live is None:
            live = np.zeros(count, RECORD)
        live = live[:count]
        plain = not (carried or deferred or outside or (live["order"] > self.order).any())
        runs = _busy_runs(live["state"], before) if plain else [(0, count)]
        pick = _indices(runs)
        self.totals[FREE] += count - len(pick)
        if not len(pick):
            return []
        records, at = self._records[:len(pick)], 0
        for a, b in runs:
            reading.whole(live[a:b], records[at:at + b - a])
            at += b - a
        if plain and self.order == pageflags.MAX_ORDER and not (
                records["order"] > self.order).any():
            before = _parts(before, runs)
            after = self._again(records, before, first, pick)
        else:
            if len(pick) < count:  # a block may reach from one window to another
                self.totals[FREE] -= count - len(pick)
                runs, pick = [(0, count)], np.arange(count)
                records = reading.whole(live, self._records[:count])
            after = self._frames(first, count)
        before, after = self._freed_unseen(records, live, before, after, first, pick)
        done = account(records, before, after, self.comp_gfp, carried, deferred, outside)
        pick = pick[:len(done.classes)]  # less where memory was just taken away
        self._doubt(done, live, first, pick, after, tracked)
        self.totals += np.bincount(done.classes, minlength=len(CLASSES))
        frames = pick[:len(done.classes)] + first
        without = (done.classes == RESERVED) | (done.classes == ABSENT)
        self.result.held += consecutive(frames[without])
        self.result.filtered += consecutive(frames[done.classes == IS_FILTERED])
        self.seen["stale_pages"] += self._stale(done, records, live, first, pick)
        self.seen["split_blocks"] += done.split
        # Of a page freed just now its record speaks still: so do the flags of the same moment.
        flags = after if after is before else np.where(
            (after & _BUDDY) != 0, before[:len(after)], after)
        self._collect(done, records, flags, first, pick, runs)
        return done.beyond

    def _again(self, records: NDArray[np.void], before: NDArray[np.uint64], first: int,
               pick: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The flags once more, those of windows in which it matters (see `accounts.unsure`); the
        same array if there is none."""
        places = unsure(records, before, self.comp_gfp)
        if not len(places):
            return before
        after = before.copy()
        for start in np.unique(places // _WINDOW * _WINDOW).tolist():
            stop = min(start + _WINDOW, len(pick))
            read = self._frames(first + int(pick[start]), stop - start)
            if len(read) < stop - start:  # memory was just taken away
                return after[:start + len(read)]
            after[start:stop] = read
        return after

    def _freed_unseen(
            self, records: NDArray[np.void], live: NDArray[np.void], before: NDArray[np.uint64],
            after: NDArray[np.uint64], first: int, pick: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The flags, with those of the buddy allocator on pages that lie on a CPU's list of free
        pages while their record stands: their free was not seen, and no flag tells."""
        count = len(after)  # less than before where memory was just taken away
        silent = np.flatnonzero((records["state"][:count] == OWNED) & (before[:count] == 0)
                                & (after == 0) & (records["order"][:count] <= LISTED_ORDER))
        lost = silent[self.store.unused((pick[silent] + first).astype(np.uint64))]
        if not len(lost):
            return before, after
        before, after = before.copy(), after.copy()
        for at in lost.tolist():
            end = min(at + (1 << int(records["order"][at])), count)
            if pick[end - 1] - pick[at] != end - 1 - at:
                continue
            # A block that was split may have its first page free alone.
            inside = at + np.flatnonzero((before[at:end] == 0) & (after[at:end] == 0))
            inside = inside[self.store.unused((pick[inside] + first).astype(np.uint64))]
            before[inside] |= _BUDDY
            after[inside] |= _BUDDY
            if reading.same(live, int(pick[at]), records[at]):
                self.seen["stale_pages"] += len(inside)
        return before, after

    def _doubt(self, done: Account, live: NDArray[np.void], first: int, pick: NDArray[np.int64],
               after: NDArray[np.uint64], tracked: bool) -> None:
        """Look again at what seems untracked: it may have changed hands between two readings.

        Only what seems so every time is untracked. Pages that did not, in a machine that works
        the very ones that are freed and taken again all the time, count as free.
        """
        doubt = np.flatnonzero(done.classes == UNTRACKED)
        self._settle_silent(done.classes, doubt, after[doubt], pick[doubt] + first)
        if not tracked:
            return  # memory that no record can speak for
        doubt = doubt[done.classes[doubt] == UNTRACKED]
        self.seen["reread_pages"] += len(doubt)
        for _ in range(_TRIES):
            if not len(doubt):
                break
            place = pick[doubt]
            flags = np.zeros(len(doubt), np.uint64)
            known = np.zeros(len(doubt), bool)
            for start, stop in _same(place >> self.order):
                window = int(place[start]) >> self.order << self.order
                records = reading.whole(live[window:window + (1 << self.order)])
                low, high = int(place[start]), int(place[stop - 1]) + 1
                read = self._frames(first + low, high - low)
                flags[start:stop] = read[place[start:stop] - low]
                known[start:stop] = spoken_for(records)[place[start:stop] - window]
            known |= (flags & (_BUDDY | _NOPAGE)) != 0
            done.classes[doubt[known]] = FREE
            rest = ~known
            self._settle_silent(done.classes, doubt[rest], flags[rest], place[rest] + first)
            left = doubt[done.classes[doubt] == UNTRACKED]
            self.seen["changed_pages"] += len(doubt) - len(left)
            doubt = left

    def _stale(self, done: Account, records: NDArray[np.void], live: NDArray[np.void], first: int,
               pick: NDArray[np.int64]) -> int:
        """Pages that are free while their record stands: not those that only changed hands."""
        pages = 0
        heads = done.stale
        now = reading.whole_at(live, pick[heads])
        for head in heads[now == records[heads]].tolist():
            flags = self._frames(first + int(pick[head]), 1 << int(records["order"][head]))
            free = int(np.count_nonzero(flags & _BUDDY))
            if reading.same(live, int(pick[head]), records[head]):
                pages += free
        return pages

    def _settle_silent(self, classes: NDArray[np.uint8], at: NDArray[np.int64],
                       flags: NDArray[np.uint64], pfns: NDArray[np.int64]) -> None:
        """Flags of 0 do not tell a page on a CPU's list of free pages from one in use: ask."""
        silent = np.flatnonzero(flags == 0)
        if len(silent):
            unused = self.store.unused(pfns[silent].astype(np.uint64))
            classes[at[silent[unused]]] = FREE

    def _collect(self, done: Account, records: NDArray[np.void], flags: NDArray[np.uint64],
                 first: int, pick: NDArray[np.int64], runs: list[tuple[int, int]]) -> None:
        """Add the owned blocks, and early and untracked pages by compound page, in pfn order."""
        size = len(done.classes)
        row = np.zeros(size, np.uint8)  # place in STATES + 1; 0: no row begins here
        order = np.zeros(size, np.uint8)
        owned = records["state"][done.blocks.record] == OWNED
        place, source = done.blocks.place[owned], done.blocks.record[owned]
        row[place] = 1
        order[place] = done.blocks.order[owned]
        others = (done.classes == IS_EARLY) | (done.classes == UNTRACKED)
        if others.any():
            heads, sizes = _by_compound(done.classes, others, pageflags.compound_order(flags))
            row[heads] = np.where(done.classes[heads] == IS_EARLY, 2, 3)
            order[heads] = sizes
        places = np.flatnonzero(row)
        if not len(places):
            return
        state = row[places] - np.uint8(1)
        owned = state == 0
        said = np.zeros(len(places), RECORD)
        said[owned] = records[source]
        charged = [words for a, b in runs
                   if (words := self.frames.cgroups(first + a, b - a)) is not None]
        cgroup = np.concatenate(charged or [np.zeros(size, np.uint64)])
        if len(cgroup) < size:  # memory was taken away meanwhile
            cgroup = np.pad(cgroup, (0, size - len(cgroup)))
        self.result.add(pfn=pick[places] + first, order=order[places], state=state,
                        flags=flags[places], cgroup=cgroup[places],
                        **{name: said[name] for name in _FROM_RECORD})

    # -- reading ---------------------------------------------------------------------------------

    def _frames(self, first: int, count: int) -> NDArray[np.uint64]:
        flags = self.frames.flags(first, count)
        # Kernels since 6.14 give no flag at all for a frame that is not there, as for many that are
        # in use; older ones gave nopage (fs/proc/page.c, stable_page_flags).
        begin = bisect_right(self.gone, (first, 0)) - 1  # of many, those that may be in here
        end = bisect_right(self.gone, (first + len(flags), 0))
        for start, stop in within(self.gone[max(begin, 0):end], first, first + len(flags)):
            part = flags[start:stop]
            part[part == 0] = _NOPAGE
        return flags

    def _deferred(self) -> Iterator[tuple[int, int]]:
        """Frames (first, behind the last) at the ends of zones that the page allocator was not
        given, which have no flag (see `pageflags.deferred`).

        There may be very many: a few samples tell where to begin to look for the last flag.
        """
        for zone in self.zone_map.zones:
            missing = min(zone.present - zone.managed, zone.spanned)
            start, end = max(zone.end_pfn - missing, zone.start_pfn), zone.end_pfn
            for sample in range(end - 1, start, -_WINDOW):
                if self._frames(sample, 1).any():
                    start = sample
                    break
            while start < end:
                used = np.flatnonzero(self._frames(start, min(self.size, end - start)))
                if not len(used):
                    yield start, end
                    break
                start += int(used[-1]) + 1


# -- small things on arrays ----------------------------------------------------------------------


def _busy_runs(state: NDArray[np.uint8], flags: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Runs (first, behind the last) of windows that are not quiet: whose frames are not all free,
    or have a record."""
    starts = np.arange(0, len(flags), _WINDOW)
    if not len(starts):
        return []
    busy = np.logical_or.reduceat(state != 0, starts)
    busy |= np.bitwise_and.reduceat(flags, starts) & _BUDDY == 0
    edges = np.flatnonzero(np.diff(busy.astype(np.int8), prepend=0, append=0))
    return [(int(a) * _WINDOW, min(int(b) * _WINDOW, len(flags)))
            for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _indices(runs: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(a, b) for a, b in runs] or [np.zeros(0, np.int64)])


def _parts(values: NDArray[Any], runs: list[tuple[int, int]]) -> NDArray[Any]:
    """A copy of the runs of an array, one after another."""
    return np.concatenate([values[a:b] for a, b in runs])


def _same(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs (first, behind the last) of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return list(pairwise(bounds))


def _by_compound(classes: NDArray[np.uint8], mine: NDArray[np.bool_],
                 shape: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """First frames and orders of rows for pages without a record: a compound page is one row if
    all of it is of one class, else its pages stand alone."""
    heads = np.flatnonzero(mine)
    sizes = shape[heads]
    large = heads[sizes > 0]
    if not len(large):
        return heads, np.zeros(len(heads), np.uint8)
    ends = np.minimum(large + (np.int64(1) << shape[large].astype(np.int64)), len(mine))
    changes = np.flatnonzero(classes[1:] != classes[:-1])
    alike = np.searchsorted(changes, ends - 1) == np.searchsorted(changes, large)
    large, ends = large[alike], ends[alike]
    orders = np.zeros(len(mine), np.uint8)
    orders[large] = shape[large]
    if len(large):
        before = np.searchsorted(large, heads) - 1  # the last that begins before each, not there
        heads = heads[(before < 0) | (heads >= ends[before])]
    return heads, orders[heads]
