"""Texts that list groups of allocations, not allocations: how each is recognised and read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened

__all__ = ["reader"]

_HEAD = 1 << 12


def reader(opened: Opened) -> Callable[[Opened], Snapshot] | None:
    """What reads an open text, if it is one of these, by its beginning."""
    head = opened.stream.peek(_HEAD)  # type: ignore[attr-defined]
    if head.startswith(START):
        return None  # by far the most, and the imports below take a while
    from pageowner.sources import allocinfo, page_owner_sorted, page_owner_stack_lists

    if page_owner_sorted.is_sorted(head):
        return page_owner_sorted.read
    if page_owner_stack_lists.is_of_stacks(head):
        return page_owner_stack_lists.read
    if allocinfo.is_allocinfo(head):
        return allocinfo.read
    return None
