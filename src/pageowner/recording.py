"""A series of captures of this machine that goes on for ever, and forgets what is old."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.formats import series
from pageowner.formats.whole_file import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.snapshot import Snapshot

__all__ = ["Recorder", "owned_folder"]

_LONGEST = 144
"""Files of changes behind a whole snapshot at most: a day of one in ten minutes."""

_GROUPS = 7
"""A whole snapshot begins a group, which is kept or removed as one: so many groups at least make
the time that is kept."""

_JUMP = 60
"""Seconds that a clock runs away from the one that nobody sets, and is still believed."""


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Make the folder, keep others from recording into it, and clear what a killed one left.

    Raises PageownerError if somebody records into it already, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PageownerError(f"{folder}: cannot record there: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PageownerError(f"{folder}: somebody records into this folder already") from error
        for left in folder.glob(f"{TEMPORARY}*"):
            # another's, or what 'pageowner save' is writing into this folder, stays
            if series.is_name(left.name.removeprefix(TEMPORARY).rpartition(".")[0]):
                with suppress(OSError):
                    left.unlink()
        yield
    finally:
        os.close(lock)


class Recorder:
    """Writes captures into a folder (see `owned_folder`) and removes what is older than
    ``keep_s`` seconds; ``every_s`` seconds lie between two."""

    def __init__(self, folder: Path, every_s: float, keep_s: float) -> None:
        self.folder, self.keep_s = folder, keep_s
        self._longest = int(min(max(keep_s / max(every_s, 1e-3) / _GROUPS, 1), _LONGEST))
        self._before: tuple[Path, Snapshot] | None = None
        self._whole = self._since = 0
        self._builds_on: dict[str, str | None] = {}
        self._clock = time.time() - _since_boot()
        self._jumped: float | None = None

    def add(self, snapshot: Snapshot, taken: float | None = None) -> Path:
        """Write one capture, taken at ``taken`` (seconds since 1970; now); returns its file.

        Raises PageownerError if it cannot be written: nothing is left of it then, and the next one
        builds on the one before.
        """
        snapshot = series.rounded(snapshot)
        before = self._before if self._since < self._longest else None
        path, whole = series.add(self.folder, snapshot, time.time() if taken is None else taken,
                                 before, self._whole)
        if whole:
            self._whole, self._since = path.stat().st_size, 0
        self._since += 1
        self._before = path, snapshot
        return path

    def forget(self, now: float | None = None) -> list[Path]:
        """Remove groups of which no capture is younger than asked for; returns their files.

        A group is a whole snapshot and what builds on it: where the clock was set back, others lie
        in between.
        """
        oldest = (self._now() if now is None else now) - self.keep_s
        there = series.captures(self.folder)
        # each file is opened once: they may be tens of thousands, and this comes with each capture
        self._builds_on = {one.path.name: self._builds_on[one.path.name]
                           if one.path.name in self._builds_on else series.builds_on(one.path)
                           for one in there}
        groups: dict[str, list[series.Capture]] = {}
        roots: dict[str, str] = {}
        for one in there:
            before = self._builds_on[one.path.name]
            root = one.path.name if before is None else roots.get(before, before)
            roots[one.path.name] = root
            groups.setdefault(root, []).append(one)
        kept = {roots[there[-1].path.name]} if there else set()
        if self._before is not None:
            kept.add(roots.get(self._before[0].name, ""))
        removed = []
        for root, group in groups.items():
            if root not in kept and group[-1].taken < oldest:
                # the last first: what is left at any time can be read
                for one in reversed(group):
                    with suppress(FileNotFoundError):
                        one.path.unlink()
                    removed.append(one.path)
        return removed

    def _now(self) -> float:
        """The time by which captures are old. A clock that was set forward is not believed before
        it has been so for as long as captures are kept: it may be set right again."""
        now, boot = time.time(), _since_boot()
        expected = self._clock + boot
        if now - expected <= _JUMP:
            self._jumped = None
            self._clock = min(self._clock, now - boot)
            return now
        if self._jumped is None:
            self._jumped = boot
        if boot - self._jumped < self.keep_s:
            return expected
        self._clock, self._jumped = now - boot, None
        return now


def _since_boot() -> float:
    """Seconds, with those that the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
