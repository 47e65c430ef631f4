"""Stacks in one line each, in which different ones look different as far as there is room."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from pageowner.report.cells import cell_len, cut, cut_front
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["one_line_each"]

_FEW = 64  # so that not every chain is compared with every other
_CALLS, _GAP, _SHORT_GAP = " ← ", " ← … ← ", " … "
_LEAST = 10


def one_line_each(stacks: Sequence[str | None], missing: str, width: int,
                  most: int = 6) -> list[str]:
    """A line of at most ``width`` terminal cells for each stack: the frame that explains it, then
    who called that, ``most`` frames at most. Where several would be the same, each shows up to two
    more frames in their places, those that the fewest others of them have; with the offset where
    functions are all the same. ``missing`` stands for None."""
    shown = {stack: _Shown(stack, most) for stack in dict.fromkeys(stacks) if stack is not None}
    lines = {stack: cut(frames.line(), width) for stack, frames in shown.items()}
    alike: dict[str, list[str]] = defaultdict(list)
    for stack, line in lines.items():
        alike[line].append(stack)
    for same in alike.values():
        if len(same) == 1:
            continue
        named = _Group([shown[stack].named for stack in same])
        exact = _Group([shown[stack].exact for stack in same])
        for at, stack in enumerate(same):
            frames = shown[stack]
            telling = {place: frames.named[place] for place in named.chosen(at, frames.first)} or {
                place: frames.exact[place] for place in exact.chosen(at, frames.first)}
            if telling:
                lines[stack] = frames.with_telling(telling, width)
    return [cut(missing, width) if stack is None else lines[stack] for stack in stacks]


class _Shown:
    """A stack, and which of its frames are shown in its line."""

    def __init__(self, stack: str, most: int) -> None:
        from pageowner.analysis.subsystems import short_stack
        from pageowner.kernel.frames import frame_lines

        lines = frame_lines(stack)
        self.named = [str(frame) for _, frame in lines]
        self.exact = [line.partition("/")[0] for line, _ in lines]
        self._texts = short_stack(stack, most).split(_CALLS)
        self._places: list[int] = []
        for text in self._texts:
            after = self._places[-1] + 1 if self._places else 0
            self._places.append(self.named.index(text, after) if text in self.named[after:]
                                else after)

    @property
    def first(self) -> int:
        """The place in the stack of the frame that explains it."""
        return self._places[0]

    def line(self) -> str:
        return printable(_CALLS.join(self._texts))

    def with_telling(self, telling: dict[int, str], width: int) -> str:
        """The line with these frames in it too, and as many of the others as have room."""
        for most in range(len(self._texts), 0, -1):
            frames = dict(zip(self._places[:most], self._texts[:most], strict=True)) | telling
            order = sorted(frames)
            text = frames[order[0]]
            for before, place in pairwise(order):
                near = place - before == 1 or not {before, place} & telling.keys()
                text += (_CALLS if near else _GAP) + frames[place]
            if cell_len(printable(text)) <= width:
                return printable(text)
        return self._narrow(telling, width)

    def _narrow(self, telling: dict[int, str], width: int) -> str:
        """The beginning of the first frame and the end of one that tells, in their order."""
        place = next(iter(telling))
        first, tells = printable(self._texts[0]), printable(telling[place])
        if place == self._places[0]:
            return cut_front(tells, width)
        room = width - len(_SHORT_GAP)
        first = cut(first, max(room - cell_len(tells), min(_LEAST, room // 3)))
        tells = cut_front(tells, room - cell_len(first))
        both = [tells, first] if place < self._places[0] else [first, tells]
        return cut(_SHORT_GAP.join(both), width)


class _Group:
    """Chains of frames, and which of them have a frame."""

    def __init__(self, chains: Sequence[Sequence[str]]) -> None:
        self._chains = chains
        self._having: dict[str, list[int]] = defaultdict(list)
        for at, chain in enumerate(chains):
            for frame in dict.fromkeys(chain):
                self._having[frame].append(at)

    def chosen(self, at: int, inner: int) -> list[int]:
        """The place of the frame of a chain that the fewest others have, and if these are few, of
        one more that the fewest of them have; none where all have all. Of equal ones the nearest
        that called the frame at ``inner``: rather that than what it called."""
        chain = self._chains[at]
        if not chain:
            return []

        def fewest(counts: Mapping[str, int]) -> int:
            return min(range(len(chain)), key=lambda place: (
                counts[chain[place]], place < inner, abs(place - inner)))

        counts = {frame: len(self._having[frame]) for frame in chain}
        first = fewest(counts)
        alike = self._having[chain[first]]
        if len(alike) == len(self._chains):
            return []
        if 1 < len(alike) <= _FEW:
            counts = Counter(frame for other in alike for frame in set(self._chains[other]))
            second = fewest(counts)
            if counts[chain[second]] < len(alike):
                return [first, second]
        return [first]
