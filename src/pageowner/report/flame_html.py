"""``pageowner flame --html``: one page with all chains in it, drawn by its own script.

The page asks no network (its own policy forbids it) and puts names nowhere but in text nodes.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, BinaryIO

from pageowner.report.flame_colours import FEWER, MORE, OTHERS, SAME, subsystem_colours
from pageowner.report.text import printable

if TYPE_CHECKING:
    from pageowner.analysis.flame import Chains

__all__ = ["write"]


def write(file: BinaryIO, found: Chains, page_size: int, title: str, *, difference: bool = False,
          icicle: bool = False, reverse: bool = False) -> None:
    """One page; ``difference``, ``icicle`` and ``reverse`` are how it shows first."""
    names: dict[str, int] = {}
    frames = [[names.setdefault(name, len(names)) for name in chain] for chain in found.frames]
    subsystems: dict[str, int] = {}
    about = {
        "title": printable(title), "page_size": page_size, "difference": difference,
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
