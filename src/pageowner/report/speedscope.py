"""A file for speedscope (https://www.speedscope.app), by its published schema: one profile each for
bytes, pages and blocks, of the same chains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pageowner import __version__
from pageowner.analysis.profile import MEASURES, as_met, chained
from pageowner.model.source_kinds import is_counted
from pageowner.report.samples import shown
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.analysis.profile import Chained, Samples
    from pageowner.model.metadata import Metadata

__all__ = ["Speedscope"]

_SAMPLES = "\x00samples"  # in no text that is fit to be shown
_PIECE = 1 << 14
"""Chains that are objects of Python's at a time."""
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


@dataclass(frozen=True)
class Speedscope:
    """JSON; a module is its frames' ``file``."""

    samples: Samples
    meta: Metadata

    def write(self, file: BinaryIO) -> None:
        _write(file, self.samples, self.meta)


def _write(file: BinaryIO, samples: Samples, meta: Metadata) -> None:
    chains = chained(shown(samples), lambda frame: (frame.name, frame.module),
                     lambda value: ("-" if value is None else str(value), None))
    order = as_met(chains.codes)
    frames = [chains.names[code] for code in order]
    weights = {measure: values.tolist() for measure, values in zip(
        MEASURES, (samples.pages * meta.page_size, samples.pages, samples.blocks), strict=True)
        if is_counted(meta, measure)}
    name = printable(meta.source or meta.host or "this machine")
    whole = {
        "$schema": _SCHEMA, "exporter": f"pageowner {__version__}", "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": function} if module is None else
                              {"name": function, "file": module} for function, module in frames]},
        "profiles": [{
            "type": "sampled", "name": f"{measure} of {name}",
            "unit": "bytes" if measure == "bytes" else "none", "startValue": 0,
            "endValue": sum(values), "samples": _SAMPLES, "weights": values}
            for measure, values in weights.items()]}
    # The stacks are the same in each profile: made, and taken, once.
    stacks = b"".join(_lists(chains, order))
    for number, part in enumerate(
            json.dumps(whole, separators=(",", ":")).encode().split(json.dumps(_SAMPLES).encode())):
        if number:
            file.write(b"[")
            file.write(stacks)
            file.write(b"]")
        file.write(part)
    file.write(b"\n")


def _lists(chains: Chained, order: list[int]) -> Iterator[bytes]:
    """The chains as lists of numbers with commas between, a piece after another."""
    places = np.empty(max(order, default=0) + 1, np.int64)
    places[order] = np.arange(len(order))
    texts = list(map(str, range(len(order))))
    for start in range(0, len(chains.edges) - 1, _PIECE):
        edges = chains.edges[start:start + _PIECE + 1]
        words = [texts[place] for place in places[chains.codes[edges[0]:edges[-1]]].tolist()]
        edges = edges - edges[0]
        yield (("," if start else "") + ",".join(
            [f"[{','.join(words[first:end])}]"
             for first, end in pairwise(edges.tolist())])).encode()
