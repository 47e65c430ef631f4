"""A picture of physical memory: ``pageowner map``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pageowner.analysis.filters import colouring
from pageowner.analysis.memory import memory
from pageowner.analysis.picture import picture
from pageowner.api import sources
from pageowner.api.saving import save
from pageowner.sources import live_users
from pageowner.sources.kpageflags import page_flags

if TYPE_CHECKING:
    import os

    from pageowner.analysis.memory import Memory
    from pageowner.analysis.picture import Picture
    from pageowner.api.sources import Source
    from pageowner.model.snapshot import Snapshot
    from pageowner.report.map_png import Image

__all__ = ["Map", "map"]


@dataclass(frozen=True)
class Map:
    """``memory``: where the allocations of ``snapshot`` are and what is free; ``picture``: what
    each page frame is, by the key ``picture.by``."""

    snapshot: Snapshot
    memory: Memory
    picture: Picture

    def save_png(self, path: str | os.PathLike[str], order: str = "row") -> Image:
        """Write an image, with one pixel for each page, or for several pages; returns the image, in
        which a cell stands for ``frames`` page frames. ``order``: ``row`` or ``hilbert``. Raises
        PageownerError if it cannot be written."""
        from pageowner.report.map_png import MapPng

        writer = MapPng(self.picture, self.snapshot.meta, order)
        save(writer, path)
        return writer.image

    def save_html(self, path: str | os.PathLike[str], order: str = "row", *,
                  beside: Source = None) -> None:
        """Write an interactive page; ``beside``: a second source on the same page.

        Raises PageownerError if it cannot be written, has more runs of pages than a browser can
        hold, or the pages of the two are of different sizes.
        """
        from pageowner.analysis.diff import check_units
        from pageowner.report.map_html import MapHtml

        shown = [(self.snapshot, self.memory)]
        if beside is not None:
            other = sources.snapshot(beside)
            check_units(self.snapshot.meta, other.meta)
            shown.append((other, memory(other, page_flags(other, None))))
        save(MapHtml(shown, self.picture.by, order), path)


def map(source: Source = None, by: str = "subsystem", *,
        kpageflags: str | os.PathLike[str] | None = None) -> Map:
    """What each page frame is, by one of the keys of report or by ``age``.

    ``kpageflags``: a copy of /proc/kpageflags made with a dump, which shows the free pages.

    Raises UsageError for an unknown key, PageownerError if the source cannot be read, has no page
    frame numbers, or has no pages.
    """
    by = colouring(by)
    with live_users.using(by == "user"):
        snapshot = sources.snapshot(source)
    seen = memory(snapshot, page_flags(snapshot, kpageflags))
    return Map(snapshot, seen, picture(snapshot, by, seen=seen))
