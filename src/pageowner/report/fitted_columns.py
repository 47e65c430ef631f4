"""Columns of text that fit the paper: numbers first, the keys of owners last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.model.schema import NARROW, NUMERIC
from pageowner.report.stack_lines import cut, one_line_each
from pageowner.report.terminal import PIPE_WIDTH
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pageowner.report.terminal import Paper

__all__ = ["UNKNOWN", "Column", "key_columns", "lay_out"]

Column = tuple[str, str, list[str]]
"""A title, the side that its cells stand at (``left``, ``right``), and the cells."""

UNKNOWN = "-"
_STACK = "STACK"
_WHAT = "WHAT"


def key_columns(table: Mapping[str, list[Any]], by: Sequence[str], kind: str) -> list[Column]:
    """A column for each key; before stacks one that says what they are for.

    ``kind`` is that of the source (`pageowner.model.metadata.Metadata.kind`).
    """
    columns: list[Column] = []
    if "stack" in by and "subsystem" not in by:
        from pageowner.analysis.subsystems import subsystem

        columns.append((_WHAT, "left", [
            UNKNOWN if stack is None else printable(subsystem(stack))
            for stack in table["stack"]]))
    columns += [(name.upper(), "right" if name in NUMERIC else "left",
                 one_line_each(table[name], _missing(kind), PIPE_WIDTH) if name == "stack" else
                 [UNKNOWN if value is None else printable(str(value)) for value in table[name]])
                for name in by]
    return columns


def lay_out(columns: Sequence[Column], by: Sequence[str], paper: Paper,
            stacks: Sequence[str | None] | None = None) -> None:
    """The titles and every row; what does not fit is cut where it is longest, yet not so that
    different ``stacks``, those behind the cells of that title, look the same."""
    widths = _widths(columns, by, paper.width)
    if stacks is not None and paper.width < PIPE_WIDTH:
        columns = [
            (title, side, [cell if stack is None else line for cell, stack, line in zip(
                cells, stacks, one_line_each(stacks, "", wide), strict=True)]
             if title == _STACK else cells)
            for (title, side, cells), wide in zip(columns, widths, strict=True)]
    paper.line(_line([title for title, _, _ in columns], columns, widths), "columns")
    for row in zip(*(cells for _, _, cells in columns), strict=True):
        paper.line(_line(row, columns, widths))


def _missing(kind: str) -> str:
    return "(no stack)" if kind == "tracker" else "(no stack in the dump)"


def _line(cells: Sequence[str], columns: Sequence[Column],
          widths: Sequence[int]) -> str:
    """One row, every cell cut or filled to its column's width in terminal cells."""
    from rich.cells import cell_len

    parts = []
    for cell, (_, side, _), wide in zip(cells, columns, widths, strict=True):
        cell = cut(cell, wide)
        space = " " * (wide - cell_len(cell))
        parts.append(space + cell if side == "right" else cell + space)
    return "  ".join(parts).rstrip()


def _widths(columns: Sequence[Column], by: Sequence[str],
            width: int) -> list[int]:
    """Numbers get what they need; what is left is shared by the texts, the longest giving way."""
    from rich.cells import cell_len

    wanted = [max([len(title), *map(cell_len, cells)]) for title, _, cells in columns]
    texts = [place for place, (title, _, _) in enumerate(columns)
             if title == _WHAT or (title.lower() in by and title.lower() not in NARROW)]
    left = width - 2 * (len(columns) - 1) - sum(
        wide for place, wide in enumerate(wanted) if place not in texts)
    for place in sorted(texts, key=lambda place: wanted[place]):
        title = columns[place][0]
        share = max(left // max(len(texts), 1), 8)
        if title == _WHAT:
            share = min(share, max(16, width // 6))
        wanted[place] = min(wanted[place], share)
        left -= wanted[place]
        texts = texts[1:]
    return wanted
