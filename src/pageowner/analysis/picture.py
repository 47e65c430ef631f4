"""Physical memory as a picture: every frame has a category, many frames make a cell.

Frames are steps of one function from pfn to category, never single objects: a step where the
category changes, so that neighbours of one category cost nothing. Cells are cut out of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.analysis.filters import key_names
from pageowner.analysis.keys import key, times
from pageowner.analysis.memory import NO_ROW, Memory, Stretch, memory
from pageowner.analysis.select import newest_ns
from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["AGE", "AGES", "VALUES", "Category", "Cells", "Picture", "aggregate", "aspect",
           "cell_bounds", "disjoint", "picture"]

AGE = "age"
"""The word of ``by`` that is none of report's keys: how long ago the page was allocated."""

AGES = (("under 1 s", 10**9), ("1 to 10 s", 10 * 10**9), ("10 s to 1 min", 60 * 10**9),
        ("1 to 10 min", 600 * 10**9), ("10 min to 1 h", 3600 * 10**9),
        ("1 to 6 h", 6 * 3600 * 10**9), ("6 h to 1 d", 86400 * 10**9), ("over 1 d", 1 << 63))
"""Ages by name, with the ns that end each."""

VALUES = len(AGES)
"""So many values have a colour of their own; more cannot be told apart by everybody."""

_CELLS = 1 << 16  # at a time: bounds the memory that the counts take


class Category(NamedTuple):
    """What a frame can be. ``role``: ``value`` (``label`` is one of the key's), ``other`` (values
    with too few pages for a colour), ``unknown`` (in use, the source does not say more),
    ``free``, ``unseen`` (no record: free, reserved or no memory), ``held`` (never given to the page
    allocator). ``pages`` are counted over all stretches."""

    label: str
    role: str
    pages: int


@dataclass(frozen=True)
class Picture:
    """``steps`` (int64, rising): frames from each to the next are of category ``codes`` (uint8, a
    place in ``categories``). ``stretches`` do not overlap and are in pfn order."""

    by: str
    steps: NDArray[np.int64]
    codes: NDArray[np.uint8]
    categories: tuple[Category, ...]
    stretches: tuple[Stretch, ...]
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Frames in all stretches."""
        return sum(stretch.end - stretch.start for stretch in self.stretches)


class Cells(NamedTuple):
    """One item a cell: the category of most of its frames (the first of equals), their share
    (above 0, to 1), and all its frames; ``first``: the first cell of each stretch, and the end."""

    code: NDArray[np.uint8]
    share: NDArray[np.float32]
    frames: NDArray[np.int64]
    first: NDArray[np.int64]


def picture(snapshot: Snapshot, by: str = "subsystem", *,
            flags: NDArray[np.uint64] | None = None, seen: Memory | None = None) -> Picture:
    """All frames by one key of report's, or by `AGE`; ``flags`` as in `memory`, ``seen``: what that
    gave, if it is known already.

    Raises UsageError for an unknown key, PageownerError for a source without places, or without
    anything.
    """
    seen = memory(snapshot, flags) if seen is None else seen
    if seen.end <= seen.start:
        raise PageownerError(f"{snapshot.meta.source or 'the source'}: contains no allocation, so"
                             " there is nothing to draw")
    rows, labels = aspect(snapshot, by)
    pages = np.zeros(len(labels), np.int64)
    known = seen.row != NO_ROW
    code = np.full(len(seen.first), len(labels) - 1, np.int64)  # the last: not known
    code[known] = rows[seen.row[known]]
    np.add.at(pages, code, seen.pages)
    values = list(range(len(labels) - 1))
    if by != AGE:
        values.sort(key=lambda place: (-int(pages[place]), labels[place]))
    values = [place for place in values if pages[place] or by == AGE]
    chosen, rest = values[:VALUES], values[VALUES:]
    names = [(labels[place], "value") for place in chosen]
    table = np.full(len(labels), len(names) + 1, np.uint8)
    table[chosen] = np.arange(len(chosen), dtype=np.uint8)
    table[rest] = len(names)
    names += [(f"{len(rest):,} others", "other"), ("in use, not known", "unknown"),
              ("free", "free") if seen.sees_free else ("no record", "unseen"),
              ("not the allocator's", "held")]
    steps, codes = _steps(seen, table[code], len(names) - 2, len(names) - 1)
    stretches = disjoint(seen.stretches)
    drawn = Picture(by, steps, codes, tuple(Category(*name, 0) for name in names), stretches,
                    seen.notes)
    totals = np.zeros(len(names), np.int64)
    for stretch in stretches:
        totals += _counts(drawn, np.array([stretch.start, stretch.end]))[0]
    return Picture(by, steps, codes, tuple(Category(*name, int(total)) for name, total
                                           in zip(names, totals, strict=True)),
                   stretches, seen.notes)


def aspect(snapshot: Snapshot, by: str) -> tuple[NDArray[np.int64], list[str]]:
    """Each row's place in the labels; the last label is of rows that do not know.

    Raises UsageError for a word that is neither `AGE` nor one of report's keys.
    """
    if by == AGE:
        found, known = times(snapshot)
        ages = np.maximum(np.int64(newest_ns(snapshot)) - found.astype(np.int64), 0)
        place = np.searchsorted([end for _, end in AGES[:-1]], ages, side="right")
        return np.where(known, place, len(AGES)), [*(name for name, _ in AGES), ""]
    (name,) = key_names([by])
    found_key = key(snapshot, name)
    labels = found_key.labels.to_pylist()
    table = np.array([len(labels) if label is None else place
                      for place, label in enumerate(labels)] or [0], np.int64)
    return table[found_key.codes], [str(label) for label in labels] + [""]


def _steps(seen: Memory, codes: NDArray[np.uint8], free: int,
           held: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    first = np.concatenate([seen.first, seen.held[:, 0]])
    behind = np.concatenate([seen.first + seen.pages, seen.held[:, 1]])
    codes = np.concatenate([codes, np.full(len(seen.held), held, np.uint8)])
    if len(seen.held):
        by_pfn = np.argsort(first, kind="stable")
        first, behind, codes = first[by_pfn], behind[by_pfn], codes[by_pfn]
    touch = behind[:-1] == first[1:]
    begins = np.append(True, ~(touch & (codes[1:] == codes[:-1])))[:len(first)]
    ends = np.append(~touch, True)[:len(first)]
    # -1: what lies before the first of all
    places = np.concatenate([[-1], first[begins], behind[ends]])
    kinds = np.concatenate([np.array([free], np.uint8), codes[begins],
                            np.full(int(ends.sum()), free, np.uint8)])
    by_pfn = np.argsort(places, kind="stable")
    return places[by_pfn], kinds[by_pfn]


def disjoint(stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """The same frames without overlaps, in pfn order; where two overlap, the later one's (nodes
    may interleave). One that others cut appears more than once."""
    edges = sorted({edge for stretch in stretches for edge in (stretch.start, stretch.end)})
    found: list[Stretch] = []
    for start, end in pairwise(edges):
        owner = next((stretch for stretch in reversed(stretches)
                      if stretch.start <= start < stretch.end), None)
        if owner is None:
            continue
        last = found[-1] if found else None
        if last and last.end == start and (last.node, last.zone) == (owner.node, owner.zone):
            found[-1] = Stretch(last.node, last.zone, last.start, end)
        else:
            found.append(Stretch(owner.node, owner.zone, start, end))
    return tuple(found)


def cell_bounds(stretch: Stretch, frames: int) -> NDArray[np.int64]:
    """Where the cells of a stretch begin, and its end. They are aligned, so that no block is cut
    which is not larger than a cell: the first and the last may have fewer frames."""
    inner = np.arange(stretch.start // frames + 1, -(-stretch.end // frames), dtype=np.int64)
    return np.concatenate([[stretch.start], inner * frames, [stretch.end]]).astype(np.int64)


def aggregate(drawn: Picture, frames: int) -> Cells:
    """Cells of so many frames each, those of one stretch after the other."""
    codes, shares, sizes, first = [], [], [], [0]
    for stretch in drawn.stretches:
        bounds = cell_bounds(stretch, frames)
        for at in range(0, len(bounds) - 1, _CELLS):
            part = bounds[at:at + _CELLS + 1]
            counts = _counts(drawn, part)
            size = np.diff(part)
            most = counts.argmax(axis=1)
            codes.append(most.astype(np.uint8))
            shares.append((counts[np.arange(len(most)), most] / size).astype(np.float32))
            sizes.append(size)
        first.append(first[-1] + len(bounds) - 1)
    if not codes:
        return Cells(np.zeros(0, np.uint8), np.zeros(0, np.float32), np.zeros(0, np.int64),
                     np.array(first))
    return Cells(np.concatenate(codes), np.concatenate(shares), np.concatenate(sizes),
                 np.array(first))


def _counts(drawn: Picture, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frames by cell and category (cells x categories)."""
    low, high = np.searchsorted(drawn.steps, bounds[[0, -1]], side="right")
    steps = drawn.steps[low:high]
    cuts = np.sort(np.concatenate([bounds, steps[steps < bounds[-1]]]), kind="stable")
    code = drawn.codes[np.searchsorted(drawn.steps, cuts[:-1], side="right") - 1]
    cell = np.searchsorted(bounds, cuts[:-1], side="right") - 1
    kinds = len(drawn.categories)
    # sums of whole numbers below 2**53: exact as floating point
    counts = np.bincount(cell * kinds + code, np.diff(cuts), (len(bounds) - 1) * kinds)
    return counts.astype(np.int64).reshape(-1, kinds)
