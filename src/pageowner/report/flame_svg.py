"""``pageowner flame --svg``: an image without script; names stand in text nodes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

import numpy as np

from pageowner.analysis.flame import seen as seen_of
from pageowner.report.flame_colours import (
    FEWER,
    MORE,
    OTHERS,
    SAME,
    changed,
    subsystem_colours,
)
from pageowner.report.flame_graph import FlameGraph
from pageowner.report.text import count_of, printable, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.analysis.flame import Chains, Rectangle

__all__ = ["FlameSvg"]

_WIDTH, _MARGIN, _ROW, _HEAD = 1200, 10, 17, 72
_LETTER = 6.7  # pixels of the font's widest common letters
_LEAST = 0.2  # pixels; what is narrower is left out


class FlameSvg(FlameGraph):
    """The whole graph, 1200 pixels wide; what is narrower than a fifth of one is left out, and the
    title says how much that is."""

    def write(self, file: BinaryIO) -> None:
        file.write("".join(_parts(self)).encode())


def _parts(graph: FlameSvg) -> list[str]:
    found, title = graph.chains, graph.title
    whole = int(found.widths().sum())
    scale = (_WIDTH - 2 * _MARGIN) / whole if whole else 0.0
    boxes, left_out, pages = seen_of(found, graph.reverse, _LEAST / scale if scale else 0)
    if left_out:
        title += (f", without {left_out:,} boxes too narrow to see: {100 * pages / whole:.1f} % of"
                  " the pages")
    deepest = max(box.depth for box in boxes)
    height = _HEAD + (deepest + 1) * _ROW + _MARGIN
    colours = subsystem_colours(found)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
             f' viewBox="0 0 {_WIDTH} {height}" font-family="monospace" font-size="11">\n'
             f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n',
             _text(_MARGIN, 18, printable(title), 'font-size="14"'),
             *_legend([("more pages", MORE), ("fewer", FEWER), ("as many", SAME)]
                      if graph.difference else [*colours.items(), ("others", OTHERS)])]
    mostly, total = _Mostly(found), int(found.after.sum())
    for box in boxes:
        what = mostly.of(box)
        fill = changed(box.before, box.after) if graph.difference else colours.get(what, OTHERS)
        row = box.depth if graph.icicle else deepest - box.depth
        x, wide = _MARGIN + box.start * scale, box.width * scale
        parts.append(_box(x, _HEAD + row * _ROW, wide, fill, printable(box.name),
                          printable(_about(box, total, what, graph.page_size, graph.difference))))
    parts.append("</svg>\n")
    return parts


class _Mostly:
    """What most of a rectangle's pages are for."""

    def __init__(self, found: Chains) -> None:
        self.names, self.what, self.wide = found.subsystems, found.what, found.widths()

    def of(self, box: Rectangle) -> str:
        """The subsystem; of several with as many pages the last by name; "" without pages."""
        if not len(box.members):
            return ""
        sums = np.bincount(self.what[box.members], self.wide[box.members], len(self.names))
        present = np.unique(self.what[box.members])
        most: int = max(present.tolist(), key=lambda place: (sums[place], place))
        return self.names[most]


def _about(box: Rectangle, total: int, what: str, page_size: int, difference: bool) -> str:
    if not difference:
        share = 100 * box.after / total if total else 0.0
        pages = f" {count_of(box.after, 'page')}," if page_size > 1 else ""
        return (f"{box.name}: {size(box.after * page_size)},{pages}"
                f" {share:.1f} %; mostly {what}")
    change = box.after - box.before
    return (f"{box.name}: {'+' if change > 0 else '-' if change < 0 else ''}"
            f"{size(abs(change) * page_size)}; {size(box.before * page_size)} before,"
            f" {size(box.after * page_size)} after")


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{" " if more else ""}{more}>{escape(text)}</text>\n'


def _legend(entries: Sequence[tuple[str, str]]) -> list[str]:
    parts, x, y = [], float(_MARGIN), 30
    for name, colour in entries:
        wide = 28 + _LETTER * len(name)
        if x + wide > _WIDTH:
            x, y = float(_MARGIN), y + 17
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="11" height="11" fill="{colour}"/>\n')
        parts.append(_text(x + 15, y + 9, printable(name)))
        x += wide
    return parts


def _box(x: float, y: int, wide: float, fill: str, name: str, about: str) -> str:
    room = int((wide - 6) / _LETTER)
    # three letters tell nothing
    text = name if len(name) <= room else f"{name[:room - 1]}…" if room > 3 else ""
    dark = sum(int(fill[at:at + 2], 16) * share for at, share in (
        (1, 0.3), (3, 0.59), (5, 0.11))) < 110
    white = 'fill="#ffffff"' if dark else ""
    return (f'<g><title>{escape(about)}</title><rect x="{x:.2f}" y="{y}" width="{wide:.2f}"'
            f' height="{_ROW - 1}" fill="{fill}" rx="1"/>'
            + (_text(x + 3, y + 12, text, white).rstrip("\n") if text else "") + "</g>\n")
