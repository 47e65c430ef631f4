"""Tables of plain lines: numbers to the right, texts to the left, as wide as the paper allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pageowner.report.terminal import PIPE_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.report.terminal import Paper

__all__ = ["Column", "entry", "grid", "prose"]

_LEAST = 8
_LEAST_WORDS = 20


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
    """Words of ours, broken between words where a terminal ends; never in a pipe."""
    for at, line in enumerate(_broken(text, paper.width, indent + 2, indent)):
        paper.line(" " * (indent + 2 * (at > 0)) + line, style)


def entry(paper: Paper, title: str, text: str, style: str = "", title_style: str | None = None
          ) -> None:
    """Words of ours behind a title of a fixed width; where a terminal ends they go on below
    themselves. The title has the style of the words unless it is given one."""
    title_style = style if title_style is None else title_style
    if not text:
        paper.line(title.rstrip(), title_style)
        return
    for line in _broken(text, paper.width, len(title), len(title)):
        paper.parts([(title, title_style), (line, style)])
        title = " " * len(title)


def _broken(text: str, width: int, indent: int, first: int) -> list[str]:
    """Lines that fit behind their indents, of which the first line has its own."""
    if width >= PIPE_WIDTH:
        return [text]
    from textwrap import wrap

    least = max(width, indent + _LEAST_WORDS)
    lines = wrap(text, least, initial_indent=" " * first, subsequent_indent=" " * indent,
                 break_on_hyphens=False)
    return [line[indent if at else first:] for at, line in enumerate(lines)] or [""]


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
