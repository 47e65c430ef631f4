"""Lines of /proc/allocinfo as columns: those that are just as the kernel prints them.

lib/alloc_tag.c prints a line with ``%12lli %8llu `` in front. Where both numbers fit, they are in
bytes 0 to 11 and 13 to 20, and what follows is one of the few thousand places of a kernel that
allocate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pageowner.kernel.limits import PFN_BITS
from pageowner.sources.allocinfo_lines import NO_LINE, parse_place
from pageowner.sources.digits import BLANKS, bytes_at, is_all_digits, is_number, number_of

if TYPE_CHECKING:
    from pageowner.sources.allocinfo_lines import Lines
    from pageowner.sources.page_owner_body import Body

__all__ = ["PIECE", "Places", "take"]

_PLACE = 22
PIECE = 4 << 20
"""Bytes of lines that are read together."""


class _FixedLines(NamedTuple):
    """The lines of a text, an item each: byte ``start``, and whether it ``is_fixed``. Where it is:
    ``size`` and ``calls``, 0 elsewhere. ``place``, of each, is an item of ``places``."""

    start: np.ndarray
    is_fixed: np.ndarray
    size: np.ndarray
    calls: np.ndarray
    place: np.ndarray
    places: list[bytes]


def _fixed_lines(text: bytes) -> _FixedLines:
    """The lines of a text that ends with a line end; less than 2 GiB of it."""
    array = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(array == ord("\n")) + 1
    start = np.concatenate([ends[:1] * 0, ends[:-1]])
    rows = np.flatnonzero(ends - start > _PLACE)
    at = start[rows]
    first, calls = bytes_at(text, at, 4).astype(np.uint64), bytes_at(text, at + 13, 8)
    last = bytes_at(text, at + 4, 8)
    blanks = np.uint64(BLANKS & 0xffffffff)
    first = first << np.uint64(32) | blanks
    is_fixed = ((array[at + 12] == ord(" ")) & (array[at + 21] == ord(" "))
                & is_number(last) & is_number(calls) & (
                    (first == np.uint64(BLANKS)) | (is_number(first) & is_all_digits(last))))
    whole = pa.Array.from_buffers(
        pa.binary(), len(start),
        [None, pa.py_buffer(np.append(start, len(text)).astype(np.int32)), pa.py_buffer(text)])
    # Without an end, pyarrow 26 fails.
    places = pc.binary_slice(whole, _PLACE, len(text)).dictionary_encode()
    lines = len(start)
    found = _FixedLines(start, np.zeros(lines, bool), np.zeros(lines, np.int64),
                        np.zeros(lines, np.int64), places.indices.to_numpy(),
                        places.dictionary.to_pylist())
    size = number_of(first) * np.int64(10**8) + number_of(last)
    for column, values in ((found.is_fixed, is_fixed), (found.size, size),
                           (found.calls, number_of(calls))):
        column[rows] = np.where(is_fixed, values, 0)
    return found


def take(text: bytes, lines: Lines, base: int = 0, places: Places | None = None) -> int:
    """Read the whole lines of a text, which stands at the byte ``base`` of all; returns the byte of
    it behind them. ``places``: those of the text in front.

    Lines of another form are left to ``lines``, in their place, so that all is as if it had taken
    all of them.
    """
    places, offset = places or Places(), 0
    while lines.second is None and (end := text.rfind(b"\n", offset, offset + PIECE) + 1):
        piece = text[offset:end]
        found = _fixed_lines(piece)
        place = places.known(found.places)[found.place]
        others = np.flatnonzero(~(found.is_fixed & places.is_one[place])).tolist()
        edges = np.append(found.start, len(piece))
        if 8 * len(others) > len(place):  # of another form, such as a sorted one
            lines.take(piece[:-1], base + offset)
            others, place = [], place[:0]
        begin = 0
        for other in (*others, len(place)):
            if lines.second is not None:
                break
            rows = slice(begin, other)
            if begin < other and not _put(lines, places, place[rows], found.size[rows],
                                          found.calls[rows]):
                lines.take(piece[edges[begin]:edges[other] - 1],
                           base + offset + int(edges[begin]))
            if other < len(place):
                lines.take(piece[edges[other]:edges[other + 1] - 1],
                           base + offset + int(edges[other]))
            begin = other + 1
        offset = end
    return offset


def _put(lines: Lines, places: Places, place: np.ndarray, size: np.ndarray,
         calls: np.ndarray) -> bool:
    """Add lines that follow each other; False, and nothing is added, if their sizes cannot be."""
    total = int(size.sum())  # of less than 2**23 numbers below 10**12, as none is in one byte
    if lines.total + total >> PFN_BITS:
        return False
    lines.total += total
    lines.whole += len(place)
    lines.inaccurate += int(places.is_inaccurate[place].sum())
    held = (size | calls) != 0
    lines.put_all(NO_LINE, places.bodies_of(place[held], lines.bodies), calls[held], size[held])
    return True


class Places:
    """The places that were seen: which of them are one, and where in a list their bodies are."""

    def __init__(self) -> None:
        self.is_one, self.is_inaccurate = np.zeros(0, bool), np.zeros(0, bool)
        self._known: dict[bytes, int] = {}
        self._bodies: list[Body | None] = []
        self._body = np.zeros(0, np.int64)

    def known(self, texts: list[bytes]) -> np.ndarray:
        """The number of each of these places."""
        numbers = np.array([self._known.setdefault(text, len(self._known)) for text in texts],
                           np.int64)
        new = [parse_place(text) for text in list(self._known)[len(self._bodies):]]
        self._bodies += new
        self.is_one = np.append(self.is_one, np.array([body is not None for body in new], bool))
        self.is_inaccurate = np.append(self.is_inaccurate, np.array(
            [body is not None and body.notes is not None for body in new], bool))
        self._body = np.append(self._body, np.full(len(new), -1))
        return numbers

    def bodies_of(self, numbers: np.ndarray, bodies: list[Body]) -> np.ndarray:
        """Where in ``bodies`` those of these places are; new ones are added, in their order."""
        for number in dict.fromkeys(numbers[self._body[numbers] < 0].tolist()):
            body = self._bodies[number]
            assert body is not None
            self._body[number] = len(bodies)
            bodies.append(body)
        found: np.ndarray = self._body[numbers]
        return found
