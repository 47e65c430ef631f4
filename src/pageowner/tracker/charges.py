"""Which memory cgroup each live page is charged to, kept from look to look.

/proc/kpagecgroup (fs/proc/page.c, kpagecgroup_read) is slow to read in whole. A page keeps its
charge as long as it is allocated, so only pages that were allocated since are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import cgroups, pageflags

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.tracker.maps import Span

__all__ = ["Charges"]

_CHUNK = 16
_NEAR = 4  # chunks: what lies between is cheaper to read than to seek over
_SETTLED_NS = 10**9
"""A page is charged soon after it was allocated: one younger than this is asked for again."""


class Charges:
    """The charges of the pages that spans speak for."""

    def __init__(self, spans: list[Span]) -> None:
        end = max((span.first + len(span.records) for span in spans), default=0)
        self._known = np.zeros(end, np.uint64)
        self._asked_ns = 0
        self._cgroups = cgroups.memory()

    def of(self, pfns: NDArray[np.int64], ts: NDArray[np.uint64],
           now: int) -> NDArray[np.uint64]:
        """The cgroup's number for each page, 0 for none; ``ts`` is when each was allocated.

        Raises PageownerError where the kernel does not tell.
        """
        new = pfns[ts > max(self._asked_ns - _SETTLED_NS, 0)]
        chunks = np.unique(new // _CHUNK)
        # neighbours in one read
        breaks = np.flatnonzero(np.diff(chunks) > _NEAR) + 1
        for run in np.split(chunks, breaks) if len(chunks) else []:
            first = int(run[0]) * _CHUNK
            number = min((int(run[-1]) + 1) * _CHUNK, len(self._known)) - first
            read = pageflags.read(pageflags.KPAGECGROUP, first, number)
            self._known[first:first + len(read)] = read
        self._asked_ns = now
        found: NDArray[np.uint64] = self._known[pfns]
        return found

    def path(self, number: int) -> str | None:
        """The path of a cgroup; None for 0."""
        if number and number not in self._cgroups.known:
            self._cgroups = cgroups.memory()
        return self._cgroups.path(number)
