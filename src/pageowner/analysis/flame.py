"""The rectangles of a flame graph: chains of frames merged from one end, as wide as their pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.analysis import profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.profile import Sample

__all__ = ["Chains", "Rectangle", "chains", "rectangles"]


class Chains(NamedTuple):
    """Distinct chains of frames, outermost first, sorted; what each is for, and its pages at two
    moments (``before`` all 0 where there is one moment only)."""

    frames: list[tuple[str, ...]]
    subsystems: list[str]
    before: list[int]
    after: list[int]

    def widths(self) -> list[int]:
        """Pages that a chain is as wide as: the more of both moments, so that what is gone has a
        place too."""
        return [max(pair) for pair in zip(self.before, self.after, strict=True)]


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


def chains(after: Iterable[Sample], before: Iterable[Sample] = ()) -> Chains:
    """The samples of one or two moments by chain; labels are frames around the stack."""
    sums: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for place, samples in enumerate((before, after)):
        for one, frames in profile.chains(samples):
            sums.setdefault((frames, one.subsystem), [0, 0])[place] += one.pages
    found = list(sums)
    keys = _sorting([frames for frames, _ in found])
    order = sorted(range(len(found)), key=lambda place: (keys[place], found[place][1]))
    return Chains([found[place][0] for place in order], [found[place][1] for place in order],
                  [sums[found[place]][0] for place in order],
                  [sums[found[place]][1] for place in order])


def _places(chains: Sequence[Sequence[str]]) -> dict[str, int]:
    """Every name and its place among all names in order."""
    return {name: place for place, name in enumerate(sorted(set().union(*chains)))}


def _sorting(chains: Sequence[Sequence[str]]) -> list[bytes]:
    """Of each chain what sorts as it does, and is compared at once and not name by name."""
    coded = {name: place.to_bytes(4, "big") for name, place in _places(chains).items()}
    return [b"".join([coded[name] for name in chain]) for chain in chains]


def rectangles(found: Chains, reverse: bool = False, least: float = 0) -> list[Rectangle]:
    """The rectangles, each before those that stand on it, from left to right.

    ``reverse`` merges from the innermost frame: who allocates, and on it who called that. What is
    narrower than ``least`` pages is left out, and what stands on it; the lowest never is.

    A level of all chains is looked at in one go, so that a million take seconds.
    """
    keys = [frames[::-1] for frames in found.frames] if reverse else found.frames
    places = _places(keys)
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    codes = np.fromiter((places[name] for frames in keys for name in frames), np.int64,
                        int(lengths.sum()))
    sorting = _sorting(keys) if reverse else []
    order = (np.array(sorted(range(len(keys)), key=sorting.__getitem__), np.int64) if reverse
             else np.arange(len(keys)))
    begins = (np.cumsum(lengths) - lengths)[order]
    lengths = lengths[order]
    before, after = (np.array(pages, np.int64)[order] for pages in (found.before, found.after))
    wide = np.maximum(before, after)
    sums = [np.concatenate([[0], np.cumsum(pages)]) for pages in (wide, before, after)]

    rows = np.arange(len(order))
    new = np.zeros(len(order), bool)  # whether a rectangle of this level begins in this row
    new[:1] = True
    moved = np.zeros(len(order), np.int64)  # pages of what ends below, which is at the right
    names = list(places)
    levels = [(-1, 0, 0, len(order), 0, *(int(one[-1]) for one in sums))]
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
        width, had, has = (one[end] - one[first] for one in sums)
        kept = np.flatnonzero(width >= least) if depth else np.arange(len(heads))
        if depth:
            start = sums[0][first] - moved[first]
            levels += zip(code[heads[kept]].tolist(), [depth] * len(kept), *(
                one[kept].tolist() for one in (first, end, start, width, had, has)), strict=True)
        sizes = np.diff(np.append(heads, len(rows)))
        ended = np.add.reduceat(np.where(lengths[rows] == depth, wide[rows], 0), heads)
        moved[rows] += np.repeat(ended, sizes)
        chosen = np.zeros(len(heads), bool)
        chosen[kept] = True
        rows = rows[np.repeat(chosen, sizes)]
    levels.sort(key=lambda one: (one[2], one[1]))
    return [Rectangle("all" if name < 0 else names[name], depth, start, width, had, has,
                      order[first:end])
            for name, depth, first, end, start, width, had, has in levels]
