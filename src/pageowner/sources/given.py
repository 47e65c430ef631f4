"""What whoever reads a dump knows of it and its text does not say."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SYSTEM_MAP", "VMLINUX", "having"]

SYSTEM_MAP: ContextVar[str | None] = ContextVar("system_map", default=None)
"""The file that names addresses in stacks (system_map.py)."""

VMLINUX: ContextVar[str | None] = ContextVar("vmlinux", default=None)
"""The vmlinux with debugging information of a vmcore's kernel (`pageowner.vmcore.debug_info`)."""


@contextmanager
def having(what: ContextVar[str | None], path: str | os.PathLike[str] | None, of: str
           ) -> Iterator[None]:
    """Within this a file is known by which dumps are read; ``of`` says what is read from it.

    Raises PageownerError if it cannot be read.
    """
    if path is not None:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PageownerError(f"cannot read {of} from {os.fspath(path)}: {reason}") from error
    token = what.set(None if path is None else os.fspath(path))
    try:
        yield
    finally:
        what.reset(token)
