"""A part of a dump, from one record's beginning to another's, read in chunks and counted."""

from __future__ import annotations

import os

from pageowner.page_owner_sort.counting import SEPARATOR, Tally

__all__ = ["CHUNK", "add_part", "boundary", "last_record"]

CHUNK = 1 << 17
"""Bytes read at a time: what is split at once then stays in a processor's second-level cache."""


def boundary(fd: int, offset: int, end: int) -> int:
    """Where the first record at or after an offset begins; ``end`` if none does."""
    while offset < end:
        data = os.pread(fd, CHUNK, offset)
        if len(data) < len(SEPARATOR):
            break
        cut = data.find(SEPARATOR)
        if cut >= 0:
            return offset + cut + 2
        offset += len(data) - len(SEPARATOR) + 1
    return end


def add_part(tally: Tally, fd: int, start: int, end: int, *, last: bool) -> None:
    """Count the blocks between two boundaries of a file."""
    size = CHUNK
    while start < end:
        data = os.pread(fd, min(size, end - start), start)
        if not data or start + len(data) >= end:
            if last:
                tally.add_end(data)
            else:
                tally.add(data[:-2])
            return
        cut = last_record(data)
        if cut < 0:
            size *= 2
            continue
        tally.add(data[:cut])
        start += cut + 2
        size = CHUNK


def last_record(data: bytes) -> int:
    """Where in a chunk its last record begins, but for the empty line before; -1 if none does."""
    cut = data.rfind(SEPARATOR)
    if cut < 0:
        # No record begins here. Any empty line will do, but for one in the name of the first.
        cut = data.rfind(b"\n\n")
        if cut < 4096:
            return -1
    return cut
