"""What whoever reads a dump knows of it and it does not say."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SYSTEM_MAP", "VMLINUX", "Vmlinux", "with_system_map", "with_vmlinux"]


@dataclass
class Vmlinux:
    """A vmlinux with debugging information, and whether a vmcore was read by it."""

    path: str
    used: bool = False


SYSTEM_MAP: ContextVar[str | None] = ContextVar("system_map", default=None)
"""The file that names addresses in stacks (`pageowner.sources.system_map`)."""

VMLINUX: ContextVar[Vmlinux | None] = ContextVar("vmlinux", default=None)
"""That of a vmcore's kernel (`pageowner.vmcore.debug_info`)."""


@contextmanager
def with_system_map(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Within this the addresses in the stacks of dumps that are read get names from this file.

    Raises PageownerError if it cannot be read.
    """
    if path is None:  # what was given around this holds
        yield
        return
    _check(path, "symbols")
    token = SYSTEM_MAP.set(os.fspath(path))
    try:
        yield
    finally:
        SYSTEM_MAP.reset(token)


@contextmanager
def with_vmlinux(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Within this vmcores are read by this file too; if none was read, that is logged.

    Raises PageownerError if the file cannot be read.
    """
    if path is None:  # what was given around this holds
        yield
        return
    _check(path, "debugging information")
    found = Vmlinux(os.fspath(path))
    token = VMLINUX.set(found)
    try:
        yield
    finally:
        VMLINUX.reset(token)
    if not found.used:
        import logging

        logging.getLogger("pageowner").warning(
            "%s was not used: it says something about vmcores alone", found.path)


def _check(path: str | os.PathLike[str], of: str) -> None:
    try:
        # a pipe is not waited for, and is no file that can be read here and there
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PageownerError(f"cannot read {of} from {os.fspath(path)!r}: {reason}") from error
    if not stat.S_ISREG(mode):
        raise PageownerError(f"cannot read {of} from {os.fspath(path)!r}: it is no regular file")
