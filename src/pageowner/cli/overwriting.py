"""Which files a verb may write over: those of the kind that it writes. Words in the wrong order
would else cost a dump, a snapshot or a vmcore, in whatever form and however compressed."""

from __future__ import annotations

import os
from contextlib import suppress

import click

from pageowner.errors import UsageError
from pageowner.model.source_kinds import PARQUET

__all__ = ["check_pictures", "spare", "spare_sources"]

_PICTURES = (b"<!DOCTYPE html>", b"<svg ", b"\x89PNG")
_KEPT = (PARQUET, b"KDUMP   ", b"\x7fELF", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x1f\x8b")
"""What snapshots, vmcores, and what xz, zstd and gzip have compressed begin with."""
_HEAD = 16


def spare(file: str, own: tuple[bytes, ...], refused: str) -> None:
    """Raises UsageError if there is a file of this name that is not empty and does not begin as
    one of ``own``; ``refused`` says what it is not, and what to do."""
    head = _head(file)
    if head and not head.startswith(own):
        raise UsageError(f"{file} exists and is {refused}")


def spare_sources(file: str, source: str | None, own: tuple[bytes, ...] = ()) -> None:
    """Raises UsageError if a file to write is the source itself, or a snapshot, a vmcore or
    something compressed, unless it begins as one of ``own``."""
    if source is not None and os.path.isfile(file) and os.path.exists(source) and (
            os.path.samefile(file, source)):
        raise UsageError(f"{file} is the source and would be overwritten; name another file")
    head = _head(file)
    if head.startswith(_KEPT) and not head.startswith(own):
        raise UsageError(f"{file} exists and may be a source; refusing to overwrite it. Remove it"
                         " first, or name another file")


def _head(file: str) -> bytes:
    """What a file begins with; nothing of what is none, or cannot be read, which is said when it is
    written. A pipe is not opened: its reader waits for what is written."""
    if os.path.isfile(file):
        # a pipe that somebody puts there now is not waited for
        with suppress(OSError), open(
                os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as there:
            return there.read(_HEAD)
    return b""


def check_pictures(page: str | None, image: str | None) -> None:
    """Raises UsageError if both are the same file, by whatever names, or would be written over
    something else than a picture."""
    if page and image and os.path.realpath(page) == os.path.realpath(image):
        raise click.UsageError("the page and the image cannot be one file")
    for path in filter(None, (page, image)):
        spare(path, _PICTURES, "no picture; refusing to overwrite it. Remove it first, or name"
                               " another file")
