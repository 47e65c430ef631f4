"""``pageowner flame --html``: one page with all chains in it, drawn by its own script.

The page asks no network (its own policy forbids it) and puts names nowhere but in text nodes.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import BinaryIO

from pageowner.analysis.flame import Chains
from pageowner.report.flame_colours import FEWER, MORE, OTHERS, SAME, subsystem_colours
from pageowner.report.text import printable

__all__ = ["write"]

_MOST = 100_000
"""Chains, which a browser still draws at once."""


def write(file: BinaryIO, found: Chains, page_size: int, title: str, *, difference: bool = False,
          icicle: bool = False, reverse: bool = False) -> None:
    """One page; ``difference``, ``icicle`` and ``reverse`` are how it shows first."""
    found, left_out = _largest(found)
    names: dict[str, int] = {}
    frames = [[names.setdefault(name, len(names)) for name in chain] for chain in found.frames]
    subsystems: dict[str, int] = {}
    about = {
        "title": printable(title) + left_out, "page_size": page_size, "difference": difference,
        "icicle": icicle, "reverse": reverse, "chains": frames,
        "what": [subsystems.setdefault(what, len(subsystems)) for what in found.subsystems],
        "names": list(map(printable, names)), "subsystems": list(map(printable, subsystems)),
        "before": found.before, "after": found.after,
        "colours": {"subsystems": {printable(what): colour
                                   for what, colour in subsystem_colours(found).items()},
                    "others": OTHERS, "more": MORE, "fewer": FEWER, "same": SAME}}
    # "<" is the only character that could end the element
    text = json.dumps(about, separators=(",", ":")).replace("<", "\\u003c")
    here = resources.files("pageowner.report").joinpath("flame_page")
    page, *scripts = (here.joinpath(name).read_text(encoding="utf-8")
                      for name in ("page.html", "tree.js", "draw.js"))
    page = page.replace("/*SCRIPT*/", "\n".join(scripts))
    head, _, tail = page.partition("@ABOUT@")
    file.write((head + text + tail).encode())


def _largest(found: Chains) -> tuple[Chains, str]:
    """The chains with the most pages and one for all others, and what to say of these."""
    number = len(found.frames) - _MOST
    if number <= 0:
        return found, ""
    widths = found.widths()
    order = sorted(range(len(widths)), key=lambda place: -widths[place])
    kept, rest = sorted(order[:_MOST]), order[_MOST:]
    merged = Chains([found.frames[place] for place in kept],
                    [found.subsystems[place] for place in kept],
                    [found.before[place] for place in kept],
                    [found.after[place] for place in kept])
    merged.frames.append((f"({number:,} smaller chains)",))
    merged.subsystems.append("other")
    for sums, pages in ((merged.before, found.before), (merged.after, found.after)):
        sums.append(sum(pages[place] for place in rest))
    return merged, (f", without the frames of {number:,} smaller chains:"
                    f" {100 * sum(widths[place] for place in rest) / sum(widths):.1f} % of the"
                    " pages")
