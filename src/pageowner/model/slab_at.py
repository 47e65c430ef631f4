"""What is known of one slab and its objects: between `tracker.read` and what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pageowner.model.metadata import Metadata

__all__ = ["SlabAt"]


@dataclass(frozen=True)
class SlabAt:
    """The slab at an ``address``.

    ``object``: the row of the object there, with the columns of `pageowner.model.snapshot.SCHEMA`
    by name; None if it is not tracked. ``others``: the rows of the other tracked objects in the
    slab, by address. The slab has ``pages`` page frames beginning with ``first``, at the address
    ``start``; it has space for ``room`` objects of ``bytes_each`` bytes (0: unknown). ``made``: the
    row of its pages, whose owner made the slab grow; empty if that is unknown. ``meta``: of the
    tracker at this time.
    """

    address: int
    object: dict[str, Any] | None
    others: list[dict[str, Any]]
    start: int
    first: int
    pages: int
    room: int
    bytes_each: int
    made: list[dict[str, Any]]
    meta: Metadata

    @property
    def share(self) -> int:
        """N, if one object in N is tracked."""
        return int(self.meta.extra["objects"]["share"])
