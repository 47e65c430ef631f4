"""Which module reads a text that is no dump of the kernel's page owner, mostly lists of groups.

The modules are those of `pageowner.model.source_kinds.KINDS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pageowner.model.source_kinds import READERS
from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened

__all__ = ["beginner", "reader"]

_HEAD = 1 << 12


def reader(opened: Opened) -> Callable[[Opened], Snapshot] | None:
    """What reads an open text, if it is one of these, by its beginning."""
    module = _module(opened)
    read: Callable[[Opened], Snapshot] | None = None if module is None else module.read
    return read


def beginner(opened: Opened) -> Callable[[Opened], Callable[[], Snapshot]] | None:
    """What begins to read it in other processes, and returns what waits for these, if there is such
    for a text of its kind."""
    begin: Callable[[Opened], Callable[[], Snapshot]] | None = getattr(
        _module(opened), "begin", None)
    return begin


def _module(opened: Opened) -> Any:
    head = opened.stream.peek(_HEAD)  # type: ignore[attr-defined]
    if head.startswith(START):
        return None  # by far the most, and the imports below take a while
    for name in READERS:
        module = import_module(f"pageowner.sources.{name}")
        if module.recognises(head):
            return module
    return None
