"""Folded stacks: what flamegraph.pl and most flame graph tools read.

A line for each chain: frames from the outermost in, with ``;`` between, a blank, and a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.analysis.profile import chains
from pageowner.report.samples import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pageowner.analysis.profile import Sample

__all__ = ["lines"]


def lines(samples: Iterable[Sample], measure: str, page_size: int) -> Iterator[str]:
    """One line for each distinct chain, in order; ``measure`` is bytes, pages or blocks."""
    sums: dict[str, int] = {}
    for one, chain in chains(shown(samples)):
        text = ";".join(chain)
        if text.count(";") != len(chain) - 1:
            # what separates frames is in no function's name, but may be in a task's
            text = ";".join(frame.replace(";", ":") for frame in chain)
        value = one.blocks if measure == "blocks" else one.pages * (
            page_size if measure == "bytes" else 1)
        sums[text] = sums.get(text, 0) + value
    for text in sorted(sums):
        yield f"{text} {sums[text]}\n"
