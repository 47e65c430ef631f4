"""A minidump's records by columns: `pageowner.sources.minidump` says what they are.

A part is read so if all of its lines are records of three numbers, or addresses where a record says
that they follow, and a stack is listed before its handle is used. Anything else is left to text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel.limits import PFN_BITS
from pageowner.sources.digits import numbers_between
from pageowner.sources.minidump_text import are_addresses, record_of, stack_of
from pageowner.sources.page_owner_parser import START
from pageowner.sources.whole_records import Records, kind_of

if TYPE_CHECKING:
    from pageowner.sources.minidump_text import Stacks
    from pageowner.sources.page_owner_parser import Parser

__all__ = ["Columns"]

_HANDLES = 1 << 26
"""From which handle on no table is kept; no page of it is there before it is used."""
_WIDEST = 16


class Columns:
    """The records of one text, for one parser."""

    def __init__(self, stacks: Stacks, parser: Parser) -> None:
        self._stacks, self._parser = stacks, parser
        self._place = np.zeros(_HANDLES, np.uint32)
        """One more than the kind of each handle; 0 of one not seen yet."""
        self._lengths = np.zeros(0, np.int64)
        """Of each kind, that of its text as the kernel prints it, without the pfn."""

    def take(self, text: bytes, parser: Parser) -> Records | None:
        """The records of a part that ends with a line end; None if they are not all just so."""
        if parser is not self._parser or not text.endswith(b"\n"):
            return None
        found = _rows(text)
        if found is None:
            return None
        pfn, handle, width, listed = found
        self._forget_changed()
        if int(handle.max()) >= _HANDLES or (pfn >> np.uint64(PFN_BITS)).any():
            return None
        if not self._list(handle, listed):
            return None
        place = self._place[handle]
        if not place.all():
            for number in dict.fromkeys(handle[place == 0].tolist()):
                self._know(number)
            place = self._place[handle]
        kind = place - np.uint32(1)
        return Records(kind, pfn, None, None, int(width.sum() + self._lengths[kind].sum()))

    def _list(self, handle: np.ndarray, listed: list[tuple[int, bytes]]) -> bool:
        """Keep the stacks that are listed in a part; False, and nothing is kept, if one was another
        before, or its handle was used."""
        new: dict[int, list[bytes]] = {}
        for row, lines in listed:
            frames, number = lines.split(b"\n"), int(handle[row])
            if not are_addresses(frames):
                return False
            if number in new:
                if new[number] != frames:
                    return False
            elif b"%d" % number not in self._stacks.known:
                if (handle[:row] == number).any():
                    return False
                new[number] = frames
            elif stack_of(frames) != self._stacks.of(b"%d" % number):
                return False
        for number, frames in new.items():
            self._stacks.put(b"%d" % number, frames)
        self._forget_changed()
        return True

    def _forget_changed(self) -> None:
        """Of handles that are listed otherwise by now, also in parts that were read as text."""
        for handle in self._stacks.changed:
            if (number := int(handle)) < _HANDLES:
                self._place[number] = 0
        self._stacks.changed.clear()

    def _know(self, handle: int) -> None:
        record = record_of(b"0", self._stacks.of(b"%d" % handle))
        kind = kind_of(self._parser, record[len(START):-2])
        assert kind is not None
        self._place[handle] = kind + 1
        if kind >= len(self._lengths):
            self._lengths = np.append(self._lengths, np.zeros(kind + 1024, np.int64))
        self._lengths[kind] = len(record) - 1


def _rows(text: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[int, bytes]]] | None:
    """Of each record the pfn, the handle and the width of the pfn; the lines that follow records,
    with their rows. None if lines are of another form."""
    text = b" " * _WIDEST + text
    array = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(array[_WIDEST:] <= ord(" ")) + _WIDEST
    is_line = array[ends] == ord("\n")
    if not (is_line | (array[ends] == ord(" "))).all():
        return None
    lines = np.flatnonzero(is_line)
    words = np.diff(lines, prepend=-1)
    rows = np.flatnonzero(words == 3)
    if not len(rows) or rows[0] or ((words != 1) & (words != 3)).any():
        return None
    last = lines[rows]
    begin = np.concatenate([[_WIDEST], ends[lines[:-1]] + 1])[rows]
    columns = []
    for place, most in ((2, 13), (1, 10), (0, 2)):
        end = ends[last - place]
        number = numbers_between(text, array, begin, end, most)
        if number is None:
            return None
        if place == 2:
            width = end - begin
        columns.append(number)
        begin = end + 1
    pfn, handle, deep = columns
    if not (rows + deep.astype(np.int64) + 1 == np.append(rows[1:], len(lines))).all():
        return None
    listed = [(row, text[ends[lines[rows[row]]] + 1:ends[lines[rows[row] + int(deep[row])]]])
              for row in np.flatnonzero(deep).tolist()]
    return pfn, handle, width, listed
