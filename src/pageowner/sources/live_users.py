"""Whether a capture of this machine is to find who has each page now (the column ``user``), which
reads much of the kernel's memory: only for questions that show it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["using", "wanted"]

_wanted: ContextVar[bool] = ContextVar("users", default=False)


@contextmanager
def using(users: bool = True) -> Iterator[None]:
    """Within this, captures find users; with False nothing changes."""
    token = _wanted.set(users or _wanted.get())
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted() -> bool:
    """Whether captures are to find users."""
    return _wanted.get()
