"""Which memory cgroup each live page is charged to, kept from look to look.

/proc/kpagecgroup (fs/proc/page.c, kpagecgroup_read) is slow to read in whole. A page keeps its
charge as long as it is allocated, so only pages are asked for whose record is another than when
they last were: allocated since, moved there by migration, the rest of a block that was divided, or
not asked about before. What a removed cgroup had the kernel tells of the cgroup above it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import cgroups, procpages
from pageowner.model.pfn_runs import SideBySide, joined
from pageowner.system.container_names import container_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Span

__all__ = ["Charges"]

_CHUNK = 16
_NEAR = 4  # chunks: what lies between is cheaper to read than to seek over
_SETTLED_NS = 10**8
"""A page is charged soon after it was allocated: one younger than this is asked for again."""
_NAMED_AGAIN_S = 10
"""A container's files are written after its cgroup was made."""


class Charges:
    """The charges of the pages that spans speak for."""

    def __init__(self, spans: list[Span]) -> None:
        """Raises PageownerError where the kernel does not tell."""
        self._frames = SideBySide(joined(
            (span.first, span.first + len(span.records)) for span in spans))
        self._known = np.zeros(self._frames.size, np.uint64)
        # Of each frame, for the record of what time (`_marks`) its charge was read; 0: for none.
        self._read_for = np.zeros(self._frames.size, np.uint32)
        self._cgroups = cgroups.memory()
        self._gone: set[int] = set()
        self._told_again: set[int] = set()
        self._is_fresh = False
        self.container_names: dict[str, str] = {}
        """What is known of containers and pods by id, see `name_containers`."""
        self._named: set[str] = set()
        self._naming = 0.0
        procpages.words(procpages.KPAGECGROUP, 0, 1)

    def of(self, pfns: NDArray[np.int64], ts: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The cgroup's number for each page, 0 for none; ``ts`` is when each was allocated."""
        places, marks = self._frames.places(pfns), _marks(ts)
        new = np.flatnonzero(self._read_for[places] != marks)
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        chunks = np.unique(pfns[new] // _CHUNK)
        # neighbours in one read
        breaks = np.flatnonzero(np.diff(chunks) > _NEAR) + 1
        if len(chunks):
            self._read(chunks[np.concatenate([[0], breaks])] * _CHUNK,
                       (chunks[np.concatenate([breaks - 1, [len(chunks) - 1]])] + 1) * _CHUNK)
        settled = ts[new] + np.uint64(_SETTLED_NS) <= np.uint64(now)
        self._read_for[places[new]] = np.where(settled, marks[new], np.uint32(0))
        found: NDArray[np.uint64] = self._known[places]
        return found

    def _read(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        words = self._known.data.cast("B")
        file = procpages.opened(procpages.KPAGECGROUP)
        try:
            places = self._frames.places(starts)
            for start, stop, place in zip(starts.tolist(), stops.tolist(), places.tolist(),
                                          strict=True):
                procpages.fill(file, start, words[place * 8:(place + stop - start) * 8])
        finally:
            os.close(file)

    def begin(self) -> None:
        """Another look begins: the pages of cgroups that the last one found to be gone are asked
        for again, once."""
        if new := self._gone - self._told_again:
            self._read_for[np.isin(self._known, np.array(sorted(new), np.uint64))] = 0
        self._told_again, self._gone = self._gone, set()
        self._is_fresh = False

    def name_containers(self, paths: Iterable[str | None]) -> None:
        """Add what the containers and pods in these paths are called."""
        now, inside = time.monotonic(), {path for path in paths if path}
        if now - self._naming > _NAMED_AGAIN_S:
            self._named.clear()
            self._naming = now
        if new := inside - self._named:
            self._named |= new
            self.container_names |= container_names(new)

    def path(self, number: int) -> str | None:
        """The path of a cgroup; None for 0."""
        if number and number not in self._cgroups.known:
            if not self._is_fresh:  # once in a look: there may be thousands of them
                self._cgroups, self._is_fresh = cgroups.memory(), True
            if number not in self._cgroups.known:
                self._gone.add(number)
        return self._cgroups.path(number)


def _marks(ts: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """A number for each time, never 0, that another time has by chance once in 2**32."""
    folded = (ts ^ ts >> np.uint64(32)).astype(np.uint32)
    return np.maximum(folded, np.uint32(1))
