"""Which memory cgroup each live page is charged to, kept from look to look.

/proc/kpagecgroup (fs/proc/page.c, kpagecgroup_read) is slow to read in whole. A page keeps its
charge as long as it is allocated, so a page is asked for again only if its record has changed: it
was allocated since, was moved there by migration, is the rest of a block that was divided, or was
not asked about before. When a cgroup is removed, the kernel names the one above it for its pages.
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
_PIECE = 1 << 18
"""Frames that are read, or looked through, together."""
_WALKED_AGAIN_S = 10
"""A cgroup that was removed is known until then."""
_NAMED_AGAIN_S = 10
"""A container's files are written after its cgroup was made."""


class Charges:
    """The charges of the pages that spans speak for."""

    def __init__(self, spans: list[Span]) -> None:
        """Raises PageownerError where the kernel does not tell."""
        self._frames = SideBySide(joined(
            (span.first, span.first + len(span.records)) for span in spans))
        # Of each frame its charge, a place in `_numbers`, and for the record of what time
        # (`_marks`) that was read; 0: for none. Most of both is never touched, and takes no memory.
        self._known = np.zeros(self._frames.size, np.uint32)
        self._read_for = np.zeros(self._frames.size, np.uint32)
        self._numbers = np.zeros(1, np.uint64)
        self._cgroups = cgroups.memory()
        self._walked = time.monotonic()
        self._is_fresh = False
        self._gone: dict[int, int] = {}
        self._gone_now: set[int] = set()
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
        found: NDArray[np.uint64] = self._numbers[self._known[places]]
        return found

    def _read(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        """The charges of the frames of these runs."""
        words = np.empty(_PIECE, np.uint64)
        held: list[tuple[int, int]] = []
        filled = 0
        file = procpages.opened(procpages.KPAGECGROUP)
        try:
            places = self._frames.places(starts)
            for start, stop, place in zip(starts.tolist(), stops.tolist(), places.tolist(),
                                          strict=True):
                for first in range(start, stop, _PIECE):
                    count = min(_PIECE, stop - first)
                    if filled + count > _PIECE:
                        self._keep(words[:filled], held)
                        held, filled = [], 0
                    part = words[filled:filled + count]
                    part[procpages.fill(file, first, part.data):] = 0  # beyond all memory
                    held.append((place + first - start, count))
                    filled += count
            self._keep(words[:filled], held)
        finally:
            os.close(file)

    def _keep(self, words: NDArray[np.uint64], held: list[tuple[int, int]]) -> None:
        """Charges of frames at these places, and so many."""
        distinct, which = np.unique(words, return_inverse=True)
        new = distinct[~np.isin(distinct, self._numbers)]
        self._numbers = np.concatenate([self._numbers, new])
        order = np.argsort(self._numbers)
        codes = order[np.searchsorted(self._numbers, distinct, sorter=order)].astype(np.uint32)[
            which]
        at = 0
        for place, count in held:
            self._known[place:place + count] = codes[at:at + count]
            at += count

    def begin(self) -> None:
        """Another look begins: the pages of cgroups that were found to be gone are asked for again,
        after 1, 2, 4, … looks in which they still were."""
        again = []
        self._gone = {number: self._gone.get(number, 0) + 1 for number in self._gone_now}
        for number, looks in self._gone.items():
            if not looks & (looks - 1):
                again.append(number)
        self._gone_now = set()
        if again:
            wanted = np.isin(self._numbers, np.array(again, np.uint64))
            for first in range(0, len(self._known), _PIECE):
                part = slice(first, first + _PIECE)
                self._read_for[part][wanted[self._known[part]]] = 0
        self._is_fresh = False
        if time.monotonic() - self._walked > _WALKED_AGAIN_S:
            self._walk()

    def _walk(self) -> None:
        self._cgroups, self._walked, self._is_fresh = cgroups.memory(), time.monotonic(), True

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
                self._walk()
            if number not in self._cgroups.known:
                self._gone_now.add(number)
        return self._cgroups.path(number)


def _marks(ts: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """A number for each time, never 0, that another time has by chance once in 2**32."""
    folded = (ts ^ ts >> np.uint64(32)).astype(np.uint32)
    return np.maximum(folded, np.uint32(1))
