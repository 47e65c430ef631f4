"""Read the text of the kernel's page owner, of any version since 3.19, into a snapshot.

The text is cut into records at an empty line followed by ``Page allocated via order ``: 27 bytes,
more than a task's name can hold, so no name can fake the cut. A record that looks like a current
kernel's is taken apart by three splits and three look-ups of texts seen before (distinct headers,
PFN line tails and stacks are few); anything else goes through the grammar. Where a plain file is
large, one process per core reads a range of its bytes.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pageowner.errors import PageownerError
from pageowner.formats import page_owner_grammar as grammar
from pageowner.formats.opening import Opened, open_source, pieces, reading
from pageowner.formats.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.snapshot import Snapshot

__all__ = ["Damage", "Raw", "begin", "parse", "read"]

START = b"Page allocated via order "
CUT = b"\n\n" + START
CHUNK = 2 << 20
LONGEST = 4 << 20
"""A record is at most a page of text; what is longer than this has no record in it."""
PARALLEL = 24 << 20
NONE = (1 << 64) - 1
"""Stands for "not said" in the columns of pfn, ts and free_ts while parsing."""
SHOWN_DAMAGE = 10


class Damage(NamedTuple):
    """One place that could not be read: its byte in the unpacked text, and what is wrong."""

    offset: int
    reason: str


@dataclass
class Raw:
    """Columns of a dump as plain arrays: one item a record, in the dump's order.

    ``header``, ``line`` and ``body`` are places in the lists of distinct texts; line is 0 for a
    record without PFN line.
    """

    headers: list[grammar.Header] = field(default_factory=list)
    lines: list[tuple[str | None, str, str, bool | None]] = field(default_factory=list)
    bodies: list[grammar.Body] = field(default_factory=list)
    header: array[int] = field(default_factory=lambda: array("I"))
    line: array[int] = field(default_factory=lambda: array("I"))
    body: array[int] = field(default_factory=lambda: array("I"))
    pfn: array[int] = field(default_factory=lambda: array("Q"))
    block: array[int] = field(default_factory=lambda: array("Q"))
    ts: array[int] = field(default_factory=lambda: array("Q"))
    free_ts: array[int] = field(default_factory=lambda: array("Q"))
    damaged: int = 0
    damage: list[Damage] = field(default_factory=list)
    unterminated: int = 0
    decimal_pfn: bool = False


class _Parser:
    """Takes chunks of text, fills a `Raw`."""

    def __init__(self) -> None:
        self.raw = Raw(lines=[(None, "", "", None)])
        self.headers: dict[bytes, int] = {}
        self.lines: dict[bytes | tuple[str | None, str, str, bool | None], int] = {}
        self.bodies: dict[bytes, int] = {}

    def chunk(self, data: bytes, offset: int, *, final: bool) -> None:
        """Records of ``data``, which starts at a cut or at the start of the text, at ``offset``."""
        if data.startswith(START):
            data = b"\n\n" + data
            offset -= 2
        last = b""
        if final:
            data, last = self._closing(data)
        records = data.split(CUT)
        if records[0].strip():
            self._junk(records[0], offset, whole=False)
        at = -1
        raw, headers, lines, bodies = self.raw, self.headers, self.lines, self.bodies
        for index in range(1, len(records)):
            record = records[index]
            try:
                head, second, rest = record.split(b"\n", 2)
                key, time, unit = head.rsplit(b" ", 2)
                word, pfn, _, kind, _, block, tail = second.split(b" ", 6)
                if word != b"PFN" or unit != b"ns" or not time.isdigit() or pfn[:2] != b"0x":
                    raise ValueError
                row = (headers[key], lines[kind + tail], bodies[rest], int(pfn, 16), int(block),
                       int(time))
            except (ValueError, KeyError):
                if at < 0:
                    at, place = 1, offset + len(records[0]) + 2
                while at < index:
                    place += len(records[at]) + len(CUT)
                    at += 1
                self._record(record, place)
                continue
            raw.header.append(row[0])
            raw.line.append(row[1])
            raw.body.append(row[2])
            raw.pfn.append(row[3])
            raw.block.append(row[4])
            raw.ts.append(row[5])
            raw.free_ts.append(NONE)
        if last:
            self._last(last, offset + len(data))

    def _closing(self, data: bytes) -> tuple[bytes, bytes]:
        """Split off the last record if no empty line closes it, or it has none of its lines whole.

        A name may end in newlines, so only what follows a whole first line counts.
        """
        start = data.rfind(CUT)
        if data.endswith(b"\n\n"):
            stripped = data.rstrip(b"\n")
            if len(stripped) > start + len(CUT):
                return stripped, b""
        if start < 0:
            return data, b""
        return data[:start], data[start:]

    def _last(self, text: bytes, offset: int) -> None:
        """The last record of the text, which no empty line closes: kept if its lines are whole."""
        if not text.endswith(b"\n"):
            self._damaged(offset + 2, "the text ends inside this record")
            return
        before = len(self.raw.header)
        self._record(text[len(CUT):-1], offset + 2)
        self.raw.unterminated += len(self.raw.header) - before

    def _damaged(self, offset: int, reason: str) -> None:
        self.raw.damaged += 1
        if len(self.raw.damage) < SHOWN_DAMAGE:
            self.raw.damage.append(Damage(offset, reason))

    def _junk(self, text: bytes, offset: int, *, whole: bool) -> None:
        """Text that belongs to no record: each block between empty lines counts as one damaged."""
        for block in text.split(b"\n\n"):
            if block.strip():
                self._damaged(offset, "text that is not a record" if whole else
                              "the start of a record is missing, or this is none")
            offset += len(block) + 2

    def _record(self, record: bytes, offset: int) -> None:
        """A record by the grammar, or damage; ``record`` starts behind ``order ``."""
        while True:
            try:
                header, key, ts, free_ts, end = grammar.parse_header(record)
            except ValueError as error:
                torn = record.find(b"\n" + START)
                if torn < 0:
                    self._damaged(offset, str(error))
                    return
                self._damaged(offset, "the record is cut short by the next one")
            else:
                rest = record[end:]
                torn = rest.find(b"\n" + START)
                if rest.startswith(START):
                    torn = -1
                    self._damaged(offset, "the record is cut short by the next one")
                    record = rest[len(START):]
                    offset += end
                    continue
                if torn < 0:
                    break
                closed = rest.rfind(b"\n\n", 0, torn)
                if closed >= 0:
                    self._whole(header, key, ts, free_ts, rest[:closed], offset, end)
                else:
                    self._damaged(offset, "the record is cut short by the next one")
                torn += end
            record = record[torn + 1 + len(START):]
            offset += torn + 1
        self._whole(header, key, ts, free_ts, rest, offset, end)

    def _whole(self, header: grammar.Header, key: bytes, ts: int | None, free_ts: int | None,
               rest: bytes, offset: int, end: int) -> None:
        rest = rest.lstrip(b"\n") if rest.startswith(b"\n\n") else rest
        body, blank, junk = rest.partition(b"\n\n")
        line, pfn, block = 0, NONE, 0
        where = 0 if body.startswith(b"PFN ") else body.find(b"\nPFN ") + 1
        if where or body.startswith(b"PFN "):
            stop = body.find(b"\n", where)
            stop = len(body) if stop < 0 else stop
            try:
                said = grammar.parse_pfn_line(body[where:stop])
            except ValueError as error:
                self._damaged(offset, str(error))
                return
            pfn, block = said.pfn, said.block
            line = self._line(said)
            if not body.startswith(b"0x", where + 4):
                self.raw.decimal_pfn = True
            body = body[:where] + body[stop + 1:]
        found = self.bodies.get(body)
        if found is None:
            found = self.bodies[body] = len(self.raw.bodies)
            self.raw.bodies.append(grammar.parse_body(body))
        number = self.headers.get(key)
        if number is None:
            number = self.headers[key] = len(self.raw.headers)
            self.raw.headers.append(header)
        raw = self.raw
        raw.header.append(number)
        raw.line.append(line)
        raw.body.append(found)
        raw.pfn.append(pfn)
        raw.block.append(block)
        raw.ts.append(NONE if ts is None else ts)
        raw.free_ts.append(NONE if free_ts is None else free_ts)
        if blank and junk.strip():
            self._junk(junk, offset + len(START) + end + len(body), whole=True)

    def _line(self, said: grammar.PfnLine) -> int:
        entry = (said.migratetype, said.block_type, said.flags, said.fallback)
        number = self.lines.get(entry)
        if number is None:
            number = self.lines[entry] = len(self.raw.lines)
            self.raw.lines.append(entry)
            if said.migratetype is not None and "\\" not in said.flags:
                fast = f"{said.migratetype}type {said.block_type} Flags {said.flags}"
                self.lines[fast.encode()] = number
        return number


def _chunks(stream: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Cut a stream of pieces at the last record start of each: (chunk, its offset)."""
    carry = b""
    offset = 0
    for piece in stream:
        carry = carry + piece if carry else piece
        cut = carry.rfind(CUT)
        if cut <= 0:
            if len(carry) <= LONGEST:
                continue
            # No record is that long: hand it over as it is, but keep what could begin one.
            cut = max(carry.rfind(b"\n", 0, len(carry) - len(CUT)) + 1, len(carry) // 2)
        yield carry[:cut], offset
        offset += cut
        carry = carry[cut:]
    yield carry, offset


def _record_start(file: BinaryIO, offset: int) -> int | None:
    """The first cut at or behind ``offset``; None if the next megabytes have none."""
    file.seek(offset)
    found = file.read(LONGEST).find(CUT)
    return None if found < 0 else offset + found


def _edges(path: str, size: int) -> list[int]:
    """Where to cut a file so that every process gets whole records and like shares of bytes."""
    number = max(1, min(len(os.sched_getaffinity(0)), 8, size // (PARALLEL // 2)))
    with open(path, "rb", buffering=0) as file:
        inner = [_record_start(file, size * i // number) for i in range(1, number)]
    return sorted({0, size} | {edge for edge in inner if edge is not None})


def _bytes_of(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop and (piece := file.read(min(CHUNK, stop - start))):
        start += len(piece)
        yield piece


def _parse_range(path: str, start: int, stop: int, size: int) -> Raw:
    with open(path, "rb", buffering=0) as file:
        return _parse_pieces(_bytes_of(file, start, stop), start, final=stop == size)


def _parse_pieces(stream: Iterator[bytes], start: int, *, final: bool) -> Raw:
    parser = _Parser()
    waiting: tuple[bytes, int] | None = None
    for chunk in _chunks(stream):
        if waiting:
            parser.chunk(waiting[0], start + waiting[1], final=False)
        waiting = chunk
    if waiting:
        parser.chunk(waiting[0], start + waiting[1], final=final)
    return parser.raw


def _parse_stream(opened: Opened) -> Raw:
    stream = pieces(opened.stream, opened.name, CHUNK)
    if _first_line_is_crlf(opened):
        stream = _without_cr(stream)
    return _parse_pieces(stream, 0, final=True)


def _first_line_is_crlf(opened: Opened) -> bool:
    peeked: bytes = opened.stream.peek(4096)[:4096]  # type: ignore[attr-defined]
    return peeked.partition(b"\n")[0].endswith(b"\r")


def _without_cr(stream: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in stream:
        piece = held + piece
        held = b"\r" if piece.endswith(b"\r") else b""
        yield (piece[:-1] if held else piece).replace(b"\r\n", b"\n")
    if held:
        yield held


def begin(opened: Opened) -> Callable[[], list[Raw]]:
    """Start reading; the returned function waits and gives the parts in the text's order.

    Until it is called, other processes already work on a large plain file, so that the caller
    can import what it needs meanwhile.
    """
    size = opened.size
    if size is None or size < PARALLEL or _first_line_is_crlf(opened):
        return lambda: [_parse_stream(opened)]
    path = os.path.realpath(opened.name)
    with reading(opened.name):
        edges = _edges(path, size)
    workers = Workers([
        lambda start=start, stop=stop: _parse_range(path, start, stop, size)  # type: ignore[misc]
        for start, stop in pairwise(edges)])

    def finish() -> list[Raw]:
        with reading(opened.name):
            return workers.results()

    return finish


def parse(source: str | os.PathLike[str]) -> list[Raw]:
    """All records of a dump as plain columns, without Arrow; one part per process used.

    Raises PageownerError if the source cannot be read.
    """
    return begin(open_source(source))()


def read(source: str | os.PathLike[str] | Opened) -> Snapshot:
    """A dump as a `Snapshot`. Damaged records are skipped and counted in ``meta.counters``.

    Raises PageownerError if the source cannot be read or holds no record at all.
    """
    opened = source if isinstance(source, Opened) else open_source(source)
    finish = begin(opened)
    # Imported while the workers read.
    from pageowner.formats.page_owner_columns import to_snapshot

    parts = finish()
    if not any(part.header for part in parts):
        raise PageownerError(
            f"{opened.name}: no record of page_owner in it"
            + (f" ({parts[0].damage[0].reason} at byte {parts[0].damage[0].offset})"
               if parts[0].damage else " (it is empty)")
            + "; is it the text of /sys/kernel/debug/page_owner?")
    return to_snapshot(parts, opened.name)
