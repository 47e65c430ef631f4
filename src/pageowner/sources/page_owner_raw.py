"""The records of a dump as plain columns, which the parser fills."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pageowner.sources.damage import Damage
    from pageowner.sources.page_owner_body import Body
    from pageowner.sources.page_owner_grammar import Header

__all__ = ["NONE", "Raw"]

NONE = (1 << 64) - 1
"""Stands for "not said" in the columns of pfn, ts and free_ts."""

_OF_A_LIST = re.compile(rb"\A(?:(?:[ \t][^\n]*\n)+(?:handle: \d{1,10}|nr_base_pages: \d{1,19})|"
                        rb"handle: \d{1,10}\nnr_base_pages: \d{1,19})\s*\Z")
"""A whole item of it, and nothing else."""


@dataclass
class Raw:
    """Columns of a dump as plain arrays: one item a record, in the dump's order.

    ``kind`` is a place in ``kinds``, the distinct records but for their numbers, each as places
    in ``headers``, ``lines`` and ``bodies``; the line is 0 for a record without PFN line.
    ``free_ts`` is empty where no record says it. ``listed``: stacks of handles that stand beside
    the records, in so many ``names``; ``left_out``: what else of a list of stacks stands there.
    """

    headers: list[Header] = field(default_factory=list)
    lines: list[tuple[str | None, str, str, bool | None]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    kinds: list[tuple[int, int, int]] = field(default_factory=list)
    kind: array[int] = field(default_factory=lambda: array("I"))
    pfn: array[int] = field(default_factory=lambda: array("Q"))
    block: array[int] = field(default_factory=lambda: array("Q"))
    ts: array[int] = field(default_factory=lambda: array("Q"))
    free_ts: array[int] = field(default_factory=lambda: array("Q"))
    damaged: int = 0
    damage: list[Damage] = field(default_factory=list)
    unterminated: int = 0
    decimal_pfn: bool = False
    listed: dict[int, str] = field(default_factory=dict)
    names: int = 0
    left_out: int = 0
    by_columns: bool = False
    """Whether records came in columns, and so many that NumPy sums them up."""

    def lists(self, piece: bytes) -> bool:
        """Take what stands between two empty lines and is no record, if it is of a file of
        page_owner_stacks."""
        if not _OF_A_LIST.search(piece):
            return False
        from pageowner.sources.page_owner_stacks import parse

        for record in parse(piece):
            if record.handle is not None and record.stack is not None and record.pages is None:
                self.listed[record.handle] = record.stack
                self.names += 1
            else:
                self.left_out += 1
        return True
