"""What an engine is: it answers SQL about a store's tables.

Both show the tables ``owners`` and ``stacks`` as docs/reference/fleet.md has them, ``owners`` with
``taken_s``, the moment in seconds since 1970, and the view ``captures``, one row a capture. What a
question chooses (series, stacks, sides) comes as a small table of its own, never as a part of the
text: no name out of the data is ever SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pageowner.errors import PageownerError
from pageowner.fleet.columns import CAPTURES

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CAPTURES_VIEW", "ONCE", "TWICE", "Engine", "EngineFailed", "said"]

CAPTURES_VIEW = (f"SELECT {', '.join(CAPTURES)}, taken_s, pages AS small_pages FROM owners"
                 " WHERE stack_id = 0")
"""Both engines' view of captures: the row of small owners is there once for each."""

TWICE = ("SELECT capture, min(day || hour) AS kept FROM captures GROUP BY capture"
         " HAVING min(day || hour) < max(day || hour)")
"""Captures that lie in several hours, and the first of these: what is sent again after a clock was
set has another hour. Where both are compacted, only the rows themselves say so."""

ONCE = ("SELECT o.* FROM owners_all o LEFT JOIN twice t ON o.capture = t.capture"
        " WHERE t.kept IS NULL OR t.kept = o.day || o.hour")
"""Then the view of owners, where ``owners_all`` are those of all files and ``twice`` is `TWICE`."""


def said(captures: int) -> str:
    """What to say of captures that lie in several hours."""
    return f"captures that lie in several hours, and count once: {captures:,}"


class EngineFailed(PageownerError):
    """The engine could not read or compute; the reason is in one line."""


class Engine(Protocol):
    """Answers SQL. ``notes``: what is to be said of the tables."""

    notes: list[str]

    def register(self, name: str, table: pa.Table) -> None:
        """Show a small table under a name."""

    def sql(self, text: str) -> pa.Table:
        """The rows of one SELECT. Raises EngineFailed."""

    def close(self) -> None:
        """Let go of what it holds."""
