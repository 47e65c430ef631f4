"""A summary of a source without a row for each allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pageowner.model.metadata import Metadata

__all__ = ["Counted"]


@dataclass(frozen=True)
class Counted:
    """Allocations that differ only in pfn and times, counted.

    ``columns``: those of `pageowner.model.snapshot.SCHEMA` that the source knows, but pfn and the
    times, one item a kind;
    ``blocks``: how many allocations there are of each, never 0; ``oldest_ns``, ``newest_ns``:
    their first and last time of allocation in ns since boot, None where no time is known.
    """

    columns: dict[str, list[Any]]
    blocks: list[int]
    oldest_ns: list[int | None]
    newest_ns: list[int | None]
    meta: Metadata
