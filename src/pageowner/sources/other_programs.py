"""Page owner's facts of a dead kernel, as programs print them that read its memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.sources.alteration import Alteration
from pageowner.sources.page_owner_parser import START

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["crash", "gdb", "minidump"]

# crash's extension page_owner, "owner -l": the pfn, its address and where the record is, in front.
# It begins with a line end, since that is found faster than a place behind one.
_CRASH = re.compile(rb"\nPFN (\d+)\((0x[0-9a-f]+)\) paddr ([0-9a-f]+) page_owner [0-9a-f]+\n"
                    rb"(Page allocated via order (?:[^\n]*\n){1,3}?)"
                    rb"(?=\[(?:alloc|free)\]|[ \t]|\n|\Z)")


def crash(head: bytes) -> Alteration | None:
    """Of crash's extension; it tells the page size, too."""
    sizes = {int(found[3], 16) // int(found[2], 16) for found in _CRASH.finditer(b"\n" + head)
             if int(found[2], 16)}
    if not sizes:
        return None
    size = sizes.pop()
    known = not sizes and size & (size - 1) == 0 and 1 << 12 <= size <= 1 << 20
    return Alteration("the form of crash's 'owner'",
                      lambda text: _CRASH.sub(rb"\n\4PFN \2\n", b"\n" + text)[1:],
                      by_record=True,
                      page_size=size if known else None)


# gdb's lx-dump-page-owner (scripts/gdb/linux/page_owner.py, since 6.6), and "x /i" for each frame.
_GDB_FIRST = re.compile(
    rb"^(?:page_owner tracks the page as allocated\n)?Page (?:last )?allocated via order (\d+), "
    rb"gfp_mask: (0x[0-9a-f]+), pid: (-?\d+), tgid: (-?\d+) \((.{0,15}?)\), ts (\d+) ns, "
    rb"free_ts (\d+) ns\nPFN: (\d+), Flags: (0x[0-9a-f]+)$", re.MULTILINE | re.DOTALL)
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
        text = _GDB_FIRST.sub(rb"\nPage allocated via order \1, mask \2, pid \3, tgid \4 (\5), "
                              rb"ts \6 ns, free_ts \7 ns\nPFN \8 Flags \9", text)
        text = _GDB_FRAMES.sub(stack, text)
        return _GDB_MIGRATED.sub(b"Page has been migrated", text)

    return Alteration("the form of gdb's lx-dump-page-owner", undo, by_record=True)


# Kernels of Qualcomm leave, when they panic, a line for each block in use, its pfn, the handle of
# its stack and the number of addresses that follow: 0 where those were listed before
# (dump_page_owner_md in mm/page_owner.c of msm-5.4).
_MINIDUMP = re.compile(rb"(\d{1,13}) (\d{1,10}) (\d{1,2})\Z")
_POINTER = re.compile(rb"(?:0x)?[0-9a-f]{8,16}\Z")
_SEEN = 4
"""Records from which this form is known."""


def minidump(head: bytes) -> Alteration | None:
    """Of Qualcomm's minidumps."""
    lines = head.split(b"\n")[:1 << 10]
    at = records = 0
    while at < len(lines) and (found := _MINIDUMP.match(lines[at])):
        number = int(found[3])
        frames = lines[at + 1:at + 1 + number]
        if not all(map(_POINTER.match, frames)):
            break
        at += 1 + number
        records += 1
    if not records or (records < _SEEN and b"".join(lines[at:]).strip()):
        return None
    return Alteration(
        "the form of Qualcomm's minidump, which has no orders (each block counts as one page) and"
        " no gfp masks", _from_minidump(), by_record=True)


def _from_minidump() -> Callable[[bytes], bytes]:
    stacks: dict[bytes, bytes] = {}

    def undo(text: bytes) -> bytes:
        out = []
        lines = text.split(b"\n")
        at = 0
        while at < len(lines):
            found = _MINIDUMP.match(lines[at])
            number = int(found[3]) if found else 0
            frames = lines[at + 1:at + 1 + number]
            if not found or not all(map(_POINTER.match, frames)) or len(frames) < number:
                # damage, and counted as such
                if lines[at].strip():
                    out.append(b"\n%s\n\n" % lines[at])
                at += 1
                continue
            if number:
                stacks[found[2]] = b"".join(
                    b" 0x%s\n" % frame.removeprefix(b"0x") for frame in frames)
            stack = stacks.get(found[2], b"handle: %s\n" % found[2])
            out.append(b"%s0, mask 0x0\nPFN %s\n%s\n" % (START, found[1], stack))
            at += 1 + number
        return b"".join(out)

    return undo
