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

__all__ = ["CAPTURES_VIEW", "Engine", "EngineFailed"]

CAPTURES_VIEW = (f"SELECT {', '.join(CAPTURES)}, taken_s, pages AS small_pages FROM owners"
                 " WHERE stack_id = 0")
"""Both engines' view of captures: the row of small owners is there once for each."""


class EngineFailed(PageownerError):
    """The engine could not read or compute; the reason is in one line."""


class Engine(Protocol):
    """Answers SQL."""

    def register(self, name: str, table: pa.Table) -> None:
        """Show a small table under a name."""

    def sql(self, text: str) -> pa.Table:
        """The rows of one SELECT. Raises EngineFailed."""

    def close(self) -> None:
        """Let go of what it holds."""
