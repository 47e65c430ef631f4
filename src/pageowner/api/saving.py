"""Where a report for other programs goes: a file, or a stream that is open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from pageowner.storage.whole_file import whole_file

if TYPE_CHECKING:
    from pageowner.report.writer import Writer

__all__ = ["save"]


def save(writer: Writer, output: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a file, whole or not at all, or to a binary stream. Raises PageownerError if a file
    cannot be written."""
    if isinstance(output, (str, os.PathLike)):
        with whole_file(output) as file:
            writer.write(file)
    else:
        writer.write(output)
