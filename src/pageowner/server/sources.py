"""What is served: this machine as it is tracked, a folder of captures, or one file. A worker's
side: it holds snapshots and looks, for as long as somebody asks."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pageowner.analysis.judging import judged
from pageowner.analysis.leaks import LEAST_SAMPLES, Watch, Watched, settling_ns
from pageowner.analysis.shorten import shortened
from pageowner.errors import PageownerError
from pageowner.server import gathering
from pageowner.sources import live_users
from pageowner.sources.source import is_tracking
from pageowner.sources.source import read as read_source
from pageowner.storage import series

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot
    from pageowner.tracker.read.live import LiveReader

__all__ = ["Series", "Served", "served"]

_CAPTURES = 24
"""Captures of a series that growth is judged by, the newest; up to twice as many as they come."""

_KEPT = 2
"""Snapshots at other moments that are kept: the two that are compared."""

_FRESH_S = 30.0
"""A capture of this machine is good for so long."""


class Served(Protocol):
    """A source. ``name`` is what it is called."""

    name: str

    @property
    def tracking(self) -> bool:
        """Whether the figures are of a tracker that is on."""

    def snapshot(self) -> Snapshot:
        """Its state now, or at its end."""

    def figures(self) -> dict[str, Any]:
        """Fields of `figures.Figures`, without those of the balance."""

    def watched(self) -> tuple[Watch | None, Watched | None]:
        """What growth is judged by, if there is something."""


class Series:
    """A folder of captures, as history and as a source."""

    tracking = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)
        self._kept: dict[str, Snapshot] = {}
        self._watch: Watch | None = None
        self._seen: list[Path] = []
        self._last: tuple[Path, dict[str, Any]] | None = None

    def captures(self) -> list[series.Capture]:
        """All of them, oldest first; raises PageownerError if the folder cannot be read."""
        return series.captures(self.folder)

    def at(self, when: float | None) -> Snapshot:
        """The newest capture at ``when`` or before. Raises PageownerError if there is none."""
        there = [capture for capture in self.captures() if when is None or capture.taken <= when]
        key = str(there[-1].path) if there else ""
        if key not in self._kept:
            # Of this one: a look at the folder again may find one that has come since.
            found = shortened(series.read(there[-1].path) if there else
                              series.at(self.folder, when))
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = found
        else:
            self._kept[key] = self._kept.pop(key)  # used last
        found = self._kept[key]
        found.meta.source = self.name
        return found

    def snapshot(self) -> Snapshot:
        return self.at(None)

    def figures(self) -> dict[str, Any]:
        captures = self.captures()
        if not captures:
            raise PageownerError(f"{self.folder}: no captures yet")
        newest = captures[-1]
        if self._last is None or self._last[0] != newest.path:
            found = gathering.of_snapshot(self.snapshot())
            found["taken"] = newest.taken
            try:
                found |= _growth(*self.watched())
            except PageownerError as error:  # one that is damaged, or of another kind
                found["notes"] = [str(error)]
            self._last = newest.path, found
        return self._last[1]

    def watched(self) -> tuple[Watch | None, Watched | None]:
        boot = series.last_boot(self.folder)
        if len(boot) < LEAST_SAMPLES:
            return None, None
        seen = set(self._seen)
        # older ones than the first were left out on purpose
        first = next((place for place, path in enumerate(boot) if path in seen), 0)
        new = [path for path in boot[first:] if path not in seen]
        if self._watch is None or not seen <= set(boot) or (
                len(self._seen) + len(new) > 2 * _CAPTURES):
            self._watch, self._seen, new = None, [], boot[-_CAPTURES:]
        try:
            return self._watched(new)
        except BaseException:
            self._watch, self._seen = None, []
            raise

    def _watched(self, new: list[Path]) -> tuple[Watch, Watched]:
        if self._watch is None:
            ends = [series.read(new[0]).meta.clock_ns or 0, series.read(new[-1]).meta.clock_ns or 0]
            self._watch = Watch("stack", settling_ns(max(ends[1] - ends[0], 1)))
        watch = self._watch
        for path, snapshot in zip(new, series.each(new), strict=True):
            now = snapshot.meta.clock_ns or 0
            if not watch.times or now > watch.times[-1]:
                watch.add_snapshot(shortened(snapshot), now)
            self._seen.append(path)
        assert watch.meta is not None
        return watch, _about(watch, self.name, watch.meta.page_size)


class File:
    """A dump or a snapshot, which stays as it is."""

    tracking = False

    def __init__(self, path: str) -> None:
        self.name = path
        self._found: tuple[tuple[float, int], Snapshot, dict[str, Any]] | None = None

    def snapshot(self) -> Snapshot:
        return self._read()[1]

    def figures(self) -> dict[str, Any]:
        return self._read()[2]

    def _read(self) -> tuple[tuple[float, int], Snapshot, dict[str, Any]]:
        try:
            status = os.stat(self.name)
        except OSError as error:
            raise PageownerError(f"{self.name}: cannot read: {error.strerror}") from error
        state = status.st_mtime, status.st_size
        if self._found is None or self._found[0] != state:
            found = shortened(read_source(self.name))
            found.meta.source = self.name
            self._found = state, found, gathering.of_snapshot(found)
        return self._found

    def watched(self) -> tuple[Watch | None, Watched | None]:
        return None, None


class Machine:
    """This machine: what the tracker knows, by looks; nothing but the balance where it is off."""

    def __init__(self, window_ns: int) -> None:
        self.name = socket.gethostname()
        self.window_ns = window_ns
        self._open = ExitStack()
        self._reader: LiveReader | None = None
        self._watches: list[Watch] = []
        self._capture: tuple[float, Snapshot] | None = None

    @property
    def tracking(self) -> bool:
        return is_tracking()

    def snapshot(self) -> Snapshot:
        if self._capture is None or time.monotonic() - self._capture[0] > _FRESH_S:
            self._capture = None  # not two at once
            with live_users.using():
                self._capture = time.monotonic(), shortened(read_source(None))
        return self._capture[1]

    def figures(self) -> dict[str, Any]:
        if not self.tracking:
            self._end()
            return {"taken": time.time()}
        try:
            return self._look()
        except BaseException:
            self._end()  # tracking was turned off, or anew
            raise

    def _look(self) -> dict[str, Any]:
        from pageowner.analysis.live_rows import rows_of_blocks
        from pageowner.api.watch import live_reader
        from pageowner.tracker.load import memo

        if self._reader is None:
            self._reader = self._open.enter_context(live_reader())
        reader, unit = self._reader, os.sysconf("SC_PAGE_SIZE")
        look = reader.counts(["memcg"])
        found = gathering.of_look(look, reader.health, unit,
                                  reader.container_names(look.fields["memcg"][1]))
        store = reader.store
        found["health"] = gathering.of_health(
            reader.health, store.counters(),
            memo.read_counters(store.bpf, store.fd("memo_states"), store.fd("counters")))
        blocks = reader.blocks()
        rows = rows_of_blocks(blocks, ["stack"])
        self._begin_watches(blocks.time_ns, store.facts["since_ns"])
        for watch in self._watches:
            watch.add(blocks.time_ns, rows, blocks.others)
        return {"taken": time.time(), "since_ns": store.facts["since_ns"], **found,
                **_growth(*self.watched())}

    def _begin_watches(self, now: int, since: int) -> None:
        """Two watches that overlap: when the older has seen the whole window, the younger has seen
        half of it and goes on."""
        if self._watches and now - self._watches[0].times[0] > self.window_ns:
            del self._watches[0]
        if not self._watches or (len(self._watches) == 1 and now - self._watches[0].times[0]
                                 > self.window_ns // 2):
            self._watches.append(Watch("stack", settling_ns(self.window_ns // 2), since))

    def watched(self) -> tuple[Watch | None, Watched | None]:
        if not self._watches or len(self._watches[0].times) < LEAST_SAMPLES:
            return None, None
        return self._watches[0], _about(self._watches[0], self.name, os.sysconf("SC_PAGE_SIZE"))

    def _end(self) -> None:
        self._open.close()
        self._reader, self._watches = None, []


def served(source: str | None, window_ns: int) -> Series | File | Machine:
    """What ``source`` names, as for `pageowner.read`."""
    if source is None:
        return Machine(window_ns)
    return Series(Path(source)) if os.path.isdir(source) else File(source)


def _about(watch: Watch, name: str, page_size: int) -> Watched:
    return Watched(name, (watch.times[-1] - watch.times[0]) / 1e9, len(watch.times), watch.owners,
                   watch.names, page_size)


def _growth(watch: Watch | None, about: Watched | None) -> dict[str, Any]:
    if watch is None or about is None or len(watch.times) < LEAST_SAMPLES:
        return {}
    table = judged(watch, about.page_size)
    return {"growth": gathering.of_leaks(table, about.page_size),
            "kinds": dict(Counter(table["kind"].to_pylist())), "looks": about.looks,
            "watched": about.seconds}
