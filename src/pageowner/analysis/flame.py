"""The rectangles of a flame graph: chains of frames merged from one end, as wide as their pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    `Chains.widths` counts them; ``members`` the places of its chains, which lie in a row."""

    name: str
    depth: int
    start: int
    width: int
    before: int
    after: int
    members: Sequence[int]


def chains(after: Iterable[Sample], before: Iterable[Sample] = ()) -> Chains:
    """The samples of one or two moments by chain; labels are frames around the stack."""
    sums: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for place, samples in enumerate((before, after)):
        for one in samples:
            named = (*("-" if value is None else str(value) for value in one.labels.values()),
                     *map(str, one.frames))
            sums.setdefault((named, one.subsystem), [0, 0])[place] += one.pages
    ordered = sorted(sums)
    return Chains([frames for frames, _ in ordered], [what for _, what in ordered],
                  [sums[one][0] for one in ordered], [sums[one][1] for one in ordered])


def rectangles(found: Chains, reverse: bool = False) -> Iterator[Rectangle]:
    """All rectangles, each before those that stand on it, from left to right.

    ``reverse`` merges from the innermost frame: who allocates, and on it who called that.
    """
    keys = [frames[::-1] if reverse else frames for frames in found.frames]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    widths = found.widths()
    stack: list[tuple[int, int, int, int]] = [(0, 0, len(order), 0)]
    while stack:
        depth, first, end, start = stack.pop()
        members = order[first:end]
        yield Rectangle("all" if not depth else keys[order[first]][depth - 1], depth, start,
                        sum(widths[one] for one in members),
                        sum(found.before[one] for one in members),
                        sum(found.after[one] for one in members), members)
        runs = []
        at = first
        while at < end:
            name = keys[order[at]][depth:depth + 1]
            begin, wide = at, 0
            while at < end and keys[order[at]][depth:depth + 1] == name:
                wide += widths[order[at]]
                at += 1
            if name:  # what ends here has nothing on it, at the right
                runs.append((depth + 1, begin, at, start))
                start += wide
        stack.extend(reversed(runs))
