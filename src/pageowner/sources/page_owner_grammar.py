"""What the first two lines of a page_owner record say, in every version of mm/page_owner.c since
3.19; what follows is in page_owner_body.py.

The parser calls these once for every distinct text, not for every record.

========== ==========================================================================
since      what changed
========== ==========================================================================
3.19       ``order %u, mask 0x%x``; ``PFN %lu Block %lu type %d [Fallback] Flags KUL…``;
           frames `` [<address>] func+0x1/0x2``
4.6        ``mask 0x…(GFP_…)``; ``PFN %lu type %s Block %lu type %s Flags 0x…(…)``;
           ``Page has been migrated, last migrate reason: …``
5.11       ``, pid %d, ts %llu ns``; 5.13 ``, free_ts %llu ns``
5.18       ``, tgid %d (%s)``; memcg lines
6.5        ``PFN 0x%lx``; later free_ts leaves the first line
2026       ``handle: N`` in place of, or after, the stack
========== ==========================================================================
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pageowner.kernel.limits import HIGHEST_ORDER, NODES, PFN_BITS, TIME_BITS
from pageowner.kernel.task_names import to_text

__all__ = ["Header", "PfnLine", "parse_header", "parse_pfn_line", "parse_tail"]


class Header(NamedTuple):
    """The first line but for its times; None where the version does not say."""

    order: int
    gfp_mask: int
    gfp_flags: str | None
    pid: int | None
    tgid: int | None
    comm: str | None


class PfnLine(NamedTuple):
    """The second line. ``block_type`` may be a number (before 4.6); ``fallback`` only there; a line
    of other programs may have the pfn alone."""

    pfn: int
    block: int | None
    migratetype: str | None
    block_type: str
    flags: str
    fallback: bool | None


_MASK = rb"(\d{1,3}), mask (0x[0-9a-f]{1,16})(?:\(([^()\n]*)\))?"
# The name of a task may hold anything, so the longest one that leaves a well-formed rest is it:
# 15 bytes (TASK_COMM_LEN in include/linux/sched.h), or up to 63 in a line for kernels to come.
# Without tgid in linux-next before 5.18, and in the examples of that time.
_TASK = rb", pid (-?\d{1,10})(?:(?:, tgid (-?\d{1,10}))? \((.{0,15}|[^\n]{0,63})\))?"
_HEADER = re.compile(
    rb"(" + _MASK + rb"(?:" + _TASK + rb", ts)?)"
    rb"(?:(?<=ts) (\d{1,20}) ns(?:, free_ts (\d{1,20}) ns)?)?(?:\n|\Z)", re.DOTALL)
# Some vendors print the address of the struct page behind the pfn, which it follows from.
_PFN = re.compile(rb"PFN (0x[0-9a-fA-F]{1,16}|\d{1,20})(?: [Pp]age(?: ptr)?:? (?:0x)?[0-9a-f]+)?"
                  rb" type (\S+) Block (\d{1,20})"
                  rb" (type \S+ Flags .*)\Z")
_PFN_ALONE = re.compile(rb"PFN (0x[0-9a-fA-F]{1,16}|\d{1,20})(?: Flags (0x[0-9a-f]{1,16}))?\Z")
_TAIL = re.compile(rb"type (\S+) Flags (.*)\Z")
_PFN_NUMBERED = re.compile(rb"PFN (\d{1,20}) Block (\d{1,20}) type (\d{1,3})"
                           rb" (Fallback)?\s*Flags (.*)\Z")
_NODE = re.compile(rb"\bnode=([0-9]+)")
_NODE_DIGITS = 4


def _header(found: re.Match[bytes]) -> Header:
    order, mask, flags, pid, tgid, comm = found.groups()[1:7]
    return Header(
        int(order), int(mask, 16), None if flags is None else to_text(flags),
        None if pid is None else int(pid), None if tgid is None else int(tgid),
        None if comm is None else to_text(comm))


def parse_header(text: bytes) -> tuple[Header, bytes, int | None, int | None, int]:
    """Any version's first line, from behind ``order `` on.

    Returns what it says, its key (the text up to the time), ts and free_ts in ns, and its length
    with the newline. Raises ValueError if it is not one.
    """
    found = _HEADER.match(text)
    if not found:
        raise ValueError("the first line is cut or not a page_owner's")
    ts, free_ts = found[8], found[9]
    header = _checked(_header(found))
    if header.pid is not None and ts is None:
        raise ValueError("the first line has no time")
    return (header, found[1], None if ts is None else _ns(ts),
            None if free_ts is None else _ns(free_ts), found.end())


def _ns(digits: bytes) -> int:
    value = int(digits)
    if value >> TIME_BITS:
        raise ValueError("a time of more than 292 years")
    return value


def _checked(header: Header) -> Header:
    if header.order > HIGHEST_ORDER or header.gfp_mask >> 32:
        raise ValueError("the order or the gfp mask is out of range")
    if any(n is not None and not -(1 << 31) <= n < 1 << 31 for n in (header.pid, header.tgid)):
        raise ValueError("the pid is out of range")
    return header


def parse_tail(tail: bytes) -> tuple[str, str]:
    """``type Movable Flags 0x…(…)``: the pageblock's type and the flags.

    Raises ValueError if it is not that.
    """
    found = _TAIL.match(tail)
    if not found:
        raise ValueError("the PFN line is cut")
    return to_text(found[1]), to_text(_flags(found[2]))


def _flags(text: bytes) -> bytes:
    """As they are. Raises ValueError if they name a node that no kernel has."""
    if any(len(node) > _NODE_DIGITS or int(node) >= NODES for node in _NODE.findall(text)):
        raise ValueError("the node is out of range")
    return text


def parse_pfn_line(line: bytes) -> PfnLine:
    """The second line of any version. Raises ValueError if it is not one."""
    found = _PFN.match(line)
    if found:
        pfn = int(found[1], 16) if found[1].startswith(b"0x") else int(found[1])
        block_type, flags = parse_tail(found[4])
        result = PfnLine(pfn, int(found[3]), to_text(found[2]), block_type, flags, None)
    elif found := _PFN_ALONE.match(line):
        result = PfnLine(int(found[1], 0), None, None, "", to_text(found[2] or b""), None)
    else:
        found = _PFN_NUMBERED.match(line)
        if not found:
            raise ValueError("the PFN line is cut or not a page_owner's")
        result = PfnLine(int(found[1]), int(found[2]), None, found[3].decode(),
                         to_text(_flags(found[5].strip())), found[4] is not None)
    if result.pfn >> PFN_BITS or (result.block or 0) > result.pfn:
        raise ValueError("the pfn is out of range")
    return result
