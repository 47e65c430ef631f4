"""Whether this machine is asked for its objects rather than for its pages."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["asking", "wanted"]

_wanted: ContextVar[bool] = ContextVar("objects", default=False)


@contextmanager
def asking(objects: bool = True) -> Iterator[None]:
    """Within this, no source means the objects of slabs that this machine's tracker follows."""
    token = _wanted.set(objects)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted() -> bool:
    """Whether that is so."""
    return _wanted.get()
