"""Whether a capture of this machine is to find what has each page now (the column ``user``), which
reads much of the kernel's memory: only for questions that show it; and whether that is all that is
asked, so that tracking need not be on."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["alone", "are_enough_for", "using", "using_for", "wanted"]

_wanted: ContextVar[bool] = ContextVar("users", default=False)
_alone: ContextVar[bool] = ContextVar("users_alone", default=False)

_CHARGED = frozenset(("memcg", "memcg_state", "container", "pod"))
_KEYS = _CHARGED | {"user", "order", "zone", "node", "state"}
"""The keys that need no tracking."""


def are_enough_for(by: Sequence[str]) -> bool:
    """Whether owners by these keys need no tracking."""
    return bool((_CHARGED | {"user"}) & set(by)) and _KEYS.issuperset(by)


@contextmanager
def using(users: bool = True, alone: bool = False) -> Iterator[None]:
    """Within this, captures find users, and with ``alone`` also where nothing is tracked; with
    False nothing changes."""
    before = _wanted.set(users or _wanted.get()), _alone.set(alone or _alone.get())
    try:
        yield
    finally:
        _wanted.reset(before[0])
        _alone.reset(before[1])


def using_for(by: Sequence[str]) -> AbstractContextManager[None]:
    """`using` for a question about owners by these keys."""
    return using("user" in by, are_enough_for(by))


def wanted() -> bool:
    """Whether captures are to find users."""
    return _wanted.get()


def alone() -> bool:
    """Whether users are all that is asked."""
    return _alone.get()
