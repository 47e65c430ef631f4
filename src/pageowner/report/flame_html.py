"""``pageowner flame --html``: one page with all chains in it, drawn by its own script.

The page asks no network (its own policy forbids it) and puts names nowhere but in text nodes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pageowner.report.flame_colours import FEWER, MORE, OTHERS, SAME, subsystem_colours
from pageowner.report.flame_graph import FlameGraph
from pageowner.report.html_page import template
from pageowner.report.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.analysis.flame import Chains

__all__ = ["FlameHtml"]

_MOST = 100_000
"""Chains, which a browser still draws at once."""


class FlameHtml(FlameGraph):
    """One page; ``difference``, ``icicle`` and ``reverse`` are how it shows first."""

    def write(self, file: BinaryIO) -> None:
        _write(file, self)


def _write(file: BinaryIO, graph: FlameHtml) -> None:
    found = graph.chains
    shown, rest, left_out = _largest(found)
    chains = [list(chain) for chain in found.frames(shown)]
    what = [found.subsystems[place] for place in found.what[shown].tolist()]
    before, after = found.before[shown].tolist(), found.after[shown].tolist()
    if len(rest):
        chains.append([f"({len(rest):,} smaller chains)"])
        what.append("other")
        before.append(int(found.before[rest].sum()))
        after.append(int(found.after[rest].sum()))
    names: dict[str, int] = {}
    frames = [[names.setdefault(name, len(names)) for name in chain] for chain in chains]
    subsystems: dict[str, int] = {}
    about = {
        "title": printable(graph.title) + left_out, "page_size": graph.page_size,
        "difference": graph.difference,
        "icicle": graph.icicle, "reverse": graph.reverse, "chains": frames,
        "what": [subsystems.setdefault(subsystem, len(subsystems)) for subsystem in what],
        "names": list(map(printable, names)), "subsystems": list(map(printable, subsystems)),
        "before": before, "after": after,
        "colours": {"subsystems": {printable(subsystem): colour
                                   for subsystem, colour in subsystem_colours(found).items()},
                    "others": OTHERS, "more": MORE, "fewer": FEWER, "same": SAME}}
    # "<" is the only character that could end the element
    text = json.dumps(about, separators=(",", ":")).replace("<", "\\u003c")
    head, _, tail = template("flame_page", "tree.js", "draw.js").partition("@ABOUT@")
    file.write((head + text + tail).encode())


def _largest(found: Chains) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """The places of the chains with the most pages, those of all others, and what to say of these.
    """
    number = len(found) - _MOST
    if number <= 0:
        return np.arange(len(found)), np.zeros(0, np.int64), ""
    widths = found.widths()
    order = np.argsort(-widths, kind="stable")
    rest = order[_MOST:]
    return np.sort(order[:_MOST]), rest, (
        f", without the frames of {number:,} smaller chains:"
        f" {100 * int(widths[rest].sum()) / int(widths.sum()):.1f} % of the pages")
