"""``pageowner map`` in a terminal: two cells to a character, one above the other, and a legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.analysis.layout import Layout, fit
from pageowner.analysis.picture import Category, Cells, Picture, aggregate
from pageowner.report.cells import fitted
from pageowner.report.json_text import Json
from pageowner.report.palette import colours, hexadecimal, shaded, signs
from pageowner.report.text import count_of, printable, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.text import Text

    from pageowner.analysis.memory import Stretch
    from pageowner.model.metadata import Metadata

__all__ = ["draw", "draw_legend", "frames_of", "legend", "to_json"]

_GUTTER = 22
_ENTRY = 40
_LEAST_WIDTH, _LEAST_HEIGHT = 40, 12
_UPPER = "▀"
_TITLES = {"comm": "task", "block": "type of pageblock", "memcg": "cgroup", "gfp": "gfp flags"}


def draw(drawn: Picture, meta: Metadata, order: str, width: int, height: int,
         console: Console | None) -> list[str]:
    """The picture and what it means on ``height`` lines of ``width`` terminal cells (at least 40
    by 12; more lines if there are more zones). With a console it is drawn there in colours; the
    plain lines are returned, and printed if there is none."""
    width, height = max(width, _LEAST_WIDTH), max(height, _LEAST_HEIGHT)
    colour = console is not None
    entries = legend(drawn, meta)
    lines = _legend_lines(entries, width)
    room = height - 2 - lines  # the title, and the line of the prompt
    unit = 2 if colour else 1
    across = (width - _GUTTER) // 8 * 8  # so that lines begin at round addresses
    layout = fit(drawn.stretches, across, room * unit, order, unit=unit)
    cells = aggregate(drawn, layout.frames)
    page = _Page(console)
    page.line([(_title(drawn, meta, layout.frames, width), "bold")])
    _grid(drawn, meta, layout, cells, page)
    _legend(drawn, entries, width, page)
    return page.lines


def draw_legend(drawn: Picture, meta: Metadata, width: int, console: Console | None) -> None:
    """The legend alone, for a picture that is drawn elsewhere."""
    entries = legend(drawn, meta)
    _legend(drawn, entries, width, _Page(console))


def _legend_lines(entries: Sequence[tuple[int, str, str]], width: int) -> int:
    return -(-len(entries) // max(width // _ENTRY, 1))


def _legend(drawn: Picture, entries: Sequence[tuple[int, str, str]], width: int,
            page: _Page) -> None:
    lines = _legend_lines(entries, width)
    wide = width // max(width // _ENTRY, 1)  # of an entry
    palette, letters = colours(drawn.categories, drawn.by), signs(drawn.categories)
    for at in range(lines):
        parts: list[tuple[str, str]] = []
        for place, label, share in entries[at::lines]:
            sign = letters[place] if page.console is None else "██"
            label = fitted(label, wide - len(sign) - len(share) - 2)
            parts += [(sign, palette[place]), (f" {label}{share} ", "")]
        page.line(parts)


class _Page:
    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.lines: list[str] = []

    def line(self, parts: list[tuple[str, str]]) -> None:
        text = "".join(part for part, _ in parts).rstrip()
        self.lines.append(text)
        if self.console is None:
            print(text)
            return
        from rich.text import Text

        drawn: Text = Text.assemble(*parts)
        drawn.rstrip()
        self.console.print(drawn, soft_wrap=True)


def _grid(drawn: Picture, meta: Metadata, layout: Layout, cells: Cells, page: _Page) -> None:
    colour = page.console is not None
    rgb = shaded(cells.code, cells.share, colours(drawn.categories, drawn.by))
    letters = np.append(np.array(signs(drawn.categories))[cells.code], " ")  # at -1: nothing
    for number, stretch in enumerate(drawn.stretches):
        top, end = layout.rows[number:number + 2]
        for row in range(top, end, 2 if colour else 1):
            start = stretch.start if row == top else _first_frame(layout, drawn, number, row)
            mark = _mark(stretch, start, meta, row == top)
            if colour:
                page.line([(mark, "dim"), *_halves(layout.places[row:row + 2], rgb)])
            else:
                line = layout.places[row]
                page.line([(mark, ""), ("".join(letters[line].tolist()), "")])


def _first_frame(layout: Layout, drawn: Picture, number: int, row: int) -> int | None:
    """The frame at the left of a row; None if rows are no runs of frames."""
    line = layout.places[row]
    if line[0] < 0 or (np.diff(line[line >= 0]) != 1).any() or layout.rows[number] == row:
        return None
    stretch = drawn.stretches[number]
    above = layout.places[layout.rows[number], 0]
    return (stretch.start // layout.frames + int(line[0] - above)) * layout.frames


def _mark(stretch: Stretch, start: int | None, meta: Metadata, first: bool) -> str:
    """What stands left of a line: the zone at its first (``N0 DMA32``, short for node 0), the
    address of the line's first page."""
    name = printable(stretch.name).replace("node ", "N", 1) if first else ""
    address = "" if start is None else size(start * meta.page_size)
    return f"{name[:_GUTTER - 10]:<{_GUTTER - 10}}{address:>9} "


def _halves(lines: np.ndarray, rgb: np.ndarray) -> list[tuple[str, str]]:
    """Characters of one line of the terminal and their styles; equal neighbours as one."""
    parts: list[tuple[str, str]] = []
    upper = lines[0]
    lower = lines[1] if len(lines) > 1 else np.full_like(upper, -1)
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        if above < 0 and below < 0:
            char, style = " ", ""
        elif below < 0:
            char, style = _UPPER, hexadecimal(rgb[above])
        elif above < 0:
            char, style = "▄", hexadecimal(rgb[below])
        else:
            char, style = _UPPER, f"{hexadecimal(rgb[above])} on {hexadecimal(rgb[below])}"
        if parts and parts[-1][1] == style and parts[-1][0][-1] == char:
            parts[-1] = (parts[-1][0] + char, style)
        else:
            parts.append((char, style))
    return parts


def legend(drawn: Picture, meta: Metadata) -> list[tuple[int, str, str]]:
    """Every category that has frames: its place, its name, and its share and size."""
    total = max(drawn.frames, 1)
    return [(place, _label(drawn, category),
             f"{100 * category.pages / total:5.1f}% {size(category.pages * meta.page_size):>8}")
            for place, category in enumerate(drawn.categories) if category.pages]


def _label(drawn: Picture, category: Category) -> str:
    if drawn.by == "stack" and category.role == "value":
        from pageowner.analysis.subsystems import short_stack

        return printable(short_stack(category.label, 6))
    return printable(category.label)


def frames_of(frames: int, meta: Metadata) -> str:
    """``512 pages (2 MiB)``."""
    return f"{count_of(frames, 'page')} ({size(frames * meta.page_size)})"


def _title(drawn: Picture, meta: Metadata, frames: int, width: int) -> str:
    named = meta.source or meta.host or "this machine"
    end = (f": {size(drawn.frames * meta.page_size)} by {_TITLES.get(drawn.by, drawn.by)},"
           f" a cell is {frames_of(frames, meta)}")
    return fitted(printable(named), max(width - len(end), 8)).rstrip() + end


def to_json(drawn: Picture, meta: Metadata) -> Json:
    """What the picture shows, as sums for programs."""
    return Json({"source": meta.source, "kind": meta.kind, "kernel": meta.kernel,
            "page_size": meta.page_size, "by": drawn.by, "frames": drawn.frames,
            "categories": [{"label": category.label, "role": category.role, "pages": category.pages}
                           for category in drawn.categories],
            "zones": [{"name": stretch.name, "start_pfn": stretch.start, "end_pfn": stretch.end}
                      for stretch in drawn.stretches],
            "notes": list(drawn.notes), **meta.as_read()})
