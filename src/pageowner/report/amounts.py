"""Pages and allocations in words, for sources that count both, one of them, or bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.model.source_kinds import kind_of
from pageowner.report.text import count_of

if TYPE_CHECKING:
    from pageowner.model.metadata import Metadata

__all__ = ["counts", "for_programs", "only_known"]


def counts(meta: Metadata, pages: int, blocks: int) -> str:
    """``9,659 pages, 2 blocks``, or the one of them that is known."""
    kind = kind_of(meta)
    return ", ".join([*([count_of(pages, "page")] if kind.in_pages else []),
                      *([count_of(blocks, kind.block)] if kind.block else [])])


def for_programs(meta: Metadata, pages: int, blocks: int) -> dict[str, Any]:
    """``pages`` and ``blocks`` with None for what the source does not know."""
    kind = kind_of(meta)
    return {"pages": pages if kind.in_pages else None, "blocks": blocks if kind.block else None}


def only_known(row: dict[str, Any], meta: Metadata, ending: str = "") -> dict[str, Any]:
    """A row with None, in place, for each number of pages or blocks that the source does not know;
    ``ending``: only for names that end so."""
    kind = kind_of(meta)
    for name in [name for name in row if name.endswith(ending)]:
        if (name in _PAGES and not kind.in_pages) or (name in _BLOCKS and not kind.block):
            row[name] = None
    return row


_PAGES = frozenset(("pages", "pages_before", "pages_after", "gained", "lost"))
_BLOCKS = frozenset(("blocks", "blocks_before", "blocks_after"))
