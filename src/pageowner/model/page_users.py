"""Who has each page now, in one word a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FREED", "NOBODY", "PageUsers"]

NOBODY = -1
FREED = "freed meanwhile"
"""The user of pages that were in use when looking began, and free when they were looked at."""


@dataclass
class PageUsers:
    """``codes``: for each page (or block) a place in ``labels``, `NOBODY` where nothing tells.

    ``groups``: for each page a place in ``gone``, names of memory cgroups that were removed and are
    charged with it, `NOBODY` for all others: the kernel itself names their parents.
    ``free``: which pages turned out not to be in use: on a CPU's list of free pages, or not there.
    ``counts``: what was noticed on the way, by name: pages that were ``changed`` while they were
    read, ``unreadable`` ones, files without a name, and the like. ``notes``: what could not be
    asked at all, in words.
    """

    codes: NDArray[np.int32]
    free: NDArray[np.bool_]
    groups: NDArray[np.int32]
    gone: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, pages: int) -> PageUsers:
        """So many pages, of which nothing is known yet."""
        return cls(np.full(pages, NOBODY, np.int32), np.zeros(pages, bool),
                   np.full(pages, NOBODY, np.int32))

    def code(self, label: str) -> int:
        """The place of a label, which is added if it is new."""
        place = self._places.get(label)
        if place is None:
            place = self._places[label] = len(self.labels)
            self.labels.append(label)
        return place

    def count(self, name: str, number: int | np.integer[Any]) -> None:
        """Add to one of ``counts``."""
        if number:
            self.counts[name] = self.counts.get(name, 0) + int(number)

    def give(self, places: NDArray[np.int64], codes: NDArray[np.int32] | int) -> None:
        """These users to these pages, but for those that have one."""
        free = self.codes[places] == NOBODY
        self.codes[places[free]] = codes if isinstance(codes, int) else codes[free]
