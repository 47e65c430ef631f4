"""Write a file whole or not at all.

The bytes go to a temporary file beside the target, reach the disk, and take the target's name in
one step; on any failure, Ctrl-C included, nothing is left and an older file stays as it was.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TEMPORARY", "whole_file"]

TEMPORARY = ".pageowner."
"""What the name of a temporary file begins with; the name of its target follows."""

_LONGEST = 100  # bytes of that: a name has 255 bytes at most


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary stream that becomes ``path``, mode 0600, when the block ends well.

    What is no regular file (a pipe, /dev/stdout) is written directly. Raises PageownerError,
    naming the file, if it cannot be written.
    """
    name = os.fspath(path)
    try:
        if os.path.exists(name) and not os.path.isfile(name):
            if os.path.isdir(name):
                raise PageownerError(f"{name}: is a folder; name a file to write")
            with open(name, "wb") as file:
                yield file
            return
        target = os.path.realpath(name)
        handle, temporary = tempfile.mkstemp(
            prefix=f"{TEMPORARY}{os.fsdecode(os.fsencode(os.path.basename(target))[:_LONGEST])}.",
            dir=os.path.dirname(target))
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        folder = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        raise PageownerError(f"{name}: cannot write: {error.strerror}") from error
