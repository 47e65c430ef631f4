"""Folded stacks: what flamegraph.pl and most flame graph tools read.

A line for each chain: frames from the outermost in, with ``;`` between, a blank, and a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pageowner.analysis.ordering import in_order
from pageowner.analysis.profile import chained
from pageowner.report.samples import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.analysis.profile import Samples

__all__ = ["Folded"]

_PIECE = 1 << 14
"""Chains that are text at a time."""


@dataclass(frozen=True)
class Folded:
    """One line for each distinct chain, in order; ``measure`` is bytes, pages or blocks."""

    samples: Samples
    measure: str
    page_size: int

    def write(self, file: BinaryIO) -> None:
        for line in _lines(self.samples, self.measure, self.page_size):
            file.write(line.encode())


def _lines(samples: Samples, measure: str, page_size: int) -> Iterator[str]:
    chains = chained(shown(samples), _name, _name)
    # As texts they are sorted with what stands between the names.
    last = np.zeros(len(chains.codes), bool)
    last[chains.edges[1:][np.diff(chains.edges) > 0] - 1] = True
    texts = sorted({*chains.names, *(f"{name};" for name in chains.names)})
    places = {text: place for place, text in enumerate(texts)}
    ends, inner = (np.array([*(places[f"{name}{behind}"] for name in chains.names), 0], np.int32)
                   for behind in ("", ";"))
    codes = np.where(last, ends[chains.codes], inner[chains.codes])
    edges, codes, group = in_order(chains.edges, codes)
    value = samples.blocks if measure == "blocks" else samples.pages * (
        page_size if measure == "bytes" else 1)
    sums = np.zeros(len(edges) - 1, np.int64)
    np.add.at(sums, group, value)
    for start in range(0, len(sums), _PIECE):
        piece = edges[start:start + _PIECE + 1]
        words = [texts[code] for code in codes[piece[0]:piece[-1]].tolist()]
        for (first, end), total in zip(pairwise((piece - piece[0]).tolist()),
                                       sums[start:start + _PIECE].tolist(), strict=True):
            yield f"{''.join(words[first:end])} {total}\n"


def _name(label: Any) -> str:
    """What separates frames is in no function's name, but may be in a task's."""
    return "-" if label is None else str(label).replace(";", ":")
