"""A file for speedscope (https://www.speedscope.app), by its published schema: one profile each for
bytes, pages and blocks, of the same chains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

from pageowner import __version__
from pageowner.analysis.profile import MEASURES
from pageowner.report.samples import shown
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.analysis.profile import Sample
    from pageowner.metadata import Metadata

__all__ = ["write"]

_SAMPLES = "\x00samples"  # in no text that is fit to be shown
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(file: BinaryIO, samples: Iterable[Sample], meta: Metadata) -> None:
    """JSON; a module is its frames' ``file``."""
    frames: dict[tuple[str, str | None], int] = {}
    stacks: list[str] = []
    weights: dict[str, list[int]] = {measure: [] for measure in MEASURES}
    for one in shown(samples):
        named: list[tuple[str, str | None]] = [
            ("-" if value is None else str(value), None) for value in one.labels.values()]
        named += one.frames
        places = [frames.setdefault(frame, len(frames)) for frame in named]
        stacks.append(",".join(map(str, places)))
        for measure, value in zip(MEASURES, (one.pages * meta.page_size, one.pages, one.blocks),
                                  strict=True):
            weights[measure].append(value)
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
    # The stacks are the same in each profile: written, not made, three times.
    parts = json.dumps(whole, separators=(",", ":")).split(json.dumps(_SAMPLES))
    text = f"[[{'],['.join(stacks)}]]" if stacks else "[]"
    file.write(text.encode().join(part.encode() for part in parts) + b"\n")
