"""A line of the balance."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Row"]


class Row(NamedTuple):
    """``key`` is its kind for programs, ``counter`` the kernel's counter, ``command`` what tells
    more. Its ``rows``, if there are some, add up to its ``bytes``."""

    key: str
    name: str
    bytes: int
    counter: str = ""
    command: str = ""
    note: str = ""
    rows: tuple[Row, ...] = ()
