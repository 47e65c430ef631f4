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

import re
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.sources.allocinfo_lines import Lines
from pageowner.sources.allocinfo_restoring import restored
from pageowner.sources.damage import note_left_out
from pageowner.sources.opening import reading
from pageowner.sources.page_owner_parser import START
from pageowner.sources.told_twice import repeats

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened

__all__ = ["parse", "read", "recognises"]

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
    with reading(opened.name):
        text = opened.stream.read()
    text, undone = restored(text)
    opened.undone += undone
    lines = parse(text)
    if not lines.whole:
        raise PageownerError(f"{opened.name}: contains no complete line of /proc/allocinfo")
    from pageowner.sources.page_owner_groups import to_snapshot

    found = to_snapshot(lines, opened.name, "allocinfo")
    found.meta.page_size = 1
    del found.meta.extra["page_size_from"]
    found.meta.counters |= {"inaccurate": lines.inaccurate, "rounded": lines.rounded}
    found.meta.dump_format = {"version": lines.version}
    if lines.second is not None:
        others = text.count(b"\n", lines.second) + (not text.endswith(b"\n"))
        note_left_out(found.meta, others, [
            f"another list ({others:,} lines) left out, from byte {lines.second:,} on: only the"
            " first one is read"])
    elif again := repeats(_places(lines)):
        note_left_out(found.meta, 0, [
            f"{again:,} lines name a line of code that another one names: if these are several"
            " lists, the bytes of all are counted"])
    return found


def _places(lines: Lines) -> list[int]:
    """A number for the line of code of each line, the same where that is the same."""
    numbers: dict[str | None, int] = {}
    of_body = [numbers.setdefault(body.stack, len(numbers)) for body in lines.bodies]
    return list(map(of_body.__getitem__, lines.body))
