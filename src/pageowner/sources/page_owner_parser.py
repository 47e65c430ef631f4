"""Take the text of page_owner apart: bytes in, plain columns out.

The text is cut into records at an empty line followed by ``Page allocated via order ``: 27 bytes,
more than a task's name can hold, so no name can fake the cut. There are three ways to take one
apart, each left to the next for what it cannot do, and none contradicting it:

1. Nearly every record is one of the last few with other numbers. Two comparisons tell, without a
   search for the cut or a look at the stack.
2. A record that looks like a current kernel's takes three splits and three look-ups of texts seen
   before: distinct headers, PFN line tails and stacks are few.
3. Anything else goes through the grammar.

Nothing is lost without being counted. Cut the text before every line that begins with ``Page
allocated via order `` and behind every empty line (but for empty lines in the name of a task):
each piece that is not blank counts once, as a record or as damaged.
"""

from __future__ import annotations

import enum
import re
from array import array
from itertools import repeat
from operator import le

from pageowner.kernel.limits import PFN_BITS
from pageowner.sources import page_owner_grammar as grammar
from pageowner.sources.damage import Damage, count_damage
from pageowner.sources.page_owner_body import parse_body
from pageowner.sources.page_owner_raw import NONE, Raw

__all__ = ["CHUNK", "CUT", "FREED", "LAST", "NONE", "START", "WAIT", "Damage", "End", "Parser",
           "Raw"]

START = b"Page allocated via order "
CUT = b"\n\n" + START
TORN = b"\n" + START
LAST = b"Page last allocated via order "
FREED = b"page_owner tracks the page as freed"
"""What stands above the last owner, `LAST`, of a page that has none
(scripts/gdb/linux/page_owner.py since 6.6)."""
CHUNK = 1 << 20
LONGEST = 1 << 16
"""A record is at most one page of text (print_page_owner in mm/page_owner.c), of 64 KiB at most."""
WAIT = 4 << 20
"""Bytes to hold while waiting for the next cut."""
NUMBERS = 96
"""Bytes that hold the time, the PFN and the block with the words between, and more."""
_BETWEEN = b" \0 "
_PFN_LINE = re.compile(rb"PFN (0x[0-9a-f]{1,12}|\d{1,14})( type \S+)?(?: Block (\d{1,14}))?(.*)\Z")
RECENT = 4
"""Kinds of record to compare with before looking one up: of real dumps, 97 in 100 are one of these
four, 86 the last one."""


class End(enum.Enum):
    """What follows a piece of text."""

    CLOSED = enum.auto()  # an empty line
    TORN = enum.auto()  # the next record, with no empty line between
    OPEN = enum.auto()  # nothing: the text ends behind a whole line
    CUT = enum.auto()  # nothing: the text ends inside a line


class _Known(dict[bytes, int]):
    """Texts of numbers converted before: many pages are in one block."""

    def __missing__(self, text: bytes) -> int:
        number = self[text] = int(text)
        return number


def _behind_numbers(data: bytes, start: int) -> int:
    """Where the seven words from ``start`` on end, all that is a number in a record. Raises
    ValueError if they are not there."""
    piece = data[start:start + NUMBERS]
    *words, rest = piece.split(b" ", 7)
    if len(words) < 7:
        raise ValueError
    return start + len(piece) - len(rest) - 1


class Parser:
    """Takes the text piece by piece, fills a `Raw`."""

    def __init__(self, offset: int = 0) -> None:
        self.raw = Raw(lines=[(None, "", "", None)])
        self.headers: dict[bytes, int] = {}
        self.lines: dict[bytes | tuple[str | None, str, str, bool | None], int] = {}
        self.shapes: dict[tuple[tuple[str | bytes | None, ...], bool], int] = {}
        """Lines, by all of a PFN line but its numbers."""
        self.bodies: dict[bytes | tuple[bytes, bytes], int] = {}
        self.kinds: dict[tuple[int, int, int], int] = {}
        self.migratetypes: list[bytes | None] = []
        """Of each of ``kinds``, as its PFN line says it; None for one that is not a current
        kernel's."""
        self.recent: list[tuple[bytes | tuple[()], bytes, int]] = [((), b"", 0)]
        """The last kinds of record seen, latest first: the text before the numbers, that behind
        them up to and with the cut, the place in ``kinds``."""
        self.carry = b""
        self.offset = offset
        self.skipping = False

    def feed(self, piece: bytes) -> None:
        """The next bytes of the text."""
        self.carry = self.carry + piece if self.carry else piece
        if self.skipping and not self._skip():
            return
        carry = self.carry
        cut = carry.rfind(CUT)
        if cut > 0:
            self._chunk(cut)
        elif len(carry) > WAIT:
            # No cut in megabytes: the empty lines are missing, or this is no dump.
            if (cut := carry.rfind(TORN)) > 0:
                self._chunk(cut, End.TORN)
            elif (cut := carry.rfind(b"\n\n")) > 0:
                self._chunk(cut)
            else:
                if carry.strip():
                    self._damaged(self.offset, "text longer than any record")
                self.skipping = True
                self._skip()

    def _skip(self) -> bool:
        """Drop bytes up to the next place where a piece can begin; False if it is not there yet."""
        found = [at for at in (self.carry.find(b"\n\n", 1), self.carry.find(TORN, 1)) if at > 0]
        # The last bytes may be the first of such a place.
        drop = min(found, default=max(len(self.carry) - len(TORN), 0))
        self.carry = self.carry[drop:]
        self.offset += drop
        self.skipping = not found
        return bool(found)

    def close(self, *, final: bool) -> Raw:
        """No more bytes: the text ends here (``final``), or another part of it goes on at a cut."""
        if self.skipping:
            return self.raw
        end = End.CLOSED
        if final and not self.carry.endswith(b"\n\n"):
            end = End.OPEN if self.carry.endswith(b"\n") else End.CUT
        self._chunk(len(self.carry), end)
        return self.raw

    def _chunk(self, size: int, end: End = End.CLOSED) -> None:
        """Take the first ``size`` bytes of what is held; ``end`` is what follows them."""
        data, offset = self.carry, self.offset
        self.carry = data[size:]
        self.offset += size
        if data.startswith(START, 0, size):
            at = len(START)
        else:
            cut = data.find(CUT, 0, size)
            stray = data[:size if cut < 0 else cut]
            if stray.strip():
                self._span(stray, offset, end if cut < 0 else End.CLOSED, stray=True)
            if cut < 0:
                return
            at = cut + len(CUT)
        if end is End.CLOSED:
            self._records(data, at, size, offset)
            return
        last = data.rfind(CUT, max(at - len(CUT), 0), size)
        if last < 0:
            last = at - len(CUT)
        self._records(data, at, last, offset)
        last += len(CUT)
        self._span(data[last:size], offset + last - len(START), end)

    def _records(self, data: bytes, at: int, stop: int, offset: int) -> None:
        """Closed records: ``at`` is behind the first's `START`, ``stop`` where the last one ends,
        which is a `CUT` or the end of ``data``; ``offset`` is that of ``data`` in the text.

        The numbers of many records are converted together. If one of them is none, all are taken
        once more, one by one.
        """
        while at - len(CUT) < stop:
            begun = at
            numbers: list[bytes] = []
            kinds: list[int] = []
            at = self._quickly(data, at, stop, numbers, kinds)
            if numbers and not self._add_all(numbers, kinds):
                self._slowly(data, begun, at - len(CUT), offset)
            if at - len(CUT) < stop:
                # One that is not like a current kernel's, or the first of its kind.
                at = self._slowly(data, at, min(at + 1, stop), offset, stop)
        if self.raw.free_ts:
            self._fill_free_ts()

    def _quickly(self, data: bytes, at: int, stop: int, numbers: list[bytes],
                 kinds: list[int]) -> int:
        """Records of known texts from ``at`` on: to ``numbers`` the text of each from the time to
        the number of the block, not yet checked, to ``kinds`` what kind it is. Returns where the
        first other record begins."""
        add_numbers, add_kind = numbers.append, kinds.append
        recent = self.recent
        before, behind, same = recent[0]
        wide, width = len(before), 0
        step = wide + len(behind)
        try:
            while at - len(CUT) < stop:
                if data.startswith(before, at):
                    start = at + wide
                    # Most often the numbers are as long as in the record before.
                    if data.startswith(behind, start + width):
                        add_numbers(data[start:start + width])
                        add_kind(same)
                        at += step
                        continue
                    if data.startswith(behind, after := _behind_numbers(data, start)):
                        add_numbers(data[start:after])
                        add_kind(same)
                        width = after - start
                        step = wide + width + len(behind)
                        at += step
                        continue
                for place, (before, behind, same) in enumerate(recent[1:], 1):  # noqa: B007
                    if data.startswith(before, at):
                        wide = len(before)
                        start = at + wide
                        if data.startswith(behind, after := _behind_numbers(data, start)):
                            recent.insert(0, recent.pop(place))
                            break
                else:
                    cut = data.find(CUT, at, stop)
                    following = (stop if cut < 0 else cut) + len(CUT)
                    head, second, body = data[at:following - len(CUT)].split(b"\n", 2)
                    key, _, _ = head.rsplit(b" ", 2)
                    _, _, _, migratetype, _, _, tail = second.split(b" ", 6)
                    same = self.kinds[self.headers[key], self.lines[migratetype + tail],
                                      self.bodies[body]]
                    before, behind = key + b" ", b" " + tail + b"\n" + body + CUT
                    wide = len(before)
                    start = at + wide
                    after = at + len(head) + 1 + len(second) - len(tail) - 1
                    recent.insert(0, (before, behind, same))
                    del recent[RECENT:]
                add_numbers(data[start:after])
                add_kind(same)
                width = after - start
                step = wide + width + len(behind)
                at += step
        except (ValueError, KeyError):
            pass
        return at

    def _add_all(self, numbers: list[bytes], kinds: list[int]) -> bool:
        """Add records as `_quickly` found them; False, and nothing is added, if any of them is not
        as a kernel prints it."""
        count = len(numbers)
        # Each is to have seven words. The eighth, between them, would show up in another column if
        # one had not, and be refused there.
        words = _BETWEEN.join(numbers).split(b" ")
        times, pfns, blocks = words[0::8], words[2::8], words[6::8]
        if (len(words) != 8 * count - 1 or words[7::8].count(b"\0") != count - 1
                or words[1::8].count(b"ns\nPFN") != count or words[3::8].count(b"type") != count
                or words[5::8].count(b"Block") != count
                or words[4::8] != list(map(self.migratetypes.__getitem__, kinds))
                # int() takes signs and underscores too.
                or not (b"".join(times) + b"".join(blocks)).isdigit()
                or not (joined := b"".join(pfns)).isalnum() or joined.count(b"0x") != count
                or max(map(len, times)) > 18 or max(map(len, pfns)) > 14):
            return False
        try:
            ns, first, block = (list(map(int, times)), list(map(int, pfns, repeat(16))),
                                list(map(_Known().__getitem__, blocks)))
        except ValueError:
            return False
        if not all(map(le, block, first)):
            return False
        raw = self.raw
        raw.kind.extend(kinds)
        raw.pfn.extend(first)
        raw.block.extend(block)
        raw.ts.extend(ns)
        return True

    def _slowly(self, data: bytes, at: int, limit: int, offset: int,
                stop: int | None = None) -> int:
        """The records that begin before ``limit``, one by one; returns where the next begins."""
        stop = limit if stop is None else stop
        while at - len(CUT) < limit:
            cut = data.find(CUT, at, stop)
            following = (stop if cut < 0 else cut) + len(CUT)
            record = data[at:following - len(CUT)]
            if not self._known(record):
                self._span(record, offset + at - len(START), End.CLOSED)
            at = following
        return at

    def _fill_free_ts(self) -> None:
        missing = len(self.raw.ts) - len(self.raw.free_ts)
        if self.raw.free_ts and missing:
            self.raw.free_ts.extend(array("Q", [NONE]) * missing)

    def _known(self, record: bytes) -> bool:
        """The short way for what `_records` has none for: free_ts and decimal pfn (5.13 to 6.5 or
        so), and no PFN line. False if not all texts of the record were seen before."""
        try:
            head, rest = record.split(b"\n", 1)
            if not head.endswith(b" ns"):
                return self._timeless(self.headers[head + b"\n"], rest)
            before, free, last = head.rpartition(b", free_ts ")
            key, time, unit = (before if free else last).rsplit(b" ", 2)
            free_time, free_unit = last.split(b" ") if free else (b"0", b"ns")
            pfn = block = b"0"
            line, is_numbered = 0, True
            if rest.startswith(b"PFN "):
                second, rest = rest.split(b"\n", 1)
                if b" Block " in second:
                    _, pfn, of, kind, of_block, block, tail = second.split(b" ", 6)
                    line = self.lines[kind + tail]
                    if of != b"type" or of_block != b"Block" or tail[:5] != b"type ":
                        return False
                else:  # of other programs
                    found = _PFN_LINE.match(second)
                    if found is None or int(found[1], 0) >> PFN_BITS:
                        return False
                    line, pfn, is_numbered = self.shapes[found.group(2, 4), True], found[1], False
            elif rest[:1] != b" " or b"\nPFN " in rest or b" ns\n" in rest[:99]:
                # The first line may end further on, if a name holds the end of another.
                return False
            header, body = self.headers[key], self.bodies[rest]
            decimal = pfn[:2] != b"0x"
            first, number, ns, free_ns = (int(pfn, 10 if decimal else 16), int(block), int(time),
                                          int(free_time))
            if (unit != b"ns" or free_unit != b"ns" or number > first or len(pfn) > 14
                    or len(time) > 18 or len(free_time) > 18
                    or not (pfn + block + time + free_time).isalnum()):
                return False
        except (ValueError, KeyError):
            return False
        self._add(header, line, body, first if line else NONE, number if is_numbered else NONE,
                  ns, free_ns if free else NONE)
        self.raw.decimal_pfn |= bool(line) and decimal
        return True

    def _timeless(self, header: int, rest: bytes) -> bool:
        """The same for kernels before 5.11, which print no times, and for other programs. Raises
        KeyError or ValueError for what was not seen before."""
        line, pfn, block, decimal = 0, NONE, 0, False
        if rest.startswith(b"PFN "):
            second, rest = rest.split(b"\n", 1)
            if not (found := _PFN_LINE.match(second)):
                return False
            line, pfn = self.shapes[found.group(2, 4), found[3] is None], int(found[1], 0)
            block = NONE if found[3] is None else int(found[3])
            decimal = not found[1].startswith(b"0x")
            if pfn >> PFN_BITS or (block > pfn and block != NONE):
                return False
        elif rest[:1] != b" " or b"\nPFN " in rest:
            return False
        self._add(header, line, self.bodies[rest], pfn, block, NONE, NONE)
        self.raw.decimal_pfn |= decimal
        return True

    def _add(self, header: int, line: int, body: int, pfn: int, block: int, ts: int,
             free_ts: int) -> None:
        raw, kind = self.raw, (header, line, body)
        number = self.kinds.get(kind)
        if number is None:
            number = self.kinds[kind] = len(raw.kinds)
            raw.kinds.append(kind)
            said = raw.lines[line][0]
            self.migratetypes.append(None if said is None else said.encode(errors="replace"))
        if free_ts != NONE and not raw.free_ts:
            raw.free_ts.extend(array("Q", [NONE]) * len(raw.ts))
        self._fill_free_ts()
        if raw.free_ts or free_ts != NONE:
            raw.free_ts.append(free_ts)
        raw.kind.append(number)
        raw.pfn.append(pfn)
        raw.block.append(block)
        raw.ts.append(ts)

    def _damaged(self, offset: int, reason: str) -> None:
        count_damage(self.raw, offset, reason)

    def _junk(self, text: bytes, offset: int) -> None:
        """Text that belongs to no record: each piece between empty lines is one damaged, if it is
        not of a list of stacks."""
        for piece in text.split(b"\n\n"):
            if piece.strip() and not self.raw.lists(piece):
                self._damaged(offset, "a page that was freed" if FREED in piece else
                              "not a record, or a record without its start")
            offset += len(piece) + 2

    def _span(self, text: bytes, offset: int, end: End, *, stray: bool = False) -> None:
        """What lies between two cuts: one record, or several if empty lines are missing.

        ``text`` begins behind a `START`, which is at ``offset``; if ``stray``, what precedes its
        first `START` belongs to no record, and ``offset`` is that of the text.
        """
        pieces = text.split(TORN)
        if stray:
            self._junk(pieces[0], offset)
            offset += len(pieces.pop(0)) + 1
        for place, piece in enumerate(pieces, 1):
            self.take_record(piece, offset, end if place == len(pieces) else End.TORN)
            offset += len(TORN) + len(piece)

    def take_record(self, record: bytes, offset: int, end: End) -> None:
        """One record by the grammar, or damage; then what stands between it and the next."""
        try:
            header, key, ts, free_ts, length = grammar.parse_header(record)
        except ValueError as error:
            body, blank, junk = record.partition(b"\n\n")
            self._damaged(offset, str(error))
            length = 0
        else:
            rest = record[length:]
            body, blank, junk = (b"", b"\n", rest[1:]) if rest.startswith(b"\n") else (
                rest.partition(b"\n\n"))
            if blank or end is End.CLOSED:
                self._whole(header, key, ts, free_ts, body, offset)
            elif end is End.OPEN:
                before = len(self.raw.kind)
                self._whole(header, key, ts, free_ts, body.removesuffix(b"\n"), offset)
                self.raw.unterminated += len(self.raw.kind) - before
            else:
                self._damaged(offset, "the record is cut short by the next one"
                              if end is End.TORN else "the text ends inside this record")
        if junk:
            self._junk(junk, offset + len(START) + length + len(body) + len(blank))

    def _whole(self, header: grammar.Header, key: bytes, ts: int | None, free_ts: int | None,
               body: bytes, offset: int) -> None:
        """A record with a good header; ``body`` is what follows it, up to the empty line."""
        if len(body) > LONGEST:
            self._damaged(offset, "a record longer than a page of text")
            return
        line, pfn, block, before = 0, NONE, 0, b""
        where = 0 if body.startswith(b"PFN ") else body.find(b"\nPFN ") + 1
        if where or body.startswith(b"PFN "):
            stop = body.find(b"\n", where)
            stop = len(body) if stop < 0 else stop
            try:
                said = grammar.parse_pfn_line(body[where:stop])
            except ValueError as error:
                self._damaged(offset, str(error))
                return
            pfn, block = said.pfn, NONE if said.block is None else said.block
            line = self._line(said)
            if shape := _PFN_LINE.match(body[where:stop]):
                self.shapes[shape.group(2, 4), shape[3] is None] = line
            if not body.startswith(b"0x", where + 4):
                self.raw.decimal_pfn = True
            before, body = body[:where], body[stop + 1:]
        known = (before, body) if before else body
        found = self.bodies.get(known)
        if found is None:
            found = self.bodies[known] = len(self.raw.bodies)
            self.raw.bodies.append(parse_body(body, before))
        if ts is None:
            # No first line is looked up as this one: a time behind it would not be one.
            key += b"\n"
        number = self.headers.get(key)
        if number is None:
            number = self.headers[key] = len(self.raw.headers)
            self.raw.headers.append(header)
        self._add(number, line, found, pfn, block, NONE if ts is None else ts,
                  NONE if free_ts is None else free_ts)

    def _line(self, said: grammar.PfnLine) -> int:
        entry = (said.migratetype, said.block_type, said.flags, said.fallback)
        number = self.lines.get(entry)
        if number is None:
            number = self.lines[entry] = len(self.raw.lines)
            self.raw.lines.append(entry)
            if said.migratetype is not None:
                fast = f"{said.migratetype}type {said.block_type} Flags {said.flags}"
                if "\\" not in fast:
                    self.lines[fast.encode()] = number
        return number
