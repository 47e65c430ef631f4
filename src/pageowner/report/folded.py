"""Folded stacks: what flamegraph.pl and most flame graph tools read.

A line for each chain: frames from the outermost in, with ``;`` between, a blank, and a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.report.samples import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.analysis.profile import Sample

__all__ = ["chain", "lines"]


def chain(sample: Sample) -> tuple[str, ...]:
    """The sample's labels, then its frames, outermost first."""
    return (*("-" if value is None else str(value) for value in sample.labels.values()),
            *map(str, sample.frames))


def lines(samples: Iterable[Sample], measure: str, page_size: int) -> list[str]:
    """One line for each distinct chain, in order; ``measure`` is bytes, pages or blocks."""
    sums: dict[str, int] = {}
    for one in shown(samples):
        # what separates frames is in no function's name, but may be in a task's
        text = ";".join(frame.replace(";", ":") for frame in chain(one))
        value = one.blocks if measure == "blocks" else one.pages * (
            page_size if measure == "bytes" else 1)
        sums[text] = sums.get(text, 0) + value
    return [f"{text} {value}\n" for text, value in sorted(sums.items())]
