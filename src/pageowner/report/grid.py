"""Tables of plain lines: numbers to the right, texts to the left, as wide as the paper allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.report.terminal import Paper

__all__ = ["Column", "grid", "prose"]

_LEAST = 8


class Column(NamedTuple):
    """A column: its title, its cells (already printable), and whether it is a text, which may be
    cut short."""

    title: str
    cells: Sequence[str]
    text: bool = False


def grid(paper: Paper, columns: Sequence[Column], indent: int = 0) -> None:
    """Draw the columns side by side under their titles. What numbers leave of the width is shared
    by the texts, of which the longest give way."""
    widths = _widths(columns, paper.width - indent)
    margin = " " * indent
    paper.line(margin + _line([column.title for column in columns], columns, widths), "bold")
    for row in zip(*(column.cells for column in columns), strict=True):
        paper.line(margin + _line(row, columns, widths))


def prose(paper: Paper, text: str, style: str = "", indent: int = 0) -> None:
    """Words of ours, broken between words where the paper ends."""
    from textwrap import wrap

    for line in wrap(text, max(paper.width, 20), initial_indent=" " * indent,
                     subsequent_indent=" " * (indent + 2), break_on_hyphens=False):
        paper.line(line, style)


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    from rich.cells import cell_len

    wanted = [max(map(cell_len, (column.title, *column.cells))) for column in columns]
    texts = [place for place, column in enumerate(columns) if column.text]
    left = width - 2 * (len(columns) - 1) - sum(
        wide for place, wide in enumerate(wanted) if place not in texts)
    for number, place in enumerate(sorted(texts, key=lambda place: wanted[place])):
        share = max(left // (len(texts) - number), _LEAST)
        wanted[place] = min(wanted[place], share)
        left -= wanted[place]
    return wanted


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    from rich.cells import cell_len, set_cell_size

    parts = []
    for cell, column, wide in zip(cells, columns, widths, strict=True):
        if cell_len(cell) > wide:
            cell = set_cell_size(cell, max(wide - 1, 0)) + "…"
        space = " " * (wide - cell_len(cell))
        parts.append(cell + space if column.text else space + cell)
    return "  ".join(parts).rstrip()
