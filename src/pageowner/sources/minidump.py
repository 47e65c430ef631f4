"""Page owner's list in Qualcomm's minidumps.

Kernels of Qualcomm leave, when they panic, a line for each block in use, its pfn, the handle of its
stack and the number of addresses that follow: 0 where those were listed before (dump_page_owner_md
in mm/page_owner.c of msm-5.4).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.sources.alteration import Alteration
from pageowner.sources.page_owner_parser import START
from pageowner.sources.whole_records import Quick

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.sources.page_owner_parser import Parser
    from pageowner.sources.whole_records import Records

__all__ = ["Stacks", "are_addresses", "minidump", "record_of", "stack_of"]

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
    stacks = Stacks()
    return Alteration(
        "the form of Qualcomm's minidump, which has no orders (each block counts as one page) and"
        " no gfp masks", stacks.undo, by_record=True,
        # An empty line ends each record, and whatever is none.
        quick=Quick(stacks.take, b"", lambda text: True))


def record_of(pfn: bytes, stack: bytes) -> bytes:
    """As the kernel prints it, with the empty line behind it."""
    return b"%s0, mask 0x0\nPFN %s\n%s\n" % (START, pfn, stack)


def stack_of(addresses: list[bytes]) -> bytes:
    """The lines of a stack as the kernel prints it."""
    return b"".join(b" 0x%s\n" % address.removeprefix(b"0x") for address in addresses)


class Stacks:
    """The stacks that a text has listed so far, by their handle, as it is written there."""

    def __init__(self) -> None:
        self.known: dict[bytes, bytes] = {}
        self._columns: Callable[[bytes, Parser], Records | None] | None = None

    def of(self, handle: bytes) -> bytes:
        """The lines of a stack; that of the handle, if it is not known."""
        return self.known.get(handle, b"handle: %s\n" % handle)

    def put(self, handle: bytes, frames: list[bytes]) -> None:
        """List a stack, of so many addresses."""
        self.known[handle] = stack_of(frames)

    def take(self, text: bytes, parser: Parser) -> Records | None:
        """Records by columns; None if they are not all just so."""
        if self._columns is None:
            from pageowner.sources.minidump_columns import Columns

            self._columns = Columns(self, parser).take
        return self._columns(text, parser)

    def undo(self, text: bytes) -> bytes:
        """Records as the kernel prints them."""
        out = []
        lines = text.split(b"\n")
        at = 0
        while at < len(lines):
            found = _MINIDUMP.match(lines[at])
            number = int(found[3]) if found else 0
            frames = lines[at + 1:at + 1 + number]
            if not found or not are_addresses(frames) or len(frames) < number:
                # damage, and counted as such
                if lines[at].strip():
                    out.append(b"\n%s\n\n" % lines[at])
                at += 1
                continue
            if number:
                self.put(found[2], frames)
            out.append(record_of(found[1], self.of(found[2])))
            at += 1 + number
        return b"".join(out)


def are_addresses(lines: list[bytes]) -> bool:
    """Whether these can be the lines of a stack."""
    return all(map(_POINTER.match, lines))
