"""Which memory cgroup each live page is charged to, kept from look to look.

/proc/kpagecgroup (fs/proc/page.c, kpagecgroup_read) is slow to read in whole. A page keeps its
charge as long as it is allocated, so only pages that were allocated since are asked for.
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
        self._asked_ns = 0
        self._cgroups = cgroups.memory()
        self.container_names: dict[str, str] = {}
        """What is known of containers and pods by id, see `name_containers`."""
        self._named: set[str] = set()
        self._naming = 0.0
        procpages.words(procpages.KPAGECGROUP, 0, 1)

    def of(self, pfns: NDArray[np.int64], ts: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The cgroup's number for each page, 0 for none; ``ts`` is when each was allocated."""
        new = pfns[ts > max(self._asked_ns - _SETTLED_NS, 0)]
        chunks = np.unique(new // _CHUNK)
        # neighbours in one read
        breaks = np.flatnonzero(np.diff(chunks) > _NEAR) + 1
        if len(chunks):
            self._read(chunks[np.concatenate([[0], breaks])] * _CHUNK,
                       (chunks[np.concatenate([breaks - 1, [len(chunks) - 1]])] + 1) * _CHUNK)
        found: NDArray[np.uint64] = self._known[self._frames.places(pfns)]
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

    def asked(self, now: int) -> None:
        """All pages were asked for that were allocated until ``now`` (ns since boot)."""
        self._asked_ns = now

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
            self._cgroups = cgroups.memory()
        return self._cgroups.path(number)
