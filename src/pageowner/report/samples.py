"""Samples with texts that are fit to be shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pageowner.kernel.frames import Frame
from pageowner.report.text import printable

if TYPE_CHECKING:
    from pageowner.analysis.profile import Label, Samples

__all__ = ["shown"]


def shown(found: Samples) -> Samples:
    """The same samples; what a terminal could act on in their names is written ``\\xNN``."""
    frames = [Frame(printable(frame.name), frame.module and printable(frame.module))
              for frame in found.stacks.frames]
    return replace(found, stacks=found.stacks._replace(frames=frames),
                   subsystem=_fit(found.subsystem),
                   labels={name: _fit(label) for name, label in found.labels.items()})


def _fit(label: Label) -> Label:
    def fit(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and value else value

    return label._replace(values=list(map(fit, label.values)))
