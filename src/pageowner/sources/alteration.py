"""What was done to a text, and how to undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.sources.whole_records import Quick

__all__ = ["Alteration"]


class Alteration(NamedTuple):
    """``name``: what was done to the text, in a few words. ``undo`` gives a part as it was;
    ``by_record``: it is to be given whole records. ``page_size``: of the pages, in bytes, where the
    text says addresses. ``quick``: how whole records of it are read without that text."""

    name: str
    undo: Callable[[bytes], bytes]
    by_record: bool = False
    page_size: int | None = None
    quick: Quick | None = None
