"""What stands behind the PFN line of a page_owner record: stacks, and lines about the page.

The parser calls this once for every distinct text, not for every record.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pageowner.kernel.task_names import to_text
from pageowner.model.schema import COLUMNS, LINES

__all__ = ["BEFORE_PFN", "BEFORE_STACK", "Body", "first_word", "is_frame", "parse_body"]

BEFORE_PFN, BEFORE_STACK = "before_pfn", "before_stack"
"""Where lines of vendors stand, if not behind the stack."""


class Body(NamedTuple):
    """What follows: frames, and lines about the page. ``notes`` keeps all lines but frames and
    the handle, in their order; ``unknown`` counts those whose meaning is not known. ``columns``:
    what lines say (`pageowner.model.schema.LINES`), by column. ``places``: for lines that stood
    elsewhere than behind the stack the first word, and where (`BEFORE_PFN`, `BEFORE_STACK`)."""

    stack: str | None
    handle: int | None = None
    notes: str | None = None
    unknown: int = 0
    columns: tuple[tuple[str, str | int], ...] = ()
    places: tuple[tuple[str, str], ...] = ()

    def said(self, column: str) -> str | int | None:
        """What a line says of a column; None if none does."""
        if not self.columns:
            return None
        return next((value for name, value in self.columns if name == column), None)


# A line of a stack whose blank in front is lost, told by an offset, an address or a line of source.
_FRAME = re.compile(
    rb"(?:\? )?(?:\[<[^>\]\n]*>\] +\S.*|0x[0-9a-f]{8,16}|"
    rb"[^\s()\[\]+]+\+(?:0x[0-9a-f]+(?:/0x[0-9a-f]+)?|\d+)(?: .*)?|"
    rb"[^\s()\[\]]+ \([^\s()]+:(?:\d+|\?).*\)(?: +\[?[\w-]+\]?)?) *\Z")
# What begins another stack: "[free]" of crash's owner module, "page last free stack trace:" and
# "page last free pid 9 tgid 9 stack trace:" of __dump_page_owner (mm/page_owner.c).
_HEADING = re.compile(rb"(?:\[([a-z]+)\]|([^+/]*):) *\Z", re.IGNORECASE)
_ADDRESS = re.compile(rb"\[<[^>\]\n]*>\] +")
_LINES = {name: re.compile(line.pattern.encode() + rb"\Z") for name, line in LINES.items()}
# Lines of the kernel, of patches and of vendors that are understood, and no column is made of.
_UNDERSTOOD = re.compile(rb"(?:SLAB_PAGE|FILE_PAGE|ANON_PAGE) |Slab cache page\Z")
_HANDLE = re.compile(rb"handle: (\d{1,10})\Z")


def first_word(line: str) -> str:
    """What tells a line of a vendor from others, of up to 40 characters."""
    return line.split(None, 1)[0].split(":", maxsplit=1)[0][:40] if line.strip() else ""


def is_frame(line: bytes) -> bool:
    """Whether a line is one of a stack without the blank in front."""
    return _FRAME.match(line) is not None


def parse_body(body: bytes, before: bytes = b"") -> Body:
    """All lines behind the PFN line, or ``before`` it; never fails, since lines not known are kept
    as notes.

    Of several stacks, as where a page was freed is another one, the first is that of the
    allocation; the lines of the others are notes.
    """
    lines, above = _Lines(), before.count(b"\n")
    for number, line in enumerate((before + body).split(b"\n")):
        if (line[:1] in (b" ", b"\t") and line.strip()) or _FRAME.match(line):
            lines.add_frame(line.strip())
        elif line.strip():
            lines.add(line, number < above)
    return Body(_text(lines.frames), lines.handle, _text(lines.notes), lines.unknown,
                tuple(lines.columns.items()), tuple(lines.places.items()))


def _text(lines: list[bytes]) -> str | None:
    return to_text(b"\n".join(lines)) if lines else None


class _Lines:
    """The lines of a record, and what they said so far."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.notes: list[bytes] = []
        self.places: dict[str, str] = {}
        self.columns: dict[str, str | int] = {}
        self.handle: int | None = None
        self.unknown = 0
        self._of_another_stack = False

    def add_frame(self, frame: bytes) -> None:
        if self._of_another_stack:
            self.notes.append(b" " + frame)
            return
        if not self.frames:
            for note in self.notes:
                self.places.setdefault(first_word(to_text(note)), BEFORE_STACK)
        if frame.startswith(b"[<"):
            frame = _ADDRESS.sub(b"", frame, count=1)
        self.frames.append(frame)

    def add(self, line: bytes, above: bool) -> None:
        """Any other line; ``above`` the PFN line."""
        if (found := _HANDLE.match(line)) and not int(found[1]) >> 32:
            self.handle = int(found[1])
            return
        heading = _HEADING.match(line)
        if heading and heading[1] == b"alloc" and not self.frames:
            return
        self.notes.append(line)
        if above:
            self.places[first_word(to_text(line))] = BEFORE_PFN
        if not self._says_known(line):
            is_free = b"free" in line.lower()
            if heading and (self.frames or is_free):
                self._of_another_stack = True
            self.unknown += not (heading and is_free)

    def _says_known(self, line: bytes) -> bool:
        for column, pattern in _LINES.items():
            if found := pattern.match(line):
                value = _value(column, found[1])
                if value is not None:
                    self.columns[column] = value
                return True
        return _UNDERSTOOD.match(line) is not None


def _value(column: str, text: bytes) -> str | int | None:
    """Text as the column's type; None for a number that does not fit it."""
    if not COLUMNS[column].is_number:
        return to_text(text)
    least, most = COLUMNS[column].range
    return number if least <= (number := int(text)) <= most else None
