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

import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.sources import handles, page_owner
from pageowner.sources.damage import note_left_out
from pageowner.sources.opening import pieces, reading
from pageowner.sources.page_owner_parser import START
from pageowner.sources.page_owner_sorted_groups import RECORD_BEGINS, TITLE, SortedGroups
from pageowner.sources.told_twice import repeats
from pageowner.sources.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened
    from pageowner.sources.page_owner_sorted_groups import Share

__all__ = ["begin", "parse", "read", "recognises"]

_CHUNK = 1 << 20

_FIRST = re.compile(rb"(?:\A|\n)\s*\d{1,19} times"
                    rb"(?:, \d{1,19} pages|:\s?Page allocated via order )")
_BEGINS = re.compile(
    rb"^(?:(\d{1,19} times(?:, \d{1,19} pages|:(\s?)(?=Page allocated via order )))|"
    rb"Page allocated via order )", re.MULTILINE)
_BETWEEN = re.compile(rb"[^\n]\n\n(?=\d{1,15} times, \d{1,15} pages, allocated by [A-Z]+ :\n"
                      rb"Page allocated via order )")
# What the tool prints on the terminal beside its output.
_PROGRESS = re.compile(rb"(?:loaded \d+|sorting \.+|culling|\s*)\Z")




def recognises(head: bytes) -> bool:
    """Whether a text that begins so is output of page_owner_sort."""
    found = _FIRST.search(head)
    first = head.find(START)
    return found is not None and (first < 0 or found.start() <= first)


def _split(texts: Iterator[bytes], offset: int = 0,
           is_end: bool = True) -> Iterator[tuple[list[bytes], int]]:
    """What stands between empty lines, many pieces at a time, and where the first of them begins;
    at last what no empty line ends, unless the text goes on there."""
    held = b""
    for text in texts:
        text = held + text if held else text
        *parts, held = text.split(b"\n\n")
        yield parts, offset
        offset += len(text) - len(held)
    if is_end:
        yield [held], offset


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


def parse(opened: Opened) -> SortedGroups:
    """The groups of an open text, from where it stands."""
    groups, _ = _parsed(_split(pieces(opened.stream, opened.name, _CHUNK)), True)
    return groups


def _parsed(parts: Iterable[tuple[list[bytes], int]], is_end: bool) -> tuple[SortedGroups, bytes]:
    """The groups, and what may belong to one that goes on behind if that is not the end."""
    groups, held, begin, piece = SortedGroups(), b"", 0, b""
    for found, offset in parts:
        place = 0
        while place < len(found):
            if not held:
                behind = groups.take_known(found, place)
                offset += sum(map(len, found[place:behind])) + 2 * (behind - place)
                if (place := behind) == len(found):
                    break
            held, begin = _taken(groups, held, begin, found[place], offset)
            offset += len(found[place]) + 2
            place += 1
        piece = found[-1] if found else piece
    if is_end:
        groups.unterminated = not _is_ended(piece)
        if held.strip():
            _last(groups, held.rstrip(b"\n"), begin)
    return groups, held


def _taken(groups: SortedGroups, held: bytes, begin: int, piece: bytes,
           offset: int) -> tuple[bytes, int]:
    """Add a piece, behind one that is ``held`` since it may go on, from ``begin`` on. Returns what
    is held then, and where it begins."""
    if held:
        # The group before may go on behind an empty line: in a name, or in front of a stack.
        if not TITLE.match(piece) and groups.add(held + b"\n\n" + piece):
            return b"", begin
        _last(groups, held, begin)
    if piece[:1] == b"\n":
        offset, piece = offset + 1, piece[1:]
    several = piece.count(b" times") > 1 or piece.count(RECORD_BEGINS) > 1
    if not several and piece[-1:] != b":" and groups.add(piece):
        groups.know(piece)
        return b"", begin
    *parts, held = _torn(piece)
    for part in parts:
        _last(groups, part.rstrip(b"\n"), offset)
        offset += len(part)
    return held, offset


def _is_ended(piece: bytes) -> bool:
    """Whether what no empty line follows can be whole: nothing, or lines that need none, such as
    titles without a stack."""
    last = piece.removesuffix(b"\n").rpartition(b"\n")[2]
    return not piece.strip() or (piece.endswith(b"\n") and (
        _PROGRESS.match(last) is not None
        or (TITLE.match(last) is not None and START not in last and not last.endswith(b":"))))


def _last(groups: SortedGroups, text: bytes, offset: int) -> None:
    """A piece with nothing behind it that could belong to it: a group, or damage."""
    if not groups.add(text) and not all(map(_PROGRESS.match, text.split(b"\n"))):
        groups.lost(offset, "text that is not a group of page_owner_sort")


def read(opened: Opened) -> Snapshot:
    """The groups as a `Snapshot`, in the text's order. What is damaged is skipped and counted in
    ``meta.counters``. Raises PageownerError if there is none, or the source cannot be read."""
    return begin(opened)()


def begin(opened: Opened) -> Callable[[], Snapshot]:
    """Start to read, in other processes if the text is large; the returned function waits and gives
    what `read` does, and raises what it does."""
    size = opened.size
    if size is None or not page_owner.is_large(opened):
        return lambda: _snapshot(parse(opened), opened.name)
    file = opened.stream.fileno()
    with reading(opened.name):
        workers = Workers([
            lambda start=start, stop=stop: _share(file, start, stop, stop == size)  # type: ignore[misc]
            for start, stop in pairwise(page_owner.edges(file, size, _cut))])

    def finish() -> Snapshot:
        # Imported while the others read.
        from pageowner.sources import page_owner_groups  # noqa: F401

        with reading(opened.name):
            shares = workers.results()
        groups = SortedGroups()
        if not all(share is not None and groups.add_share(share) for share in shares):
            groups = parse(opened)
        return _snapshot(groups, opened.name)

    return finish


def _cut(text: bytes) -> int:
    found = _BETWEEN.search(text)
    return found.end() if found else -1


def _share(file: int, start: int, stop: int, is_end: bool) -> Share | None:
    """The groups of a part of a text; None if its last one may go on behind it, or the text ends
    before the part does."""
    at = start

    def texts() -> Iterator[bytes]:
        nonlocal at
        while text := os.pread(file, min(_CHUNK, stop - at), at):
            yield text
            at += len(text)

    groups, held = _parsed(_split(texts(), start, is_end), is_end)
    return groups.share() if at == stop and (is_end or not held) else None


def _snapshot(groups: SortedGroups, name: str) -> Snapshot:
    if not groups.line:
        raise PageownerError(f"{name}: contains no complete group of page_owner_sort")
    from pageowner.sources.page_owner_groups import to_snapshot

    counters = handles.join([groups.bodies], name)
    found = to_snapshot(groups, name, "page_owner_sort")
    found.meta.counters |= counters
    if again := _again(groups):
        note_left_out(found.meta, 0, [
            f"groups come again ({again:,}): if these are several texts in one, the pages of all"
            " are counted"])
    return found


def _again(groups: SortedGroups) -> int:
    """How many groups are there for another time."""
    import numpy as np

    line, body = np.frombuffer(groups.line, np.int64), np.frombuffer(groups.body, np.int64)
    ts, blocks = np.frombuffer(groups.ts, np.uint64), np.frombuffer(groups.blocks, np.int64)
    has_stack = np.array([body.stack is not None for body in groups.bodies], bool)
    told = ((ts > 0) | (blocks > 1)) & has_stack[body]
    of_kind = line * len(groups.bodies) + body
    if not ts.any():
        return repeats(of_kind[told].tolist())
    return repeats(list(zip(of_kind[told].tolist(), ts[told].tolist(), strict=True)))
