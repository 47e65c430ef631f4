"""``pageowner flame --svg``: an image without script; names stand in text nodes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

from pageowner.analysis.flame import rectangles
from pageowner.report.flame_colours import (
    FEWER,
    MORE,
    OTHERS,
    SAME,
    changed,
    subsystem_colours,
)
from pageowner.report.text import count_of, printable, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.analysis.flame import Chains, Rectangle

__all__ = ["write"]

_WIDTH, _MARGIN, _ROW, _HEAD = 1200, 10, 17, 72
_LETTER = 6.7  # pixels of the font's widest common letters
_LEAST = 0.2  # pixels; what is narrower is left out


def write(file: BinaryIO, found: Chains, page_size: int, title: str, *, difference: bool = False,
          icicle: bool = False, reverse: bool = False) -> None:
    """The whole graph, 1200 pixels wide; what is narrower than a fifth of one is left out."""
    whole = sum(found.widths())
    scale = (_WIDTH - 2 * _MARGIN) / whole if whole else 0.0
    seen = [one for one in rectangles(found, reverse) if one.width * scale >= _LEAST
            or not one.depth]
    deepest = max(one.depth for one in seen)
    height = _HEAD + (deepest + 1) * _ROW + _MARGIN
    colours = subsystem_colours(found)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
             f' viewBox="0 0 {_WIDTH} {height}" font-family="monospace" font-size="11">\n'
             f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n',
             _text(_MARGIN, 18, printable(title), 'font-size="14"'),
             *_legend([("more pages", MORE), ("fewer", FEWER), ("as many", SAME)] if difference
                      else [*colours.items(), ("others", OTHERS)])]
    for one in seen:
        fill = (changed(one.before, one.after) if difference
                else colours.get(_mostly(found, one), OTHERS))
        row = one.depth if icicle else deepest - one.depth
        x, wide = _MARGIN + one.start * scale, one.width * scale
        parts.append(_box(x, _HEAD + row * _ROW, wide, fill, printable(one.name),
                          printable(_told(one, found, page_size, difference))))
    parts.append("</svg>\n")
    file.write("".join(parts).encode())


def _mostly(found: Chains, one: Rectangle) -> str:
    """What most of a rectangle's pages are for."""
    sums: dict[str, int] = {}
    for place in one.members:
        what = found.subsystems[place]
        sums[what] = sums.get(what, 0) + max(found.before[place], found.after[place])
    return max(sums, key=lambda what: (sums[what], what), default="")


def _told(one: Rectangle, found: Chains, page_size: int, difference: bool) -> str:
    if not difference:
        total = sum(found.after)
        share = 100 * one.after / total if total else 0.0
        return (f"{one.name}: {size(one.after * page_size)}, {count_of(one.after, 'page')},"
                f" {share:.1f} %; mostly {_mostly(found, one)}")
    change = one.after - one.before
    return (f"{one.name}: {'+' if change > 0 else '-' if change < 0 else ''}"
            f"{size(abs(change) * page_size)}; {size(one.before * page_size)} before,"
            f" {size(one.after * page_size)} after")


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


def _box(x: float, y: int, wide: float, fill: str, name: str, told: str) -> str:
    room = int((wide - 6) / _LETTER)
    # three letters tell nothing
    text = name if len(name) <= room else f"{name[:room - 1]}…" if room > 3 else ""
    dark = sum(int(fill[at:at + 2], 16) * share for at, share in (
        (1, 0.3), (3, 0.59), (5, 0.11))) < 110
    white = 'fill="#ffffff"' if dark else ""
    return (f'<g><title>{escape(told)}</title><rect x="{x:.2f}" y="{y}" width="{wide:.2f}"'
            f' height="{_ROW - 1}" fill="{fill}" rx="1"/>'
            + (_text(x + 3, y + 12, text, white).rstrip("\n") if text else "") + "</g>\n")
