"""A flame graph of who owns the memory, or of what changed: ``pageowner flame``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pageowner.analysis.diff import check_units
from pageowner.analysis.filters import key_names
from pageowner.analysis.flame import chains
from pageowner.analysis.profile import samples
from pageowner.api import sources
from pageowner.api.saving import save
from pageowner.report.flame_html import FlameHtml
from pageowner.report.flame_svg import FlameSvg
from pageowner.sources import live_users
from pageowner.sources.source import count

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pageowner.analysis.flame import Chains
    from pageowner.api.sources import Read, Source
    from pageowner.model.counts import Counted

__all__ = ["FlameGraph", "flame"]


@dataclass(frozen=True)
class FlameGraph:
    """``chains`` of frames with their pages, of ``page_size`` bytes; ``difference``: at two
    moments; ``title`` names these."""

    chains: Chains
    page_size: int
    title: str
    difference: bool

    def save_html(self, path: str | os.PathLike[str], *, icicle: bool = False,
                  reverse: bool = False) -> None:
        """Write a page to zoom into and search. ``icicle``: with the outermost function at the top;
        ``reverse``: merged from the innermost. Raises PageownerError if it cannot be written."""
        save(FlameHtml(self.chains, self.page_size, self.title, self.difference, icicle, reverse),
             path)

    def save_svg(self, path: str | os.PathLike[str], *, icicle: bool = False,
                 reverse: bool = False) -> None:
        """Write an image; the rest as in `save_html`."""
        save(FlameSvg(self.chains, self.page_size, self.title, self.difference, icicle, reverse),
             path)


def flame(source: Counted | Source = None, after: Counted | Source = None, *,
          by: str | Sequence[str] = (), read: Read = count) -> FlameGraph:
    """A flame graph of a source, or of what changed from ``source`` to ``after``.

    ``by``: keys whose values are added as frames below the stack. ``read``: the function that reads
    a source given by name.

    Raises UsageError for an unknown key, PageownerError if a source cannot be read or the two have
    different page sizes.
    """
    names = key_names(by if isinstance(by, str) else list(by)) if by else []
    both = [source] if after is None else [source, after]
    with live_users.using("user" in names):
        found = [sources.counted(side, read) for side in both]
    *old, new = found
    if old:
        check_units(old[0].meta, new.meta)
    merged = chains(samples(new, names), samples(old[0], names) if old else None)
    title = " → ".join(map(sources.name, both, found))
    return FlameGraph(merged, new.meta.page_size, title, bool(old))
