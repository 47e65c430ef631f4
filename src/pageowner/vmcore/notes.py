"""VMCOREINFO where a dump has no note of it: QEMU writes none unless the machine has the device
vmcoreinfo, and libvirt's ``virsh dump --memory-only`` neither. The kernel keeps the note in its own
memory (kernel/vmcore_info.c, vmcoreinfo_note), which the dump has.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["end_of", "find_note", "has_note"]

_NAME = b"VMCOREINFO\0"
_BEGIN = b"VMCOREINFO\0\0OSRELEASE="
_AT_ONCE = 1 << 22
_MOST = 1 << 16
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_PT_NOTE = 4
_MOST_NOTES = 1 << 26


def has_note(file: BinaryIO) -> bool:
    """Whether an ELF file has a note of this name."""
    return any(kind == _PT_NOTE and _NAME in _read(file, offset, min(length, _MOST_NOTES))
               for kind, offset, length in _segments(file))


def end_of(file: BinaryIO) -> int:
    """The byte at which the last segment of an ELF file ends; 0 where it has none."""
    return max((offset + length for _, offset, length in _segments(file)), default=0)


def _segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Type, first byte in the file, and bytes of each segment."""
    raw = _read(file, 0, _HEADER.size)
    if len(raw) < _HEADER.size:
        return
    fields = _HEADER.unpack(raw)
    at, size, count = fields[5], fields[9], fields[10]
    if size != _SEGMENT.size:
        return
    table = _read(file, at, size * min(count, 1 << 16))
    for start in range(0, len(table) - size + 1, size):
        kind, _, offset, _, _, length, _, _ = _SEGMENT.unpack_from(table, start)
        yield kind, offset, length


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    """So many bytes from there on, fewer where the file ends."""
    if at > 1 << 62:
        return b""
    file.seek(at)
    return file.read(size)


def find_note(file: BinaryIO) -> str | None:
    """The text of the kernel's own note, in a file that has memory as it was, or None."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    for start in range(0, size, _AT_ONCE):
        file.seek(start)
        piece = file.read(_AT_ONCE + len(_BEGIN))
        at = piece.find(_BEGIN)
        while at >= 0:
            if text := _text(file, start + at):
                return text
            at = piece.find(_BEGIN, at + 1)
    return None


def _text(file: BinaryIO, at: int) -> str | None:
    """The text of the note whose name is there, if it is whole: its length comes before."""
    if at < 12:
        return None
    file.seek(at - 12)
    name, length, _ = struct.unpack("<III", file.read(12))
    if name != len(_NAME) or not 0 < length <= _MOST:
        return None
    file.seek(at + len(_NAME) + 1)
    text = file.read(length).rstrip(b"\0")
    return text.decode("utf-8", "backslashreplace") if b"\nSYMBOL(" in text else None
