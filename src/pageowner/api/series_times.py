"""When the sources of a series were read: as they say, or as their files or the caller do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pageowner.analysis.select import newest_ns
from pageowner.errors import PageownerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.snapshot import Snapshot

__all__ = ["Moments", "moments"]


_APART_NS = 10**9
"""Files that are closer were copied: a kernel that prints no times takes seconds for a dump."""


class Moments(NamedTuple):
    """``times`` of the sources in ns, increasing; None where they say theirs. ``window_ns``: from
    the first to the last. ``known_from``: where the times are from, empty where they say them."""

    times: list[int] | None
    window_ns: int
    known_from: str = ""


def moments(parts: Sequence[str | list[Path]], first: Snapshot, last: Snapshot,
            every_ns: int | None) -> Moments:
    """The moments of a series of files, and of captures in folders, by its ends; ``every_ns`` lies
    between two that do not say it, if the caller says so.

    Raises UsageError if nothing tells them; PageownerError if a file cannot be found.
    """
    ends = newest_ns(first), newest_ns(last)
    if all(ends):
        return Moments(None, max(ends[1] - ends[0], 0))
    files = [name for part in parts for name in ([part] if isinstance(part, str) else part)]
    if every_ns is not None:
        times = [every_ns * place for place in range(1, len(files) + 1)]
        return Moments(times, times[-1] - times[0], "--every")
    try:
        times = [os.stat(name).st_mtime_ns for name in files]
    except OSError as error:
        raise PageownerError(f"{error.filename}: cannot read: {error.strerror}") from error
    for name, before, time in zip(files[1:], times, times[1:], strict=False):
        if time < before + _APART_NS:
            raise UsageError(f"{name}: the series does not say when it was taken (kernels before"
                             " 5.11 print no times), and this file is not a second newer than the"
                             " one before it, as after a copy; give the time between two:"
                             " --every 10m")
    return Moments(times, times[-1] - times[0], "the files")
