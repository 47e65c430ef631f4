"""Samples with texts that are fit to be shown."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pageowner.kernel.frames import Frame
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pageowner.analysis.profile import Sample

__all__ = ["shown"]


def shown(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The same samples; what a terminal could act on in their names is written ``\\xNN``."""
    for one in samples:
        yield one._replace(
            frames=_frames(one.frames), subsystem=printable(one.subsystem),
            labels={name: printable(value) if isinstance(value, str) and value else value
                    for name, value in one.labels.items()})


@lru_cache(maxsize=1 << 16)
def _frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    return tuple(Frame(printable(one.name), one.module and printable(one.module))
                 for one in frames)
