"""Page owner's list in Qualcomm's minidumps.

Kernels of Qualcomm leave, when they panic, a line for each block in use, its pfn, the handle of its
stack and the number of addresses that follow: 0 where those were listed before (dump_page_owner_md
in mm/page_owner.c of msm-5.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.sources.alteration import Alteration
from pageowner.sources.minidump_text import RECORD, RECORD_BEHIND, Stacks, are_addresses
from pageowner.sources.whole_records import Quick

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.sources.page_owner_parser import Parser
    from pageowner.sources.whole_records import Records

__all__ = ["minidump"]

_SEEN = 4
"""Records from which this form is known."""


def minidump(head: bytes) -> Alteration | None:
    """Of Qualcomm's minidumps."""
    lines = head.split(b"\n")[:1 << 10]
    at = records = 0
    while at < len(lines) and (found := RECORD.match(lines[at])):
        number = int(found[3])
        frames = lines[at + 1:at + 1 + number]
        if not are_addresses(frames):
            break
        at += 1 + number
        records += 1
    if not records or (records < _SEEN and b"".join(lines[at:]).strip()):
        return None
    stacks = Stacks()
    columns: list[Callable[[bytes, Parser], Records | None]] = []

    def take(text: bytes, parser: Parser) -> Records | None:
        if not columns:
            from pageowner.sources.minidump_columns import Columns

            columns.append(Columns(stacks, parser).take)
        return columns[0](text, parser)

    return Alteration(
        "the form of Qualcomm's minidump, which has no orders (each block counts as one page) and"
        " no gfp masks", stacks.undo, by_record=True,
        # An empty line ends each record, and whatever is none.
        quick=Quick(take, b"", lambda text: True, RECORD_BEHIND, lambda: stacks.known))
