"""A line of the balance."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Row"]


class Row(NamedTuple):
    """``key``: the kind of row, for programs; ``counter``: the kernel's counter; ``command``: a
    command that shows more. Its ``rows``, if any, add up to its ``bytes``."""

    key: str
    name: str
    bytes: int
    counter: str = ""
    command: str = ""
    note: str = ""
    rows: tuple[Row, ...] = ()
