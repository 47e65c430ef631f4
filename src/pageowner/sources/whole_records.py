"""Give whole records of other programs to a parser by columns, not as text.

Most records of a text are of a kind that was there before, with other numbers. The first of each
kind is read as the text that the kernel would have printed (`Alteration.undo`), so that it means
what it means there. What is not just so, is given to the parser as that text, in its place.
"""

from __future__ import annotations

from array import array
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from pageowner.sources.page_owner_parser import CUT, NONE, START, End

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

    import numpy as np

    from pageowner.sources.page_owner_parser import Parser

__all__ = ["Quick", "QuickText", "Records", "kind_of"]


class Records(NamedTuple):
    """Records of known kinds: columns of equal length, uint32 for ``kind`` and uint64 for the
    others. ``length``: that of their text as the kernel prints it."""

    kind: np.ndarray
    pfn: np.ndarray
    ts: np.ndarray | None
    free_ts: np.ndarray | None
    length: int


class Quick(NamedTuple):
    """A form that is read by columns. ``take`` gives the records of a part, which ends where a
    record does, or None if they are not all just so; ``lead``: what stands in front of a record's
    first line once the form is undone; ``begins``: whether a part begins with the first lines of a
    whole record, without which the one in front may be read as cut short. ``cut``: what stands in
    front of a record, of which text in front tells nothing. ``listed``: the stacks that were listed
    by handle so far, as the kernel prints them."""

    take: Callable[[bytes, Parser], Records | None]
    lead: bytes
    begins: Callable[[bytes], bool]
    cut: re.Pattern[bytes]
    listed: Callable[[], dict[bytes, bytes]] = dict


def kind_of(parser: Parser, record: bytes) -> int | None:
    """Which of the parser's kinds a record is, of which the text behind its `START` is given; None
    if it is no whole record of an order, a time and a pfn that can be."""
    raw = parser.raw
    before = raw.damaged, list(raw.damage), raw.names, raw.left_out, len(raw.kind)
    parser.take_record(record, 0, End.CLOSED)
    after = raw.damaged, raw.damage, raw.names, raw.left_out, len(raw.kind) - 1
    found = raw.kind[-1] if after == before and raw.pfn[-1] != NONE else None
    raw.damaged, raw.damage, raw.names, raw.left_out, number = before
    for column in (raw.kind, raw.pfn, raw.block, raw.ts, raw.free_ts):
        del column[number:]
    return found


class QuickText:
    """The parts of a text of such a form, each of which ends where a record does: one after the
    other as text (`more`), or from one on to a parser (`feed`)."""

    def __init__(self, parts: Iterator[bytes], undo: Callable[[bytes], bytes],
                 quick: Quick) -> None:
        self._parts, self._undo, self._quick = parts, undo, quick
        self._next = b""
        self._is_feeding = False

    def more(self, _: int) -> bytes:
        """For `pageowner.sources.opening.Pieces`: the next part, undone; nothing while parts are
        given to a parser."""
        if self._is_feeding:
            return b""
        while part := self._following():
            if text := self._undo(part):
                return text
        return b""

    def is_at_a_cut(self, parser: Parser) -> bool:
        """Whether what was fed ends where a record does that another one follows; nothing is held
        then."""
        return _at_a_cut(parser, self._quick.lead)

    def _following(self) -> bytes:
        part, self._next = self._next or next(self._parts, b""), b""
        return part

    def feed(self, parser: Parser, begun: Callable[[], bytes]) -> Iterator[None]:
        """Give all parts to a parser, a part at a time, up to one whose lines end in another way:
        that is left to `more`. ``begun`` gives the text that `more` gave already."""
        self._is_feeding = True
        try:
            parser.feed(begun())
            while part := self._following():
                self._next = next(self._parts, b"")
                if b"\r" in part:
                    self._parts, self._next = chain([self._next], self._parts), part
                    return
                # The last record may be cut: it is read as text.
                take, lead, begins = self._quick[:3]
                records = take(part, parser) if self._next and begins(part) and begins(
                    self._next) and _at_a_cut(parser, lead) else None
                if records is None:
                    parser.feed(self._undo(part))
                else:
                    _add(parser, records)
                yield
        finally:
            self._is_feeding = False


def _at_a_cut(parser: Parser, lead: bytes) -> bool:
    """Whether what was fed ends where a record does that another one follows; nothing is held then.
    """
    text = parser.carry + lead + START
    if not parser.carry:
        return not parser.skipping
    if not text.endswith(CUT) or parser.skipping:
        return False
    parser.feed(lead + START)
    assert parser.carry == CUT
    parser.offset += len(CUT) - len(lead + START)
    parser.carry = b""
    return True


def _add(parser: Parser, records: Records) -> None:
    raw, number = parser.raw, len(records.kind)
    if records.free_ts is not None and not raw.free_ts:
        raw.free_ts.extend(array("Q", [NONE]) * len(raw.ts))
    raw.kind.frombytes(records.kind.tobytes())
    raw.pfn.frombytes(records.pfn.tobytes())
    nothing = b"\xff" * (8 * number)
    raw.block.frombytes(nothing)
    raw.ts.frombytes(nothing if records.ts is None else records.ts.tobytes())
    if records.free_ts is not None:
        raw.free_ts.frombytes(records.free_ts.tobytes())
    elif raw.free_ts:
        raw.free_ts.frombytes(nothing)
    raw.by_columns = True
    parser.offset += records.length
