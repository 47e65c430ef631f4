"""The rectangles of a flame graph: chains of frames merged from one end, as wide as their pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.analysis import profile
from pageowner.analysis.ordering import in_order, sorted_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.profile import Samples

__all__ = ["Chains", "Rectangle", "Seen", "chains", "rectangles", "seen"]

@dataclass(frozen=True)
class Chains:
    """Distinct chains of frames, outermost first, sorted; what each is for, and its pages at two
    moments (``before`` all 0 where there is one moment only).

    The frames of chain N are ``names[code]`` for each ``code`` in ``codes[edges[N]:edges[N + 1]]``,
    with ``names`` sorted; it is for ``subsystems[what[N]]``.
    """

    names: list[str]
    edges: NDArray[np.int64]
    codes: NDArray[np.int32]
    subsystems: list[str]
    what: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.what)

    def frames(self, chosen: NDArray[np.int64] | None = None) -> list[tuple[str, ...]]:
        """The names of the chains at these places, or of all."""
        places = np.arange(len(self)) if chosen is None else chosen
        return [tuple([self.names[code] for code in self.codes[first:end].tolist()])
                for first, end in zip(self.edges[places], self.edges[places + 1], strict=True)]

    def widths(self) -> NDArray[np.int64]:
        """Pages that a chain is as wide as: the more of both moments, so that what is gone has a
        place too."""
        return np.maximum(self.before, self.after)


class Rectangle(NamedTuple):
    """One frame of merged chains: ``depth`` 0 is all; ``start`` and ``width`` are pages as
    `Chains.widths` counts them; ``members`` the places of its chains."""

    name: str
    depth: int
    start: int
    width: int
    before: int
    after: int
    members: NDArray[np.int64]


def chains(after: Samples, before: Samples | None = None) -> Chains:
    """The samples of one or two moments by chain; labels are frames around the stack."""
    moments = [samples for samples in (before, after) if samples is not None]
    found = [profile.chained(samples, str, lambda value: "-" if value is None else str(value))
             for samples in moments]
    names = sorted({name for samples in found for name in samples.names})
    subsystems = sorted({what for samples in moments for what in samples.subsystem.values})
    ends = np.cumsum([0, *(samples.edges[-1] for samples in found)])
    edges, codes, chain = in_order(
        np.concatenate([[0], *(samples.edges[1:] + end for samples, end in
                               zip(found, ends, strict=False))]),
        np.concatenate([_places(samples.names, names)[samples.codes] for samples in found]))
    what = np.concatenate([_places(samples.subsystem.values, subsystems)[samples.subsystem.codes]
                           for samples in moments])
    kinds = max(len(subsystems), 1)
    # equal chains that are for different things are different
    distinct, group = np.unique(chain * kinds + what, return_inverse=True)
    sums = np.zeros((2, len(distinct)), np.int64)
    moment = np.repeat(np.arange(2 - len(moments), 2), [len(samples) for samples in moments])
    np.add.at(sums, (moment, group), np.concatenate([samples.pages for samples in moments]))
    edges, codes = _repeated(edges, codes, distinct // kinds)
    return Chains(names, edges, codes, subsystems, distinct % kinds, sums[0], sums[1])


def _repeated(edges: NDArray[np.int64], codes: NDArray[np.int32],
              places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The sequences at these places."""
    if len(places) == len(edges) - 1:
        return edges, codes  # each once
    lengths = np.diff(edges)[places]
    ends = np.cumsum(lengths)
    at = np.repeat(edges[:-1][places] - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
    return np.concatenate([[0], ends]), codes[at]


def _places(names: Sequence[str], whole: Sequence[str]) -> NDArray[np.int64]:
    """The place of each among all of them; one more, so that there is one."""
    places = {name: place for place, name in enumerate(whole)}
    return np.array([*(places[name] for name in names), 0], np.int64)


def rectangles(found: Chains, reverse: bool = False) -> list[Rectangle]:
    """The rectangles, each before those that stand on it, from left to right.

    ``reverse`` merges from the innermost frame: who allocates, and on it who called that.
    """
    return seen(found, reverse, 0).boxes


class Seen(NamedTuple):
    """Rectangles that are wide enough to be seen; how many stand on these and are not, with the
    pages of these others. What stands on what is left out is not counted."""

    boxes: list[Rectangle]
    left_out: int
    pages: int


def seen(found: Chains, reverse: bool, least: float) -> Seen:
    """As `rectangles`; what is narrower than ``least`` pages is left out, and what stands on it.
    The lowest never is.

    A level of all chains is looked at in one go, so that a million take seconds.
    """
    codes, begins, ends = found.codes, found.edges[:-1], found.edges[1:]
    order = np.arange(len(found))
    if reverse:
        # the whole array from its end: each chain from its other end, and the last chain first
        codes, whole = codes[::-1], len(codes)
        begins, ends = whole - ends, whole - begins
        order = len(found) - 1 - sorted_places(whole - found.edges[::-1], codes)
    lengths, begins = (ends - begins)[order], begins[order]
    before, after = found.before[order], found.after[order]
    wide = np.maximum(before, after)
    sums = [np.concatenate([[0], np.cumsum(pages)]) for pages in (wide, before, after)]

    rows = np.arange(len(order))
    new = np.zeros(len(order), bool)  # whether a rectangle of this level begins in this row
    new[:1] = True
    moved = np.zeros(len(order), np.int64)  # pages of what ends below, which is at the right
    names = found.names
    levels = [(-1, 0, 0, len(order), 0, *(int(summed[-1]) for summed in sums))]
    left_out = pages = 0
    for depth in range(int(lengths.max(initial=0)) + 1):
        if depth:
            rows = rows[lengths[rows] >= depth]
            code = codes[begins[rows] + depth - 1]
            new[rows[1:]] |= (code[1:] != code[:-1]) | (np.diff(rows) != 1)
            new[rows[:1]] = True
        heads = np.flatnonzero(new[rows])
        if not len(heads):
            break
        first, end = rows[heads], rows[np.append(heads[1:], len(rows)) - 1] + 1
        width, had, has = (summed[end] - summed[first] for summed in sums)
        is_seen = width >= least if depth else np.ones(len(heads), bool)
        kept = np.flatnonzero(is_seen)
        left_out, pages = left_out + len(heads) - len(kept), pages + int(width[~is_seen].sum())
        if depth:
            start = sums[0][first] - moved[first]
            levels += zip(code[heads[kept]].tolist(), [depth] * len(kept), *(
                column[kept].tolist()
                for column in (first, end, start, width, had, has)), strict=True)
        sizes = np.diff(np.append(heads, len(rows)))
        ended = np.add.reduceat(np.where(lengths[rows] == depth, wide[rows], 0), heads)
        moved[rows] += np.repeat(ended, sizes)
        rows = rows[np.repeat(is_seen, sizes)]
    levels.sort(key=lambda level: (level[2], level[1]))
    boxes = [Rectangle("all" if name < 0 else names[name], depth, start, width, had, has,
                       order[first:end])
             for name, depth, first, end, start, width, had, has in levels]
    return Seen(boxes, left_out, pages)
