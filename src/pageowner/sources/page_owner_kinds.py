"""What the kinds of record of a dump say: a kind is all of a record but its numbers.

A dump of millions of records has some thousand kinds, so each is looked at once, in plain Python;
rows are made by number (page_owner_columns.py), or only counted (page_owner_count.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pageowner.kernel.early_pages import EARLY, is_early
from pageowner.model.metadata import Metadata
from pageowner.model.schema import LINES
from pageowner.sources.damage import note_left_out
from pageowner.sources.page_size import told

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pageowner.sources.page_owner_body import Body
    from pageowner.sources.page_owner_grammar import Header
    from pageowner.sources.page_owner_parser import Damage

    Line = tuple[str | None, str, str, bool | None]
    Kind = tuple[Header, Line, Body]

__all__ = ["EARLY", "columns", "metadata"]

_PLACES = 50
_ZONE = re.compile(r"\bzone=([0-9]+)")
_NODE = re.compile(r"\bnode=([0-9]+)")
# include/linux/gfp_types.h: these two bits tell the migratetype; since 4.4 they stand side by side.
# In 4.4 all but some movable pages have __GFP_KSWAPD_RECLAIM; before, the bit is of no flag,
# or of a vendor's for movable pages (__GFP_CMA).
_MOVABLE, _RECLAIMABLE, _RECLAIMABLE_BEFORE_4_4 = 0x08, 0x10, 0x80000
_KSWAPD_RECLAIM = 0x2000000
_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")
_NAMES_BEFORE_4_4 = ("Unmovable", "Reclaimable", "Movable", "Reserve", "CMA", "Isolate")


def _is_before_4_6(header: Header) -> bool:
    """Whether it may be: names are printed since 4.6, and tasks, also by other programs, since
    5.11."""
    return header.gfp_flags is None and header.pid is None


def _of_mask(header: Header, old: bool | None) -> str | None:
    """``old``: whether those before 4.6 are before 4.4; None if nothing tells."""
    if not _is_before_4_6(header):
        old = False
    if old and header.gfp_mask & _RECLAIMABLE_BEFORE_4_4:
        return "Reclaimable"
    if header.gfp_mask & _MOVABLE:
        return "Movable"
    if old is None and header.gfp_mask & (_RECLAIMABLE | _RECLAIMABLE_BEFORE_4_4):
        return None
    return "Reclaimable" if header.gfp_mask & _RECLAIMABLE and not old else "Unmovable"


def _has_no_mask(header: Header, line: Line) -> bool:
    """Whether the mask of 0 is one that nothing told, as of a minidump (minidump_text.py), where
    each record has a pfn alone; the kernel itself prints a type, or who it was."""
    said, number, _, _ = line
    return not header.gfp_mask and header.gfp_flags is None and header.pid is None and (
        said is None and not number)


def _numbering(kinds: Sequence[Kind]) -> tuple[str, ...] | None:
    """Before 4.6 the block's type is a number whose meaning changed in 4.4.

    A page not marked Fallback lies in a block of its own type, so movable pages tell which
    numbering it is; else a flag that 4.4 added. None if no page tells.
    """
    for header, (said, number, _, fallback), _ in kinds:
        if (said is None and fallback is False and number.isdigit()
                and header.gfp_mask & _MOVABLE):
            return {"1": _NAMES, "2": _NAMES_BEFORE_4_4}.get(number)
    return _NAMES if any(header.gfp_mask & (_KSWAPD_RECLAIM | _MOVABLE) == _KSWAPD_RECLAIM
                         for header, _, _ in kinds if _is_before_4_6(header)) else None


def _block_type(number: str, numbering: tuple[str, ...] | None) -> str | None:
    if not number.isdigit():
        return number or None
    return numbering[int(number)] if numbering and int(number) < len(numbering) else None


def columns(kinds: Sequence[Kind]) -> dict[str, list[Any]]:
    """For every kind, by the names of `pageowner.model.snapshot.SCHEMA`, what its records say; None
    where they do not."""
    headers = [header for header, _, _ in kinds]
    lines = [line for _, line, _ in kinds]
    bodies = [body for _, _, body in kinds]
    numbering = _numbering(kinds)
    old = None if numbering is None else numbering is _NAMES_BEFORE_4_4
    flags = [said or None for _, _, said, _ in lines]
    unknown = list(map(_has_no_mask, headers, lines))
    return {
        "order": [header.order for header in headers],
        "gfp_mask": [None if no_mask else header.gfp_mask
                     for header, no_mask in zip(headers, unknown, strict=True)],
        "gfp_flags": [header.gfp_flags for header in headers],
        "migratetype": [None if no_mask else said or _of_mask(header, old) for
                        header, (said, _, _, _), no_mask in zip(headers, lines, unknown,
                                                                strict=True)],
        **{column: [body.said(column) for body in bodies] for column in LINES},
        "pid": [body.said("pid") if header.pid is None else header.pid
                for header, _, body in kinds],
        "tgid": [header.tgid for header in headers],
        "comm": [header.comm for header in headers],
        "stack": [body.stack for body in bodies],
        "state": ["early" if body.stack and is_early(body.stack, header.gfp_mask) else "owned"
                  for header, _, body in kinds],
        "block_migratetype": [_block_type(number, numbering) for _, number, _, _ in lines],
        "zone": [found[1] if said and (found := _ZONE.search(said)) else None for said in flags],
        "node": [int(found[1]) if said and (found := _NODE.search(said)) else None
                 for said in flags],
        "flags": flags,
        "handle": [body.handle for body in bodies],
        "notes": [body.notes for body in bodies],
    }


def _places(kinds: Iterable[Kind]) -> dict[str, bool]:
    """Where lines of vendors stood, by their first words; for `page_owner_text`."""
    found = {f"{where}:{word}": True for _, _, body in kinds for word, where in body.places}
    return dict(sorted(found.items())[:_PLACES])


def metadata(source: str, kinds: Sequence[Kind], *, pageblock_order: int | None, damaged: int,
             unknown_lines: int, unterminated: int, clock_ns: int | None, decimal_pfn: bool,
             free_ts: bool, pfn_lines: bool, damage: Iterable[Damage], left_out: int,
             again: int | None) -> Metadata:
    """What is known about a dump as a whole. ``again``: how many records are of a page frame that
    another one is of; None if there may be some."""
    page_size, size_from = told(kinds, pageblock_order)
    found = Metadata(
        source=source, kind="page_owner", page_size=page_size, pageblock_order=pageblock_order,
        counters={"damaged": damaged, "unknown_lines": unknown_lines,
                  "unterminated": unterminated},
        clock_ns=clock_ns,
        dump_format={"decimal_pfn": decimal_pfn, "free_ts": free_ts, "pfn_lines": pfn_lines,
                     **_places(kinds)},
        extra={"page_size_from": size_from,
               "damage": [[place.offset, place.reason] for place in sorted(damage)[:10]]})
    note_left_out(found, left_out, [
        *([f"{left_out:,} stacks of a list left out: they hold pages that the records tell of"]
          if left_out else []),
        *([f"page frames come again{_again(again)}: if these are several dumps in one text, the"
           " pages of all are counted"] if again != 0 else [])])
    return found


def _again(number: int | None) -> str:
    return ", or not in their order" if number is None else f" ({number:,})"
