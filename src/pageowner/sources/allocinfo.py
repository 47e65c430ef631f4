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
from pageowner.kernel.limits import PFN_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.opening import reading
from pageowner.sources.page_owner_body import Body
from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened

__all__ = ["read", "recognises"]

_VERSION = re.compile(rb"allocinfo - version: (\d{1,9}(?:\.\d{1,9})?)\s*\Z")
_LINE = re.compile(rb"\s*(-?\d{1,20})(\.\d{1,3})?([KMGTPE]?)i?\s+(\d{1,20})\s+([^\s:]+:\d{1,9})"
                   rb"(?: (\[[^\]\s]+\]))? func:(\S+)( accurate:no)?\s*\Z")
_FIRST = re.compile(rb"^(?:allocinfo - version: \d|\s*-?\d[\d.KMGTPEi]*\s+\d+\s+[^\s:]+:\d+ "
                    rb"(?:\[[^\]\s]+\] )?func:)", re.MULTILINE)
_NOTHING = b"           0        0 "
_HEADING = b"#     <size>  <calls> <tag info>"
_UNITS = {b"": 0, b"K": 10, b"M": 20, b"G": 30, b"T": 40, b"P": 50, b"E": 60}
_KNOWN = (b"1.0", b"2.0")


def recognises(head: bytes) -> bool:
    """Whether a text that begins so is a copy of /proc/allocinfo, or lines of it."""
    return START not in head and _FIRST.search(head) is not None


def read(opened: Opened) -> Snapshot:
    """Lines of code with the bytes that they hold as a `Snapshot`, whose pages are of one byte.

    Lines that hold nothing are left out. What is damaged is skipped and counted in
    ``meta.counters``; there, ``inaccurate`` is the number of lines that the kernel marks as
    counted too low, ``rounded`` of those with a size such as ``2.8M``. Raises PageownerError if
    no line is whole, or the source cannot be read.
    """
    with reading(opened.name):
        text = opened.stream.read()
    lines = _Lines(text)
    if not lines.whole:
        raise PageownerError(f"{opened.name}: contains no complete line of /proc/allocinfo")
    from pageowner.sources.page_owner_groups import to_snapshot

    found = to_snapshot(lines, opened.name, "allocinfo")
    found.meta.page_size = 1
    del found.meta.extra["page_size_from"]
    found.meta.counters |= {"inaccurate": lines.inaccurate, "rounded": lines.rounded}
    found.meta.dump_format = {"version": lines.version}
    return found


class _Lines(Groups):
    """The lines of a text that hold something; ``whole``: those that could be read."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.version: str | None = None
        self.whole = self.inaccurate = self.rounded = 0
        self.unterminated = not text.endswith(b"\n")
        self._total, offset = 0, 0
        for line in text.split(b"\n"):
            if (line.startswith(_NOTHING) and len(words := line.split()) == 4
                    and words[3].startswith(b"func:") and b":" in words[2]):
                self.whole += 1
            elif line.strip():
                self._take(line, offset)
            offset += len(line) + 1

    def _take(self, line: bytes, offset: int) -> None:
        found = _LINE.match(line)
        if found is None:
            if version := _VERSION.match(line):
                self.version = version[1].decode()
                if version[1] not in _KNOWN:
                    self.lost(offset, f"version {self.version} of the format, which is not known")
            elif line.strip() != _HEADING.strip():
                self.lost(offset, "a line that /proc/allocinfo does not have")
            return
        number, fraction, unit, calls, place, module, function, inaccurate = found.groups()
        size = (int(number) << _UNITS[unit]) + int(
            float(fraction or 0) * (1 << _UNITS[unit]))
        if size < 0 or int(calls) >> PFN_BITS or self._total + size >> PFN_BITS:
            self.lost(offset, "a size or a number of calls that cannot be")
            return
        self.whole += 1
        self.inaccurate += inaccurate is not None
        self.rounded += bool(unit or fraction)
        self._total += size
        if size or int(calls):
            behind = b" " + module if module else b""
            self.put(_NO_LINE, len(self.bodies), int(calls), size, -1, 0)
            self.bodies.append(Body(
                to_text(place + behind + b"\n" + function + behind),
                notes=None if inaccurate is None else "accurate:no"))


_NO_LINE = Line()
