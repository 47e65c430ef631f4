"""Records of crash and of gdb by columns: `pageowner.sources.other_programs` says what they are.

A part is read so if each of its records has its numbers where the programs print them, and all that
stands around them was there before in a record that was read as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel.limits import PFN_BITS
from pageowner.sources.page_owner_parser import LAST, START
from pageowner.sources.whole_records import Records, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.sources.page_owner_parser import Parser

__all__ = ["crash", "gdb"]

_DIGITS = 18
"""Of a time, which fit 63 bits."""
_HEX = b"0123456789abcdef"
_TRACKED = b"page_owner tracks the page as allocated\n"


class _Kinds:
    """The kinds of one text's records, for one parser, by what stands around their numbers."""

    def __init__(self, undo: Callable[[bytes], bytes], parser: Parser) -> None:
        self.known: dict[tuple[bytes, ...], int] = {}
        self.longer: list[int] = []
        """Of each kind of the parser, by how much its text is longer as the kernel prints it."""
        self.undo, self.parser = undo, parser

    def learn(self, key: tuple[bytes, ...], record: bytes) -> int | None:
        """The kind of a whole record, which is as it stands in the text; None if it is none."""
        text = self.undo(record)
        head = text.lstrip(b"\n")
        if not head.startswith(START) or len(text) - len(head) > 1:
            return None
        kind = kind_of(self.parser, head[len(START):].removesuffix(b"\n"))
        if kind is None:
            return None
        self.known[key] = kind
        self.longer += [0] * (kind + 1 - len(self.longer))
        self.longer[kind] = len(text) - len(record)
        return kind


_Row = tuple[int, bytes, bytes, bytes]
"""Of a record its kind, its page frame and both times, as texts."""


def _columns(kinds: Sequence[int], pfns: list[int], ts: Sequence[bytes], free: Sequence[bytes],
             length: int) -> Records | None:
    """Records of these numbers, of which the times are texts; None if one of them cannot be."""
    if not (b"".join(ts) + b"".join(free)).isdigit() or max(map(len, ts)) > _DIGITS or max(
            map(len, free)) > _DIGITS or max(pfns) >> PFN_BITS:
        return None
    return Records(np.array(kinds, np.uint32), np.array(pfns, np.uint64),
                   np.array(list(map(int, ts)), np.uint64),
                   np.array(list(map(int, free)), np.uint64), length)


def _head(line: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands in front of the times in a first line, and the times. Raises ValueError if it
    does not end so."""
    before, ts, unit, word, free, end = line.rsplit(b" ", 5)
    if unit != b"ns," or word != b"free_ts" or end != b"ns" or before[-4:] != b", ts":
        raise ValueError
    return before, ts, free


def crash(undo: Callable[[bytes], bytes],
          parser: Parser) -> Callable[[bytes, Parser], Records | None]:
    """What takes whole records of crash's ``owner -l``."""
    kinds = _Kinds(undo, parser)

    def take(text: bytes, into: Parser) -> Records | None:
        if into is not parser or not text.startswith(b"PFN ") or not text.endswith(b"\n\n"):
            return None
        records = text[4:-1].split(b"\nPFN ")
        rows: list[_Row] = []
        rest: list[bytes] = []
        known, length = kinds.known, len(text)
        try:
            for record in records:
                first, line, body = record.split(b"\n", 2)
                decimal, _, pfn = first.partition(b"(0x")
                pfn, _, behind = pfn.partition(b") paddr ")
                before, ts, freed = _head(line)
                key = before, body
                if (kind := known.get(key, -1)) < 0:
                    if not body.startswith(b"[alloc]\n") or not body.endswith(b"\n") or (
                            new := kinds.learn(key, b"PFN %s\n" % record)) is None:
                        return None
                    kind = new
                rows.append((kind, pfn, ts, freed))
                rest.append(behind)
                rest.append(decimal)
                length -= len(first) - len(pfn) - 2
            found, pfns, times, free = zip(*rows, strict=True)
            numbers = [int(pfn, 16) for pfn in pfns]
        except ValueError:
            return None
        if not _is_crashs(pfns, rest):
            return None
        return _columns(found, numbers, times, free, length)

    return take


def _is_crashs(pfns: Sequence[bytes], rest: list[bytes]) -> bool:
    """Whether the first lines are such, whose numbers are ``pfns``, and of each, as two items of
    ``rest``, what follows ``paddr`` and the pfn in decimal."""
    words = b" ".join(rest[::2]).split(b" ")
    number = len(pfns)
    return (len(words) == 3 * number and words[1::3].count(b"page_owner") == number
            and all(pfns) and all(rest[1::2]) and all(words[::3]) and all(words[2::3])
            and b"".join(rest[1::2]).isdigit()
            and not b"".join([*pfns, *words[::3], *words[2::3]]).translate(None, _HEX))


def gdb(undo: Callable[[bytes], bytes],
        parser: Parser) -> Callable[[bytes, Parser], Records | None]:
    """What takes whole records of gdb's lx-dump-page-owner."""
    kinds = _Kinds(undo, parser)

    def take(text: bytes, into: Parser) -> Records | None:
        size = len(text)
        text = text.replace(b"\n" + _TRACKED + START, b"\n" + START).removeprefix(_TRACKED)
        if into is not parser or not text.startswith(START) or not text.endswith(b"\n") or (
                size - len(text)) % len(_TRACKED) or LAST in text:
            return None
        rows: list[_Row] = []
        known = kinds.known
        try:
            for record in text[len(START):-1].split(b"\n" + START):
                line, second, body = record.split(b"\n", 2)
                before, ts, freed = _head(line)
                name, _, number = second.partition(b" ")
                pfn, _, flags = number.partition(b", Flags: ")
                key = before, flags, body
                if name != b"PFN:" or not pfn:
                    return None
                if (kind := known.get(key, -1)) < 0:
                    if (new := kinds.learn(key, b"%s%s\n" % (START, record))) is None:
                        return None
                    kind = new
                rows.append((kind, pfn, ts, freed))
            found, pfns, times, free = zip(*rows, strict=True)
            if not b"".join(pfns).isdigit():
                return None
            numbers = list(map(int, pfns))
        except ValueError:
            return None
        longer = sum(map(kinds.longer.__getitem__, found))
        return _columns(found, numbers, times, free, len(text) + longer)

    return take
