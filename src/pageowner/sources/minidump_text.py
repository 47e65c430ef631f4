"""Records of a minidump as text: `pageowner.sources.minidump` says what they are."""

from __future__ import annotations

import re

from pageowner.sources.page_owner_parser import START

__all__ = ["RECORD", "RECORD_BEHIND", "Stacks", "are_addresses", "record_of", "stack_of"]

RECORD = re.compile(rb"(\d{1,13}) (\d{1,10}) (\d{1,2})\Z")
RECORD_BEHIND = re.compile(rb"\n(?=\d{1,13} \d{1,10} \d{1,2}\n)")
_POINTER = re.compile(rb"(?:0x)?[0-9a-f]{8,16}\Z")


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
        self.changed: set[bytes] = set()
        """Handles that were put with another stack, or none, before: for who keeps what they are.
        """

    def of(self, handle: bytes) -> bytes:
        """The lines of a stack; that of the handle, if it is not known."""
        return self.known.get(handle, b"handle: %s\n" % handle)

    def put(self, handle: bytes, frames: list[bytes]) -> None:
        """List a stack, of so many addresses."""
        stack = stack_of(frames)
        if self.known.get(handle) != stack:
            self.known[handle] = stack
            self.changed.add(handle)

    def undo(self, text: bytes) -> bytes:
        """Records as the kernel prints them."""
        out = []
        lines = text.split(b"\n")
        at = 0
        while at < len(lines):
            found = RECORD.match(lines[at])
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
