"""Page owner's facts of a dead kernel, as programs print them that read its memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.sources.alteration import Alteration
from pageowner.sources.page_owner_parser import FREED, LAST
from pageowner.sources.whole_records import Quick

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.sources.page_owner_parser import Parser
    from pageowner.sources.whole_records import Records

__all__ = ["crash", "gdb"]

# crash's extension page_owner, "owner -l": the pfn, its address and where the record is, in front.
# It begins with a line end, since that is found faster than a place behind one.
_CRASH = re.compile(rb"\nPFN (\d+)\((0x[0-9a-f]+)\) paddr ([0-9a-f]+) page_owner [0-9a-f]+\n"
                    rb"(Page allocated via order (?:[^\n]*\n){1,3}?)"
                    rb"(?=\[(?:alloc|free)\]|[ \t]|\n|\Z)")
_CRASH_CUT = re.compile(rb"\n\n(?=PFN \d+\(0x[0-9a-f]+\) paddr [0-9a-f]+ page_owner [0-9a-f]+\n"
                        rb"Page allocated via order )")


def crash(head: bytes) -> Alteration | None:
    """Of crash's extension; it tells the page size, too."""
    sizes = {int(found[3], 16) // int(found[2], 16) for found in _CRASH.finditer(b"\n" + head)
             if int(found[2], 16)}
    if not sizes:
        return None
    size = sizes.pop()
    known = not sizes and size & (size - 1) == 0 and 1 << 12 <= size <= 1 << 20

    def undo(text: bytes) -> bytes:
        return _CRASH.sub(rb"\n\4PFN \2\n", b"\n" + text)[1:]

    return Alteration("the form of crash's 'owner'", undo, by_record=True,
                      page_size=size if known else None,
                      quick=Quick(_by_columns("crash", undo), b"",
                                  lambda text: _CRASH.match(b"\n" + text) is not None,
                                  _CRASH_CUT))


# gdb's lx-dump-page-owner (scripts/gdb/linux/page_owner.py, since 6.6), and "x /i" for each frame.
_GDB_NUMBERS = (
    rb"allocated via order (\d+), gfp_mask: (0x[0-9a-f]+), pid: (-?\d+), tgid: (-?\d+) "
    rb"\((.{0,15}?)\), ts (\d+) ns, free_ts (\d+) ns\nPFN: (\d+), Flags: (0x[0-9a-f]+)$")
_GDB_FIRST = re.compile(
    rb"^(?:page_owner tracks the page as allocated\n)?Page (?:last )?" + _GDB_NUMBERS,
    re.MULTILINE | re.DOTALL)
# With --pfn, the last owner of a page that has none.
_GDB_FREED = re.compile(
    rb"^page_owner (?:tracks the page as freed\n(?:page_owner is not allocated\n)?"
    rb"|is not allocated\n)Page last " + _GDB_NUMBERS
    + rb"(?:\n(?: |page last free stack trace:|page_owner \w+ stack trace missing"
      rb"|page has been migrated)[^\n]*)*", re.MULTILINE | re.DOTALL)
# The line in front of a record, where there is none, is a frame of the one before.
_GDB_CUT = re.compile(rb"\n +0x[0-9a-f]+ <[^>\n]+>:[^\n]*\n(?=(?:page_owner tracks the page as"
                      rb" allocated\n)?Page allocated via order \d+, gfp_mask: 0x)")
_GDB_FRAME = re.compile(rb"^ +0x[0-9a-f]+ <([^>\n+]+)(?:\+(\d+))?>:[^\n]*", re.MULTILINE)
_GDB_FRAMES = re.compile(rb"(?:^ +0x[0-9a-f]+ <[^>\n+]+(?:\+\d+)?>:[^\n]*(?:\n|\Z))+",
                         re.MULTILINE)
_GDB_MIGRATED = re.compile(rb"^page has been migrated", re.MULTILINE)


def gdb(head: bytes) -> Alteration | None:
    """Of the kernel's scripts for gdb."""
    if b", gfp_mask: 0x" not in head or not _GDB_FIRST.search(head):
        return None

    stacks: dict[bytes, bytes] = {}

    def stack(found: re.Match[bytes]) -> bytes:
        if (frames := stacks.get(found[0])) is None:
            frames = stacks[found[0]] = _GDB_FRAME.sub(
                lambda frame: b" %s+0x%x" % (frame[1], int(frame[2] or 0)), found[0])
        return frames

    def undo(text: bytes) -> bytes:
        if LAST in text:
            text = _GDB_FREED.sub(rb"\n%s\n" % FREED, text)  # counted as damage is
        text = _GDB_FIRST.sub(rb"\nPage allocated via order \1, mask \2, pid \3, tgid \4 (\5), "
                              rb"ts \6 ns, free_ts \7 ns\nPFN \8 Flags \9", text)
        text = _GDB_FRAMES.sub(stack, text)
        return _GDB_MIGRATED.sub(b"Page has been migrated", text)

    return Alteration("the form of gdb's lx-dump-page-owner", undo, by_record=True,
                      quick=Quick(_by_columns("gdb", undo), b"\n",
                                  lambda text: _GDB_FIRST.match(text) is not None, _GDB_CUT))


def _by_columns(name: str, undo: Callable[[bytes], bytes]
                ) -> Callable[[bytes, Parser], Records | None]:
    """What takes records of a form by columns, which is imported when there are some."""
    columns: list[Callable[[bytes, Parser], Records | None]] = []

    def take(text: bytes, parser: Parser) -> Records | None:
        if not columns:
            from pageowner.sources import other_programs_columns

            columns.append(getattr(other_programs_columns, name)(undo, parser))
        return columns[0](text, parser)

    return take
