"""Give a text back as the kernel printed it, while it is read (alterations.py says from what).

A text that nothing was done to is left alone: its stream is the one that was opened.
"""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pageowner.sources.as_printed import is_as_printed
from pageowner.sources.opening import Opened, Pieces, Shares, after, reading
from pageowner.sources.page_owner_parser import LONGEST, WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.model.metadata import Metadata
    from pageowner.sources.alteration import Alteration
    from pageowner.sources.whole_records import QuickText

__all__ = ["HEAD", "head_of", "note", "restored"]

HEAD = 1 << 16
"""Bytes of a text from which is told what was done to it."""

_PIECE = 1 << 20
_NEAR, _FAR = 1 << 13, 2 * LONGEST
"""Bytes at the end of a piece among which a record begins."""
_ENCODINGS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))


def restored(opened: Opened) -> Opened:
    """``opened`` itself, or the same text without what was done to it; ``undone`` says what.

    What was opened stays open until the caller closes it.
    """
    head, opened = head_of(opened)
    start, encoding = _encoding(head)
    undone = []
    if encoding is not None:
        undone.append("a byte order mark at the start" if encoding == "utf-8" else
                      "encoded in UTF-16")
        head = _decoded(head[start:len(head) // 2 * 2], encoding)
    head = _whole_lines(head)
    if not undone and is_as_printed(head):
        return opened
    from pageowner.sources.alterations import alterations

    found = alterations(head)
    if not found and not undone:
        return opened
    undone += [alteration.name for alteration in found]
    text, quick = _restored(opened, start, encoding, found)
    stream = io.BufferedReader(text, HEAD)
    with reading(opened.name):
        first = stream.peek(len(opened.head))[:max(len(opened.head), 64)]
    sizes = {alteration.page_size for alteration in found} - {None}
    shares = _shares(opened, found[0]) if len(found) == len(undone) == 1 else None
    return Opened(opened.name, stream, None, first, undone=undone,
                  page_size=sizes.pop() if sizes else None, quick=quick, shares=shares)


def _shares(opened: Opened, alteration: Alteration) -> Shares | None:
    """Parts of a plain file to which only this was done; None if it cannot be cut."""
    size, quick = opened.size, alteration.quick
    if size is None or quick is None:
        return None
    file = opened.stream.fileno()

    def part(start: int, stop: int) -> Opened:
        at = start

        def more(wanted: int) -> bytes:
            nonlocal at
            piece = os.pread(file, min(wanted, stop - at), at)
            at += len(piece)
            return piece

        there = io.BufferedReader(Pieces(more), HEAD)
        text, records = _restored(
            Opened(opened.name, cast(BinaryIO, there), None, b""), 0, None, [alteration])
        return Opened(opened.name, cast(BinaryIO, io.BufferedReader(text, HEAD)), None, b"",
                      quick=records)

    def cut(text: bytes) -> int:
        found = quick.cut.search(text)
        return found.end() if found else -1

    return Shares(file, size, cut, part, quick.listed)


def note(meta: Metadata, opened: Opened) -> None:
    """Add to what is known of a source what its text has told once it was read: what was undone,
    and the size of pages that addresses show."""
    if opened.undone:
        meta.extra["undone"] = list(opened.undone)
    if opened.page_size is not None:
        meta.page_size = opened.page_size
        meta.extra["page_size_from"] = "addresses"


def head_of(opened: Opened) -> tuple[bytes, Opened]:
    """The first `HEAD` bytes, and the source with all of them still to be read."""
    with reading(opened.name):
        if opened.size is not None:
            return os.pread(opened.stream.fileno(), HEAD, 0), opened
        head = opened.stream.read(HEAD)
    stream = io.BufferedReader(Pieces(after(head, opened.stream)), HEAD)
    return head, Opened(opened.name, cast(BinaryIO, stream), None, opened.head, opened.file)


def _whole_lines(head: bytes) -> bytes:
    if len(head) < HEAD // 4:  # the whole text, or few lines
        return head
    return head[:head.rfind(b"\n") + 1] or head


def _encoding(head: bytes) -> tuple[int, str | None]:
    """How many bytes of a mark are in front, and the encoding; None for plain bytes."""
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            return len(mark), encoding
    # as written by programs that put no mark in front
    for zero, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 64 and not any(head[zero:64:2]) and all(head[1 - zero:64:2]):
            return 0, encoding
    return 0, None


def _decoded(text: bytes, encoding: str) -> bytes:
    return text if encoding == "utf-8" else text.decode(encoding, "surrogatepass").encode(
        "utf-8", "surrogatepass")


def _restored(opened: Opened, start: int, encoding: str | None,
              undo: list[Alteration]) -> tuple[Pieces, QuickText | None]:
    """The text of a source without what was done to it; the same for who needs no text."""
    pieces = _plain(opened.stream, start, encoding)
    if undo and undo[-1].quick is not None and not any(each.by_record for each in undo[:-1]):
        from pageowner.sources.whole_records import QuickText

        lines = _undone(pieces, undo[:-1])
        quick = QuickText(_cut(lines, _behind_last_record), undo[-1].undo, undo[-1].quick)
        return Pieces(quick.more), quick
    parts = (part for part in _undone(pieces, undo) if part)
    return Pieces(lambda _: next(parts, b"")), None


def _plain(stream: BinaryIO, start: int, encoding: str | None) -> Iterator[bytes]:
    stream.read(start)
    if encoding is None or encoding == "utf-8":
        # The first is short: of it only the beginning may be wanted, or it is read more slowly.
        size = HEAD
        while piece := stream.read(size):
            yield piece
            size = _PIECE
        return
    import codecs

    # A half of a character at the very end is left out: the line that it was in is cut there.
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    while piece := stream.read(_PIECE):
        yield decoder.decode(piece).encode("utf-8", "surrogatepass")


def _undone(pieces: Iterator[bytes], undo: list[Alteration]) -> Iterator[bytes]:
    of_lines = [alteration.undo for alteration in undo if not alteration.by_record]
    of_records = [alteration.undo for alteration in undo if alteration.by_record]

    def lines() -> Iterator[bytes]:
        for part in _cut(pieces, _behind_last_line):
            for undo_it in of_lines:
                part = undo_it(part)
            yield part

    if not of_records:
        yield from lines()
        return
    for part in _cut(lines(), _behind_last_record):
        for undo_it in of_records:
            part = undo_it(part)
        yield part


def _cut(pieces: Iterator[bytes], where: Any) -> Iterator[bytes]:
    """The text in parts that end where ``where`` says that a piece of it may be cut; 0 is nowhere.
    """
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        cut = where(piece)
        if not cut and size + len(piece) < WAIT:
            held.append(piece)
            size += len(piece)
            continue
        cut = cut or len(piece)
        yield b"".join([*held, piece[:cut]])
        held, size = [piece[cut:]], len(piece) - cut
    if rest := b"".join(held):
        yield rest


def _behind_last_line(piece: bytes) -> int:
    return piece.rfind(b"\n") + 1


_FIRST_LINE = (rb"\n(?:PFN \d+\(|Page (?:last )?allocated via order |page_owner tracks |"
               rb"page_owner is not allocated\n|\d+ \d+ \d+\n)")


def _behind_last_record(piece: bytes) -> int:
    """Where its last record begins, in whatever form."""
    begins: list[int] = []
    for far in (_NEAR, _FAR):
        at = max(0, len(piece) - far)
        begins = [at + found.start() for found in re.finditer(_FIRST_LINE, piece[at:])]
        if len(begins) > 2:
            break
    while begins and piece.startswith((b"\nPage", b"\npage_owner is"), begins[-1]) and (
            piece.count(b"\n", begins[-2], begins[-1]) == 1 if len(begins) > 1 else
            b"\n" not in piece[:begins[0]]):
        del begins[-1]  # the line in front is of the same record, or may be
    return begins[-1] + 1 if begins else 0
