"""Read /proc/allocinfo: bytes in use, and calls that allocated them, by line of the kernel's code.

lib/alloc_tag.c with CONFIG_MEM_ALLOC_PROFILING:

========== ==========================================================================
since      what a line is
========== ==========================================================================
6.10       ``allocinfo - version: 1.0``, ``#     <size>  <calls> <tag info>``, then
           ``%12lli %8llu file:line [module] func:name``, a blank at the end
6.18       ``version: 2.0``: `` accurate:no`` behind a line some of whose allocations are not
           counted (a vector for objects of a slab could not be allocated)
========== ==========================================================================

The kernel's documentation shows it sorted and its sizes rounded (``sort -g | numfmt --to=iec``):
that is read, and said. A line of code is a stack of two frames here, the line and its function.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.sources import page_owner
from pageowner.sources.allocinfo_lines import Lines
from pageowner.sources.allocinfo_restoring import HEAD, restored
from pageowner.sources.damage import note_left_out
from pageowner.sources.opening import reading
from pageowner.sources.page_owner_parser import START
from pageowner.sources.told_twice import repeats
from pageowner.sources.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.allocinfo_lines import Share
    from pageowner.sources.opening import Opened

__all__ = ["begin", "parse", "read", "recognises"]

_FIRST = re.compile(rb"^(?:[>|] ?)*(?:allocinfo - version: \d|\s*-?\d[\d.KMGTPEi]*\s+\d+\s+"
                    rb"[^\s:]+:\d+ (?:\[[^\]\s]+\] )?func:)", re.MULTILINE)
_MANY = 1 << 20
"""Bytes from which on columns pay."""


def recognises(head: bytes) -> bool:
    """Whether a text that begins so is a copy of /proc/allocinfo, or lines of it."""
    return START not in head and _FIRST.search(head) is not None


def parse(text: bytes) -> Lines:
    """The lines of a text: where there are many, those that are as the kernel prints them are read
    together, as they would be one by one."""
    lines, offset = Lines(), 0
    if len(text) >= _MANY:
        from pageowner.sources import allocinfo_columns

        offset = allocinfo_columns.take(text, lines)
    if lines.second is None:
        lines.take(text[offset:], offset)
    lines.unterminated = lines.second is None and not text.endswith(b"\n")
    return lines


def read(opened: Opened) -> Snapshot:
    """Lines of code with the bytes that they hold as a `Snapshot`, whose pages are of one byte.

    Lines that hold nothing are left out. What is damaged is skipped and counted in
    ``meta.counters``; there, ``inaccurate`` is the number of lines that the kernel marks as
    counted too low, ``rounded`` of those with a size such as ``2.8M``. Of several lists only the
    first one is read. Raises PageownerError if no line is whole, or the source cannot be read.
    """
    return begin(opened)()


def begin(opened: Opened) -> Callable[[], Snapshot]:
    """Start to read, in other processes if the text is large; the returned function waits and gives
    what `read` does, and raises what it does."""
    size = opened.size
    if size is None or not page_owner.is_large(opened):
        return lambda: _alone(opened)
    file = opened.stream.fileno()
    with reading(opened.name):
        if restored(os.pread(file, 2 * HEAD, 0))[1]:
            return lambda: _alone(opened)
        from pageowner.sources import allocinfo_columns  # noqa: F401 - once for all of them

        edges = page_owner.edges(file, size, lambda text: text.find(b"\n") + 1 or -1)
        workers = Workers([lambda start=start, stop=stop: _share(file, start, stop)  # type: ignore[misc]
                           for start, stop in pairwise(edges)])

    def finish() -> Snapshot:
        # Imported while the others read.
        from pageowner.sources import page_owner_groups  # noqa: F401

        lines = Lines()
        with reading(opened.name):
            shares = workers.results()
            if not all(share is not None and lines.add_share(share) for share in shares):
                return _alone(opened)
            lines.unterminated = os.pread(file, 1, size - 1) != b"\n"
        return _snapshot(lines, opened.name)

    return finish


def _share(file: int, start: int, stop: int) -> Share | None:
    """The lines of a part of a text; None if the text ends before the part does."""
    from pageowner.sources.allocinfo_columns import PIECE, Places, take

    lines, places, at, size = Lines(), Places(), start, PIECE
    while at < stop and lines.second is None:
        text = os.pread(file, min(size, stop - at), at)
        if len(text) < min(size, stop - at):  # the file has become shorter
            return None
        end = take(text, lines, at, places)
        if at + len(text) >= stop:
            if lines.second is None:
                lines.take(text[end:], at + end)
            break
        size = PIECE if end else 2 * size
        at += end
    return lines.share()


def _alone(opened: Opened) -> Snapshot:
    with reading(opened.name):
        text = opened.stream.read()
    text, undone = restored(text)
    opened.undone += undone
    lines = parse(text)
    found = _snapshot(lines, opened.name, lines.second is None)
    if lines.second is not None:
        others = text.count(b"\n", lines.second) + (not text.endswith(b"\n"))
        note_left_out(found.meta, others, [
            f"another list ({others:,} lines) left out, from byte {lines.second:,} on: only the"
            " first one is read"])
    return found


def _snapshot(lines: Lines, name: str, is_one: bool = True) -> Snapshot:
    """The lines as a snapshot; ``is_one``: there is no other list behind them."""
    if not lines.whole:
        raise PageownerError(f"{name}: contains no complete line of /proc/allocinfo")
    from pageowner.sources.page_owner_groups import to_snapshot

    found = to_snapshot(lines, name, "allocinfo")
    found.meta.page_size = 1
    del found.meta.extra["page_size_from"]
    found.meta.counters |= {"inaccurate": lines.inaccurate, "rounded": lines.rounded}
    found.meta.dump_format = {"version": lines.version}
    if is_one and (again := repeats(_places(lines))):
        note_left_out(found.meta, 0, [
            f"{again:,} lines name a line of code that another one names: if these are several"
            " lists, the bytes of all are counted"])
    return found


def _places(lines: Lines) -> list[int]:
    """A number for the line of code of each line, the same where that is the same."""
    import numpy as np

    numbers: dict[str | None, int] = {}
    of_body = [numbers.setdefault(body.stack, len(numbers)) for body in lines.bodies]
    found: list[int] = np.array(of_body, np.int64)[np.frombuffer(lines.body, np.int64)].tolist()
    return found
