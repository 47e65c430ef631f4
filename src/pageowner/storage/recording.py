"""A series of captures of this machine that goes on for ever, and forgets what is old."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.storage import series, witnessed
from pageowner.storage.whole_file import TEMPORARY
from pageowner.system.believed_time import BelievedTime
from pageowner.system.safe_path import find, owner, why_not_own

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.model.snapshot import Snapshot

__all__ = ["Recorder", "owned_folder"]

_LONGEST = 144
"""Files of changes behind a whole snapshot at most: a day of one in ten minutes."""

_GROUPS = 7
"""A whole snapshot begins a group, which is kept or removed as one: so many groups at least make
the time that is kept."""


@contextmanager
def owned_folder(folder: Path) -> Iterator[int]:
    """Make the folder, keep others from recording into it, and clear what a killed one left; a
    descriptor of it, for the `Recorder`.

    Raises PageownerError if somebody records into it already, it cannot be made, or another user
    may change what lies in it, or put another folder in its place.
    """
    try:
        lock = _open(os.fspath(folder), 0o700)
    except OSError as error:
        raise PageownerError(f"{folder}: cannot record there: {error.strerror}") from error
    try:
        if why := why_not_own(lock, sticky=False):
            raise _refused(folder, f"it {why}")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PageownerError(f"{folder}: another process already records to it") from error
        for left in os.listdir(lock):
            # another's, or what 'pageowner save' is writing into this folder, stays
            name = left.removeprefix(TEMPORARY).rpartition(".")[0]
            if (left.startswith(TEMPORARY) and (series.is_name(name) or witnessed.is_name(name))
                    and _is_own(left, lock)):
                with suppress(OSError):
                    os.unlink(left, dir_fd=lock)
        yield lock
    finally:
        os.close(lock)


def _open(path: str, mode: int) -> int:
    """A descriptor of a folder, made with those above it if need be, where no other user can change
    a part of the way to it."""
    try:
        found = find(path, partial(_check_folder, path), partial(_check_link, path))
    except FileNotFoundError:
        above = os.path.dirname(path.rstrip("/"))
        if above in ("", path):
            raise
        os.close(_open(above, 0o755))
        found = find(path.rstrip("/"), partial(_check_folder, path), partial(_check_link, path))
    with found:
        if found.status is None:
            with suppress(FileExistsError):
                os.mkdir(found.name, mode, dir_fd=found.folder)
        return os.open(found.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                       dir_fd=found.folder)


def _check_folder(path: str, shown: str, folder: int) -> None:
    if why := why_not_own(folder):
        raise _refused(path, f"{'the current directory' if shown == '.' else shown} {why}")


def _check_link(path: str, shown: str, link: os.stat_result, _: os.stat_result) -> None:
    if link.st_uid not in (0, os.geteuid()):
        raise _refused(path, f"{shown} is a symbolic link of {owner(link.st_uid)}")


def _refused(path: str | os.PathLike[str], why: str) -> PageownerError:
    return PageownerError(
        f"{path}: refusing to record there: {why}, who could replace captures; use a directory"
        " that only you can write to, such as /var/lib/pageowner for root")


def _is_own(name: str, folder: int) -> bool:
    """Whether this is a file of this user's in the open folder."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


class Recorder:
    """Writes captures into a folder and removes what is older than ``keep_s`` seconds; ``every_s``
    seconds lie between two.

    ``handle`` is what `owned_folder` gave: whatever becomes of the folder's name, captures are
    written and removed there. Without it the folder is found by its name each time.
    """

    def __init__(self, folder: Path, every_s: float, keep_s: float,
                 handle: int | None = None) -> None:
        self.folder, self.keep_s, self._handle = folder, keep_s, handle
        self._place = folder if handle is None else Path(f"/proc/self/fd/{handle}")
        self._longest = int(min(max(keep_s / max(every_s, 1e-3) / _GROUPS, 1), _LONGEST))
        self._before: tuple[Path, Snapshot] | None = None
        self._whole = self._since = 0
        self._builds_on: dict[str, str | None] = {}
        self._time = BelievedTime(keep_s)

    def add(self, snapshot: Snapshot, taken: float | None = None) -> Path:
        """Write one capture, taken at ``taken`` (seconds since 1970; now); returns its file.

        Raises PageownerError if it cannot be written: nothing is left of it then, and the next one
        builds on the one before.
        """
        snapshot = series.rounded(snapshot)
        before = self._before if self._since < self._longest else None
        path, whole = series.add(self.folder, snapshot, time.time() if taken is None else taken,
                                 before, self._whole, self._handle)
        if whole:
            self._whole, self._since = (self._place / path.name).stat().st_size, 0
        self._since += 1
        self._before = path, snapshot
        return path

    def oldest(self) -> float:
        """What was captured before (seconds since 1970) is kept no longer."""
        return self._time.now() - self.keep_s

    def forget(self, now: float | None = None) -> list[Path]:
        """Remove groups of which no capture is younger than asked for; returns their files.

        A group is a whole snapshot and what builds on it: where the clock was set back, others lie
        in between. Raises PageownerError, when all others are removed, if something has the name of
        an old capture but is none of this user's: it stays.
        """
        oldest = self.oldest() if now is None else now - self.keep_s
        captures = series.captures(self._place)
        # each file is opened once: they may be tens of thousands, and this comes with each capture
        names = {capture.path.name: capture.path for capture in captures}
        self._builds_on = {name: self._builds_on[name] if name in self._builds_on
                           else series.builds_on(path) for name, path in names.items()}
        groups: dict[str, list[series.Capture]] = {}
        roots: dict[str, str] = {}
        for capture in captures:
            before = self._builds_on[capture.path.name]
            root = capture.path.name if before is None else roots.get(before, before)
            roots[capture.path.name] = root
            groups.setdefault(root, []).append(capture)
        kept = {roots[captures[-1].path.name]} if captures else set()
        if self._before is not None:
            kept.add(roots.get(self._before[0].name, ""))
        removed: list[Path] = []
        others: list[Path] = []
        for root, group in groups.items():
            if root not in kept and group[-1].taken < oldest:
                # the last first: what is left at any time can be read
                for capture in reversed(group):
                    is_removed = self._remove(capture.path.name)
                    (removed if is_removed else others).append(self.folder / capture.path.name)
        if others:
            raise PageownerError(f"{others[-1]} has the name of a capture, but is damaged or"
                                 " belongs to another user; it was left alone")
        return removed

    def _remove(self, name: str) -> bool:
        """Remove a capture, if it is one: a file of this user's that says that it is; whether it
        is gone."""
        folder = os.open(self._place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not _is_own(name, folder) or not series.is_capture(self._place / name):
                return not os.path.lexists(self._place / name)
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return True
        finally:
            os.close(folder)
        return True
