"""Captures of events beside a series, and what happened: of a folder that `record --on` fills.

A capture of an event is a whole snapshot, ``20261123T114500.000Z.low.parquet``: its name has the
time and the event, so that it is none of the series. What happened is a line of JSON each in
``events.jsonl``: ``at`` (seconds since 1970), ``event``, ``text``, and ``capture``, a file's name.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pageowner.errors import PageownerError
from pageowner.model.events import EVENTS
from pageowner.storage import series
from pageowner.storage.whole_file import whole_file

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot

__all__ = ["LOG", "Event", "add", "capture_of", "events", "forget", "is_name", "log",
           "same_again"]

LOG = "events.jsonl"
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{3}Z)\.([a-z]+)\.parquet")
_MOST_LINES, _MOST_BYTES = 10_000, 16 << 20


@dataclass(frozen=True)
class Event:
    """What happened ``at`` (seconds since 1970), in a sentence, and the name of the capture, empty
    if there is none."""

    at: float
    event: str
    text: str
    capture: str = ""


def _name(taken: float, event: str) -> str:
    return series.file_name(taken).replace(".parquet", f".{event}.parquet")


def is_name(name: str) -> bool:
    """Whether a file of this name is a capture of an event, or the log of events."""
    found = _NAME.fullmatch(name)
    return name == LOG or (found is not None and found[2] in EVENTS)


def add(handle: int, snapshot: Snapshot, event: str, taken: float) -> str:
    """Write a capture of an event into the open folder; returns its name. Raises PageownerError if
    it cannot be written; nothing is left then."""
    from pageowner.storage import parquet

    name = _name(taken, event)
    parquet.write(snapshot, name, handle)
    return name


def same_again(handle: int, capture: str, event: str, taken: float) -> str:
    """A second name for a capture that another event made. Raises OSError."""
    name = _name(taken, event)
    os.link(capture, name, src_dir_fd=handle, dst_dir_fd=handle, follow_symlinks=False)
    return name


def log(handle: int, event: Event) -> None:
    """Add a line to the folder's log, on the disk when this returns. Raises OSError."""
    file = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
                   0o600, dir_fd=handle)
    try:
        # one write, so that a line is whole; after half a line of one that was killed, a new one
        os.write(file, b"\n" + json.dumps(event.__dict__).encode())
        os.fsync(file)
    finally:
        os.close(file)


def events(folder: Path) -> list[Event]:
    """What happened, oldest first; lines that are damaged are left out. Raises PageownerError if
    the log cannot be read."""
    try:
        with open(folder / LOG, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - _MOST_BYTES, 0))
            lines = file.read(_MOST_BYTES).split(b"\n")[-_MOST_LINES:]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PageownerError(f"{folder / LOG}: cannot read: {error.strerror}") from error
    found = [event for line in lines if (event := _event(line)) is not None]
    return sorted(found, key=lambda event: event.at)


def _event(line: bytes) -> Event | None:
    try:
        words: Any = json.loads(line)
        found = Event(float(words["at"]), str(words["event"]), str(words["text"]),
                      str(words.get("capture", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if not found.capture or _NAME.fullmatch(found.capture) else None


def capture_of(folder: Path, event: str) -> tuple[Path, str]:
    """The newest capture of an event, and what happened then, empty if that is not known. Raises
    PageownerError if there is none."""
    try:
        names = sorted(name for name in os.listdir(folder)
                       if (found := _NAME.fullmatch(name)) and found[2] == event)
    except OSError as error:
        raise PageownerError(f"{folder}: cannot read: {error.strerror}") from error
    if not names:
        there = sorted({found[2] for name in os.listdir(folder)
                        if (found := _NAME.fullmatch(name))})
        raise PageownerError(f"{folder}: no capture of {event!r}" + (
            f"; there are some of {', '.join(there)}" if there else
            "; 'pageowner record DIR --on EVENT' makes them"))
    said = [entry.text for entry in events(folder) if entry.capture == names[-1]]
    return folder / names[-1], said[-1] if said else ""


def forget(handle: int, oldest: float) -> None:
    """Remove captures of events, and lines of the log, from before ``oldest`` (seconds since 1970)
    that are this user's. Nobody else may write to the log meanwhile. Raises OSError, PageownerError
    if they cannot be removed."""
    limit = series.file_name(max(oldest, 0)).removesuffix(".parquet")
    for name in os.listdir(handle):
        found = _NAME.fullmatch(name)
        if found and found[2] in EVENTS and found[1] < limit:
            try:
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if status.st_uid == os.geteuid():
                    os.unlink(name, dir_fd=handle)
            except FileNotFoundError:
                continue
    _shorten(handle, oldest)


def _shorten(handle: int, oldest: float) -> None:
    """Write the log again without what is old, or damaged, or more than is read."""
    try:
        log = os.open(LOG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                      dir_fd=handle)
    except FileNotFoundError:
        return
    with open(log, "rb") as file:
        status = os.fstat(log)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return
        file.seek(max(status.st_size - _MOST_BYTES, 0))
        lines = [line for line in file.read(_MOST_BYTES).split(b"\n") if line]
    there = set(os.listdir(handle))
    recent = len(lines) - _MOST_LINES
    # what captures that are there say is kept, however much came after them
    kept = [line for place, line in enumerate(lines) if (event := _event(line)) is not None
            and event.at >= oldest and (place >= recent or event.capture in there)]
    if len(kept) < len(lines):
        with whole_file(LOG, handle) as file:
            file.writelines(b"\n" + line for line in kept)
