"""Samples with texts that are fit to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.analysis.profile import Sample
from pageowner.kernel.frames import Frame
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["shown"]


class _Shown(dict[Frame, Frame]):
    """Frames with names fit to be shown: a million stacks have some thousands of them."""

    def __missing__(self, frame: Frame) -> Frame:
        fit = self[frame] = Frame(printable(frame.name), frame.module and printable(frame.module))
        return fit


def shown(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The same samples; what a terminal could act on in their names is written ``\\xNN``."""
    fit = _Shown()
    for one in samples:
        yield Sample(
            tuple([fit[frame] for frame in one.frames]), printable(one.subsystem),
            {name: printable(value) if isinstance(value, str) and value else value
             for name, value in one.labels.items()}, one.pages, one.blocks)
