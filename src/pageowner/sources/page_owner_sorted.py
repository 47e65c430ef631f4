"""Read what page_owner_sort made of a dump: groups of allocations with their number.

tools/mm/page_owner_sort.c, in older kernels Documentation/vm and tools/vm:

========== ==========================================================================
since      what a group looks like
========== ==========================================================================
2005       ``N times: Page allocated via order 0``, frames `` [0xffffffff80173d6e] func+574``
3.19       ``N times:``, the record, an empty line
5.8        ``N times, M pages:``
5.17       with ``-c`` the stack alone, after an empty line
5.18       ``N times, M pages, allocated by SLAB :``; the digits of times are left out; with
           ``--cull`` no record: ``N times, M pages, PID 1, task_comm_name: init:``, with or
           without a stack, and without one no empty line either
========== ==========================================================================

A group is recognised by its first line, at the beginning of the text, behind an empty line or
behind such a line. Nothing is lost without being counted: what lies between two first lines is a
group, or counts as damaged once for each piece between empty lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel.limits import HIGHEST_ORDER, PFN_BITS, TIME_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources import handles
from pageowner.sources.damage import note_left_out
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.opening import pieces
from pageowner.sources.page_owner_body import Body, parse_body
from pageowner.sources.page_owner_parser import START
from pageowner.sources.told_twice import repeats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened

__all__ = ["parse", "read", "recognises"]

_CHUNK = 1 << 20

# No name of a task, of 15 bytes, can be one of these.
_TITLE = re.compile(rb"(\d{1,19}) times(?:, (\d{1,19}) pages|(?=:\s?Page allocated via order ))")
_FIRST = re.compile(rb"(?:\A|\n)\s*\d{1,19} times"
                    rb"(?:, \d{1,19} pages|:\s?Page allocated via order )")
# What a group is of: ", PID 1, TGID 1, task_comm_name: init, module: ext4 (RELEASED), allocated by
# SLAB VMALLOC :". A name may hold anything: the longest one that leaves a well-formed rest is it.
_BY = rb"(?:, allocat(?:ed|or) by (?:(?:CMA|SLAB|VMALLOC|OTHERS) )*)?"
_FREED = rb"(?: \((?:UN)?RELEASED\))?"
_OF = re.compile(
    rb"(?:, PID (-?\d{1,10}))?(?:, TGID (-?\d{1,10}))?"
    rb"(?:, task_comm_name: (.{0,15}|[^\n]{0,63}))?(?:, module: [^\n:]*)?"
    rb"(?:" + _FREED + _BY + rb"|" + _BY + _FREED + rb")"
    rb"(?::(?:\n|\Z| (?=Page allocated)))", re.DOTALL)
_RECORD_BEGINS = b"\n" + START
_BEGINS = re.compile(
    rb"^(?:(\d{1,19} times(?:, \d{1,19} pages|:(\s?)(?=Page allocated via order )))|"
    rb"Page allocated via order )", re.MULTILINE)
_PLAIN = (b":", b", allocated by OTHERS :")
_RECORD = re.compile(
    rb"Page allocated via order (\d{1,3})(?:, mask (0x[0-9a-f]{1,16})(?:\(([^()\n]*)\))?)?"
    rb"(?:, pid (-?\d{1,10}))?(?:(?:, tgid (-?\d{1,10}))? \((.{0,15}|[^\n]{0,63})\))?"
    rb"(?:, ts *(\d{0,20}) *ns)?(?:, free_ts *\d{0,20} *ns)?,? *(?:\n|\Z)", re.DOTALL)
# What the tool prints on the terminal beside its output.
_PROGRESS = re.compile(rb"(?:loaded \d+|sorting \.+|culling|\s*)\Z")
_OLD_ADDRESS = re.compile(rb"^ ?\[0x[0-9a-f]{8,16}\] +", re.MULTILINE)


class _Parser(Groups):
    """Takes groups one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._bodies: dict[bytes, int] = {}
        self._known: dict[bytes, Line] = {}
        """First lines without their times."""
        self._quick_lines: dict[bytes, tuple[int, int]] = {}
        """First lines in front of their times: the place in ``lines``, and the order."""
        self._quick_bodies: dict[bytes, int] = {}
        self._total = 0

    def add_known(self, piece: bytes) -> bool:
        """The same as `add` of a group as the tool prints most of them, whose first line but for
        its time and whose stack were there before; false for any other."""
        title, _, record = piece.partition(b"\n")
        head, _, body = record.partition(b"\n")
        key, _, when = head.rpartition(b", ts ")
        line, number = self._quick_lines.get(key), self._quick_bodies.get(body)
        if line is None or number is None or (when != b" ns" and not when[:-3].isdigit()):
            return False
        times, _, rest = title.partition(b" times, ")
        pages, _, rest = rest.partition(b" pages")
        place, order = line
        if rest != b", allocated by OTHERS :" or not (times.isdigit() and pages.isdigit()) or (
                when[-3:] != b" ns" or len(when) > 20 or len(times) > 15 or len(pages) > 15):
            return False
        blocks, total = int(times), int(pages)
        if total < blocks or not blocks or self._total + total >> PFN_BITS:
            return False
        self._total += total
        self.line.append(place)
        self.body.append(number)
        self.blocks.append(blocks)
        self.pages.append(total)
        self.order.append(order if blocks << order == total else -1)
        self.ts.append(int(when[:-3] or 0))
        return True

    def know(self, piece: bytes) -> None:
        """Keep what `add_known` needs of a group that was added last."""
        _, _, record = piece.partition(b"\n")
        head, _, body = record.partition(b"\n")
        key = head.rpartition(b", ts ")[0]
        line, number = self._known.get(key), self._bodies.get(body)
        if line is None or line.order is None or number is None or b" times" in piece[20:] or (
                self.lines[self.line[-1]] is not line or number != self.body[-1]
                or _RECORD_BEGINS in body):
            return
        self._quick_lines[key] = self.line[-1], line.order
        self._quick_bodies[body] = number

    def add(self, piece: bytes) -> bool:
        """A group: its title and all that follows, up to the next one. False, and nothing is added,
        if it is none."""
        found = _TITLE.match(piece)
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
        self._total += pages
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
        if pages < blocks or self._total + pages >> PFN_BITS:
            return None
        return pages, order if order is not None and blocks << order == pages else -1

    def _body(self, text: bytes) -> int:
        number = self._bodies.get(text)
        if number is None:
            number = self._bodies[text] = len(self.bodies)
            self.bodies.append(_body(text))
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


def recognises(head: bytes) -> bool:
    """Whether a text that begins so is output of page_owner_sort."""
    found = _FIRST.search(head)
    first = head.find(START)
    return found is not None and (first < 0 or found.start() <= first)


def _split(opened: Opened) -> Iterator[tuple[bytes, int]]:
    """What stands between empty lines, and where it begins; at last what no empty line ends."""
    held, offset = b"", 0
    for piece in pieces(opened.stream, opened.name, _CHUNK):
        text = held + piece if held else piece
        parts = text.split(b"\n\n")
        held = parts.pop()
        for part in parts:
            yield part, offset
            offset += len(part) + 2
    yield held, offset


def _torn(piece: bytes) -> Iterator[bytes]:
    """A piece in which empty lines or titles are missing, cut where groups and records begin."""
    start, titled = 0, False
    for found in _BEGINS.finditer(piece):
        if found[1] is None and titled:
            titled = False  # the record of that title
            continue
        titled = found[1] is not None and found[2] != b" "
        if found.start() > start:
            yield piece[start:found.start()]
            start = found.start()
    yield piece[start:]


def parse(opened: Opened) -> Groups:
    """The groups of an open text, from where it stands."""
    groups, held, begin, piece = _Parser(), b"", 0, b""
    add, match, add_known = groups.add, _TITLE.match, groups.add_known
    for piece, offset in _split(opened):
        if not held and add_known(piece):
            continue
        if held:
            # The group before may go on behind an empty line: in a name, or in front of a stack.
            if not match(piece) and add(held + b"\n\n" + piece):
                held = b""
                continue
            _last(groups, held, begin)
            held = b""
        if piece[:1] == b"\n":
            offset, piece = offset + 1, piece[1:]
        several = piece.count(b" times") > 1 or piece.count(_RECORD_BEGINS) > 1
        if not several and piece[-1:] != b":" and add(piece):
            groups.know(piece)
        else:
            *parts, held = _torn(piece)
            for part in parts:
                _last(groups, part.rstrip(b"\n"), offset)
                offset += len(part)
            begin = offset
    groups.unterminated = not _is_ended(piece)
    if held.strip():
        _last(groups, held.rstrip(b"\n"), begin)
    return groups


def _is_ended(piece: bytes) -> bool:
    """Whether what no empty line follows can be whole: nothing, or lines that need none, such as
    titles without a stack."""
    last = piece.removesuffix(b"\n").rpartition(b"\n")[2]
    return not piece.strip() or (piece.endswith(b"\n") and (
        _PROGRESS.match(last) is not None
        or (_TITLE.match(last) is not None and START not in last and not last.endswith(b":"))))


def _last(groups: _Parser, text: bytes, offset: int) -> None:
    """A piece with nothing behind it that could belong to it: a group, or damage."""
    if not groups.add(text) and not all(map(_PROGRESS.match, text.split(b"\n"))):
        groups.lost(offset, "text that is not a group of page_owner_sort")


def read(opened: Opened) -> Snapshot:
    """The groups as a `Snapshot`, in the text's order. What is damaged is skipped and counted in
    ``meta.counters``. Raises PageownerError if there is none, or the source cannot be read."""
    groups = parse(opened)
    if not groups.line:
        raise PageownerError(f"{opened.name}: contains no complete group of page_owner_sort")
    from pageowner.sources.page_owner_groups import to_snapshot

    counters = handles.join([groups.bodies], opened.name)
    found = to_snapshot(groups, opened.name, "page_owner_sort")
    found.meta.counters |= counters
    has_stack = [body.stack is not None for body in groups.bodies]
    if again := repeats([(line, body, ts) for line, body, ts, blocks in zip(
            groups.line, groups.body, groups.ts, groups.blocks, strict=True)
            if (ts or blocks > 1) and has_stack[body]]):
        note_left_out(found.meta, 0, [
            f"groups come again ({again:,}): if these are several texts in one, the pages of all"
            " are counted"])
    return found
