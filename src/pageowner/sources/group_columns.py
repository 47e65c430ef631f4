"""Groups of allocations as plain columns: what readers of texts of groups fill."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from pageowner.sources.damage import Damage, count_damage

if TYPE_CHECKING:
    import numpy as np

    from pageowner.sources.page_owner_body import Body

__all__ = ["Groups", "Line"]


class Line(NamedTuple):
    """A record's first line, or what a title says; None where that does not."""

    order: int | None = None
    gfp_mask: int | None = None
    gfp_flags: str | None = None
    pid: int | None = None
    tgid: int | None = None
    comm: str | None = None


class Groups:
    """The groups of a text, an item a group, in its order.

    ``blocks``, 0 where that is not known, and ``pages``; ``order`` of all of its blocks, -1 where
    they may differ; ``ts``, the time of a single block in ns, 0 where none is known; places in
    ``lines`` and ``bodies``. A line that is that of one of several different blocks is left out.
    ``unterminated``: the text does not end where a group does, so the last one may be cut.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.bodies: list[Body] = []
        self.blocks, self.pages = array("q"), array("q")
        self.order, self.ts = array("b"), array("Q")
        self.line, self.body = array("q"), array("q")
        self.damaged, self.unterminated = 0, False
        self.damage: list[Damage] = []
        self._places: dict[Line, int] = {}
        self._seen: dict[int, int] = {}

    def lost(self, offset: int, reason: str) -> None:
        """Text at this byte that is no group."""
        count_damage(self, offset, reason)

    def put(self, line: Line, body: int, blocks: int, pages: int, order: int, ts: int) -> None:
        """A group; ``body`` is a place in ``bodies``."""
        place = self._seen.get(id(line))
        if place is None:
            place = self._place(line)
        self.line.append(place)
        self.body.append(body)
        self.blocks.append(blocks)
        self.pages.append(pages)
        self.order.append(order)
        self.ts.append(ts)

    def put_all(self, line: Line, body: np.ndarray, blocks: np.ndarray, pages: np.ndarray) -> None:
        """Groups of one line, whose blocks may differ in order, and whose times are not known:
        columns of int64."""
        number = len(body)
        self.line.extend(array("q", [self._place(line)]) * number)
        self.order.extend(array("b", [-1]) * number)
        self.ts.extend(array("Q", [0]) * number)
        for column, values in ((self.body, body), (self.blocks, blocks), (self.pages, pages)):
            column.frombytes(values.tobytes())

    def _place(self, line: Line) -> int:
        """The place of a line in ``lines``, where it is from now on."""
        place = self._places.setdefault(line, len(self._places))
        if len(self.lines) < len(self._places):
            self.lines.append(line)
            self._seen[id(line)] = place  # those in ``lines`` stay, and so do their ids
        return place
