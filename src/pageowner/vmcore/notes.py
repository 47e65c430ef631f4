"""VMCOREINFO where a dump has no note of it: QEMU writes none unless the machine has the device
vmcoreinfo, and libvirt's ``virsh dump --memory-only`` neither. The kernel keeps the note in its own
memory (kernel/vmcore_info.c, vmcoreinfo_note), which the dump has.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

__all__ = ["find_note", "has_note"]

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
    raw = _read(file, 0, _HEADER.size)
    if len(raw) < _HEADER.size:
        return False
    fields = _HEADER.unpack(raw)
    at, size, count = fields[5], fields[9], fields[10]
    if size != _SEGMENT.size:
        return False
    table = _read(file, at, size * min(count, 1 << 16))
    for start in range(0, len(table) - size + 1, size):
        kind, _, offset, _, _, length, _, _ = _SEGMENT.unpack_from(table, start)
        if kind == _PT_NOTE and _NAME in _read(file, offset, min(length, _MOST_NOTES)):
            return True
    return False


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
