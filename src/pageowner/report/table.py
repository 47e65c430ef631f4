"""The tables of all reports: columns side by side, as wide as the paper allows.

Cells are measured and cut by rich, which knows how wide a character is on a terminal. Its own
``rich.table`` is not used: it fills every line with blanks to the end, takes 0.3 ms for a row where
this takes 0.03 (and ``--all`` may have a hundred thousand), and 16 ms to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pageowner.report.cells import cell_len, fitted
from pageowner.report.terminal import PIPE_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.report.terminal import Paper

__all__ = ["Column", "draw_table", "natural_width"]

_BETWEEN = "  "
_LEAST = 8
"""Cells of a column of texts, however narrow the paper."""


class Column(NamedTuple):
    """A column: its title and its cells, all printable.

    Numbers are at the right and never cut. A column of texts (``text``) is at the left, and
    ``flexible`` ones, as all texts are unless told otherwise, are cut where the paper is narrow.
    ``share``: the largest part of the paper that they get, if that is not what others leave.
    ``refit``: gives the cells anew for a width that they have to be cut to.
    """

    title: str
    cells: Sequence[str]
    text: bool = False
    flexible: bool | None = None
    share: float = 1.0
    refit: Callable[[int], Sequence[str]] | None = None

    @property
    def may_be_cut(self) -> bool:
        return self.text if self.flexible is None else self.flexible

    @property
    def natural_width(self) -> int:
        """Terminal cells that it takes uncut."""
        return max(map(cell_len, (self.title, *self.cells)))


def natural_width(columns: Sequence[Column]) -> int:
    """Terminal cells that the table takes with nothing cut."""
    return (sum(column.natural_width for column in columns)
            + len(_BETWEEN) * (len(columns) - 1))


def draw_table(paper: Paper, columns: Sequence[Column], indent: int = 0) -> None:
    """Draw the columns side by side under their titles, ``indent`` cells from the left. What
    numbers leave of the width is shared by the texts, of which the longest give way."""
    widths = _widths(columns, paper.width - indent)
    margin = " " * indent
    titles = _line([column.title for column in columns], columns, widths)
    paper.parts([(margin, ""), (titles, "columns")])
    cells = [column.cells if column.refit is None or paper.width >= PIPE_WIDTH
             else column.refit(width) for column, width in zip(columns, widths, strict=True)]
    for row in zip(*cells, strict=True):
        paper.line(margin + _line(row, columns, widths))


def _widths(columns: Sequence[Column], paper_width: int) -> list[int]:
    widths = [column.natural_width for column in columns]
    cuttable = [place for place, column in enumerate(columns) if column.may_be_cut]
    left = paper_width - len(_BETWEEN) * (len(columns) - 1) - sum(
        width for place, width in enumerate(widths) if place not in cuttable)
    for number, place in enumerate(sorted(cuttable, key=lambda place: widths[place])):
        share = max(left // (len(cuttable) - number), _LEAST)
        if columns[place].share < 1:
            share = min(share, max(2 * _LEAST, int(paper_width * columns[place].share)))
        widths[place] = min(widths[place], share)
        left -= widths[place]
    return widths


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    return _BETWEEN.join([
        fitted(cell, width, right=not column.text)
        for cell, column, width in zip(cells, columns, widths, strict=True)]).rstrip()
