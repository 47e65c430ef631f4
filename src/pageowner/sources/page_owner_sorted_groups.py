"""Groups of page_owner_sort's output, one by one: `pageowner.sources.page_owner_sorted` says what
they look like."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from pageowner.kernel.limits import HIGHEST_ORDER, PFN_BITS, TIME_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources.damage import SHOWN_DAMAGE, Damage
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.page_owner_body import Body, parse_body
from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

__all__ = ["RECORD_BEGINS", "TITLE", "Share", "SortedGroups"]

# No name of a task, of 15 bytes, can be one of these.
TITLE = re.compile(rb"(\d{1,19}) times(?:, (\d{1,19}) pages|(?=:\s?Page allocated via order ))")
# What a group is of: ", PID 1, TGID 1, task_comm_name: init, module: ext4 (RELEASED), allocated by
# SLAB VMALLOC :". A name may hold anything: the longest one that leaves a well-formed rest is it.
_BY = rb"(?:, allocat(?:ed|or) by (?:(?:CMA|SLAB|VMALLOC|OTHERS) )*)?"
_FREED = rb"(?: \((?:UN)?RELEASED\))?"
_OF = re.compile(
    rb"(?:, PID (-?\d{1,10}))?(?:, TGID (-?\d{1,10}))?"
    rb"(?:, task_comm_name: (.{0,15}|[^\n]{0,63}))?(?:, module: [^\n:]*)?"
    rb"(?:" + _FREED + _BY + rb"|" + _BY + _FREED + rb")"
    rb"(?::(?:\n|\Z| (?=Page allocated)))", re.DOTALL)
RECORD_BEGINS = b"\n" + START
_PLAIN = (b":", b", allocated by OTHERS :")
_RECORD = re.compile(
    rb"Page allocated via order (\d{1,3})(?:, mask (0x[0-9a-f]{1,16})(?:\(([^()\n]*)\))?)?"
    rb"(?:, pid (-?\d{1,10}))?(?:(?:, tgid (-?\d{1,10}))? \((.{0,15}|[^\n]{0,63})\))?"
    rb"(?:, ts *(\d{0,20}) *ns)?(?:, free_ts *\d{0,20} *ns)?,? *(?:\n|\Z)", re.DOTALL)
_QUICK_TITLE = re.compile(rb"(\d{1,15}) times, (\d{1,15}) pages, allocat(?:ed|or) by"
                          rb" (?:(?:CMA|SLAB|VMALLOC|OTHERS) )+:\Z")
_QUICK_FRONT = re.compile(rb"Page allocated via order \d{1,3}, mask 0x[0-9a-f]{1,16}"
                          rb"(?:\([^()\n]*\))?\Z")
_NAME = 16
_MANY = 1 << 16
"""Titles, and names, that are kept."""
_OLD_ADDRESS = re.compile(rb"^ ?\[0x[0-9a-f]{8,16}\] +", re.MULTILINE)


class Share(NamedTuple):
    """The groups of a part of a text, as columns for another process: ``lines`` by what they say,
    and the ``texts`` of the ``bodies``."""

    columns: tuple[bytes, ...]
    lines: list[tuple[object, ...]]
    texts: list[bytes]
    bodies: list[Body]
    total: int
    damaged: int
    damage: list[Damage]
    unterminated: bool


class SortedGroups(Groups):
    """Takes groups one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._bodies: dict[bytes, int] = {}
        self._known: dict[bytes, Line] = {}
        """First lines without their times."""
        self._quick_lines: dict[bytes, tuple[int, int]] = {}
        """First lines in front of their times: the place in ``lines``, and the order."""
        self._quick_bodies: dict[bytes, int] = {}
        self._titles: dict[bytes, tuple[int, int]] = {}
        self._names: dict[bytes, str] = {}
        self._fronts: dict[bytes, tuple[int, int | None, str | None]] = {}
        """First lines in front of the task: the order and the mask."""
        self.total = 0

    def take_known(self, pieces: Sequence[bytes], start: int) -> int:
        """The same as `add` of groups as the tool prints most of them, from the place ``start`` on:
        their stacks and what stands around numbers and names was there before. Returns the place of
        the first one that is no such group."""
        rows: list[tuple[int, int, int, int, int, int]] = []
        lines, bodies, titles = self._quick_lines, self._quick_bodies, self._titles
        total, place = self.total, start
        for place in range(start, len(pieces)):
            parts = pieces[place].split(b"\n", 2)
            if len(parts) < 3 or (number := bodies.get(parts[2])) is None:
                break
            title, head, _ = parts
            key, _, when = head.rpartition(b", ts ")
            line = lines.get(key) or self._quick_line(key)
            amount = titles.get(title) or self._quick_title(title)
            if line is None or amount is None or (when != b" ns" and not (
                    when[-3:] == b" ns" and when[:-3].isdigit() and len(when) <= 20)):
                break
            blocks, pages = amount
            if total + pages >> PFN_BITS:
                break
            total += pages
            rows.append((line[0], number, blocks, pages,
                         line[1] if blocks << line[1] == pages else -1, int(when[:-3] or 0)))
        else:
            place = max(start, len(pieces))
        if rows:
            self.total = total
            for column, values in zip((self.line, self.body, self.blocks, self.pages, self.order,
                                       self.ts), zip(*rows, strict=True), strict=True):
                column.extend(values)
        return place

    def _quick_title(self, title: bytes) -> tuple[int, int] | None:
        """The blocks and pages of a title that tells no more than who allocated them."""
        found = _QUICK_TITLE.match(title)
        if found is None or not 0 < int(found[1]) <= int(found[2]):
            return None
        if len(self._titles) >= _MANY:
            self._titles.clear()
        amount = self._titles[title] = int(found[1]), int(found[2])
        return amount

    def _quick_line(self, key: bytes) -> tuple[int, int] | None:
        """The place in ``lines``, and the order, of a first line in front of its time, if all but
        its task was there before."""
        front, _, task = key.partition(b", pid ")
        pid, _, task = task.partition(b", tgid ")
        tgid, _, name = task.partition(b" (")
        said = self._fronts.get(front)
        comm = self._names.get(name) or self._name(name)
        if said is None or comm is None or not (pid.isdigit() and tgid.isdigit()) or (
                len(pid) > 10 or len(tgid) > 10):
            return None
        numbers = int(pid), int(tgid)
        if max(numbers) >> 31:
            return None
        line = Line._make((*said, *numbers, comm))
        place = self._places.setdefault(line, len(self.lines))
        if place == len(self.lines):
            self.lines.append(line)
        self._known[key] = self.lines[place]
        quick = self._quick_lines[key] = place, said[0]
        return quick

    def _name(self, name: bytes) -> str | None:
        """The name of a task, of which the bracket behind is given too; None if it may be none."""
        if b" times" in name or name[-1:] != b")" or len(name) > _NAME:
            return None
        if len(self._names) >= _MANY:
            self._names.clear()
        comm = self._names[name] = to_text(name[:-1])
        return comm

    def know(self, piece: bytes) -> None:
        """Keep what `take_known` needs of a group that was added last."""
        _, _, record = piece.partition(b"\n")
        head, _, body = record.partition(b"\n")
        key = head.rpartition(b", ts ")[0]
        line, number = self._known.get(key), self._bodies.get(body)
        if line is None or line.order is None or number is None or b" times" in piece[20:] or (
                self.lines[self.line[-1]] is not line or number != self.body[-1]
                or RECORD_BEGINS in body):
            return
        self._quick_lines[key] = self.line[-1], line.order
        front = _QUICK_FRONT.match(key.partition(b", pid ")[0])
        if front is not None:
            self._fronts[front[0]] = line.order, line.gfp_mask, line.gfp_flags
        if b")" not in body[:_NAME]:  # it might end the name of a task that has line ends in it
            self._quick_bodies[body] = number

    def add(self, piece: bytes) -> bool:
        """A group: its title and all that follows, up to the next one. False, and nothing is added,
        if it is none."""
        found = TITLE.match(piece)
        if found is None:
            return False
        blocks, pages = int(found[1]), int(found[2]) if found[2] else None
        title, _, rest = piece[found.end():].partition(b"\n")
        line, ts = _NOTHING, None
        if title not in _PLAIN:
            # Without a stack it ends with no colon.
            about = _OF.match(piece, found.end()) or _OF.fullmatch(piece + b":", found.end())
            if about is None:
                return False
            line = Line(None, None, None, *_task(about[1], about[2], about[3]))
            if not _is_task(line):
                return False
            rest = piece[about.end():]
        rest = rest.removeprefix(b"\n")
        order = None
        if rest.startswith(START):
            if (record := self._record(rest)) is None:
                return False
            of_first, time, rest = record
            order = of_first.order
            # Where a cull does not print the stack alone, the line is that of one of the blocks.
            if blocks == 1 or b", allocat" in title or (
                    time is None and pages in (None, blocks << (order or 0))):
                line, ts = of_first, time
        amount = self._amount(blocks, pages, order)
        if amount is None or not blocks:
            return False
        pages, same_order = amount
        self.total += pages
        self.put(line, self._body(rest), blocks, pages, same_order, ts or 0)
        return True

    def _record(self, text: bytes) -> tuple[Line, int | None, bytes] | None:
        """What a record's first line says, its time in ns, and what follows it; None if it is not
        one."""
        head, _, body = text.partition(b"\n")
        key, _, when = head.rpartition(b", ts ")
        digits, _, free = when.partition(b" ns")
        if (line := self._known.get(key)) is not None and (
                not free or (free.startswith(b", free_ts ") and free[10:-3].isdigit())):
            if digits.isdigit() and len(digits) < 19:
                return line, int(digits), body
            if not digits:
                return line, None, body
        found = _RECORD.match(text)
        if found is None or (said := _line(found)) is None:
            return None
        # A line end in the name of a task is no end of the line.
        if key and found.end() - len(head) in (0, 1):
            self._known[key] = said[0]
        return *said, text[found.end():]

    def _amount(self, blocks: int, pages: int | None, order: int | None) -> tuple[int, int] | None:
        """The pages and the order of all blocks, -1 if it is not one; None if that cannot be."""
        if pages is None:
            if order is None:
                return None
            pages = blocks << order
        if pages < blocks or self.total + pages >> PFN_BITS:
            return None
        return pages, order if order is not None and blocks << order == pages else -1

    def _body(self, text: bytes) -> int:
        number = self._bodies.get(text)
        if number is None:
            number = self._bodies[text] = len(self.bodies)
            self.bodies.append(_body(text))
        return number

    def share(self) -> Share:
        """All groups, for `add_share` of another one."""
        return Share(tuple(column.tobytes() for column in self._columns()),
                     list(zip(*self.lines, strict=True)), list(self._bodies), self.bodies,
                     self.total, self.damaged, self.damage, self.unterminated)

    def add_share(self, share: Share) -> bool:
        """Add the groups of a part behind; false if all together cannot be."""
        import numpy as np

        if self.total + share.total >> PFN_BITS:
            return False
        self.total += share.total
        lines = list(map(Line._make, zip(*share.lines, strict=True)))
        new = [line for line in lines if line not in self._places] if self.lines else lines
        self._places.update(zip(new, count(len(self.lines))))
        self.lines += new
        line = np.fromiter(map(self._places.__getitem__, lines), np.int64, len(lines))
        body = np.array([self._put_body(text, each) for text, each in zip(
            share.texts, share.bodies, strict=True)], np.int64)
        for column, values, places in zip(self._columns(), share.columns, (line, body, *[None] * 4),
                                          strict=True):
            column.frombytes(values if places is None else
                             places[np.frombuffer(values, np.int64)].tobytes())
        self.damaged += share.damaged
        self.damage = (self.damage + share.damage)[:SHOWN_DAMAGE]
        self.unterminated |= share.unterminated
        return True

    def _columns(self) -> tuple[array[int], ...]:
        return self.line, self.body, self.blocks, self.pages, self.order, self.ts

    def _put_body(self, text: bytes, body: Body) -> int:
        number = self._bodies.setdefault(text, len(self.bodies))
        if number == len(self.bodies):
            self.bodies.append(body)
        return number


_NOTHING = Line()


def _task(pid: bytes | None, tgid: bytes | None,
          comm: bytes | None) -> tuple[int | None, int | None, str | None]:
    return (None if pid is None else int(pid), None if tgid is None else int(tgid),
            None if comm is None else to_text(comm))


def _line(found: re.Match[bytes]) -> tuple[Line, int | None] | None:
    """What a record's first line says, and its time in ns; None if that is out of range."""
    order, mask, flags, pid, tgid, comm, ts = found.groups()
    line = Line(int(order), None if mask is None else int(mask, 16),
                None if flags is None else to_text(flags), *_task(pid, tgid, comm))
    time = int(ts) if ts else None
    if int(order) > HIGHEST_ORDER or (line.gfp_mask or 0) >> 32 or (time or 0) >> TIME_BITS:
        return None
    return (line, time) if _is_task(line) else None


def _is_task(line: Line) -> bool:
    """Whether the numbers of a task, if there are any, can be those of one."""
    return all(-(1 << 31) <= number < 1 << 31 for number in (line.pid or 0, line.tgid or 0))


def _body(text: bytes) -> Body:
    """What follows the first line. The PFN line is that of one of the blocks, and left out."""
    if text.startswith(b"PFN "):
        text = text.partition(b"\n")[2]
    elif (at := text.find(b"\nPFN ")) >= 0:
        text = text[:at + 1] + text[at + 1:].partition(b"\n")[2]
    if (text.startswith(b" ") and text.count(b"\n") == text.count(b"\n ") and text[1:2] != b"["
            and b"\t" not in text and b" \n" not in text and b"  " not in text
            and b":\n" not in text and text[-1:] not in b" :"):
        return Body(to_text(text[1:].replace(b"\n ", b"\n")))
    return parse_body(_OLD_ADDRESS.sub(b" ", text) if b"[0x" in text else text)
