"""What a call takes for a source: a name as `pageowner.read` has it, or what was read of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, Union

from pageowner.errors import PageownerError
from pageowner.report.text import source_name
from pageowner.sources.source import count, read

if TYPE_CHECKING:
    from pageowner.model.counts import Counted
    from pageowner.model.snapshot import Snapshot

__all__ = ["Read", "Source", "check_there", "counted", "name", "snapshot"]

Source: TypeAlias = Union["Snapshot", str, os.PathLike[str], None]
"""A file's or folder's name, ``"-"``, None (this machine), or a snapshot."""

Read: TypeAlias = Callable[["str | None"], "Counted | Snapshot"]
"""How a named source is read, where that is not `pageowner.read`."""


def snapshot(source: Source, where: Callable[[str | None], Snapshot] = read) -> Snapshot:
    """The snapshot, read by ``where`` unless it is one. Raises what `pageowner.read` raises."""
    from pageowner.model.snapshot import Snapshot as Made

    return source if isinstance(source, Made) else where(_path(source))


def counted(source: Counted | Source, by: Read = count) -> Counted | Snapshot:
    """The source as sums, where a dump can be read so, which takes half the time."""
    if source is None or isinstance(source, (str, os.PathLike)):
        return by(_path(source))
    return source


def check_there(source: Counted | Source) -> None:
    """Raises PageownerError if this names a file that is not there."""
    if isinstance(source, (str, os.PathLike)) and os.fspath(source) != "-":
        try:
            os.stat(source)
        except OSError as error:
            raise PageownerError(f"{os.fspath(source)}: cannot read: {error.strerror}") from error


def name(source: Counted | Source, found: Counted | Snapshot) -> str:
    """What a source is called in a report: by its name, or by what is known of it."""
    if source is None or isinstance(source, (str, os.PathLike)):
        return source_name(_path(source), found.meta)
    return source_name(found.meta.source, found.meta)


def _path(source: str | os.PathLike[str] | None) -> str | None:
    # a `Moment` is a str and stays one
    return source if source is None or isinstance(source, str) else os.fspath(source)
