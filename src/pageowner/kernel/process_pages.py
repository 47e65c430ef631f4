"""Which page frames processes have in memory as anonymous pages: /proc/PID/pagemap.

Where the kernel has PAGEMAP_SCAN (6.7, Documentation/admin-guide/mm/pagemap.rst) it tells where to
look; else every mapping of /proc/PID/maps is looked through that can have such pages.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["ProcessPages", "anonymous_pages"]

_PRESENT, _FILE = np.uint64(1 << 63), np.uint64(1 << 61)
_FRAME = np.uint64((1 << 55) - 1)
_AT_ONCE = 1 << 16
_REGIONS = 4096
_IS_FILE, _IS_PRESENT, _IS_ZERO = 1 << 2, 1 << 3, 1 << 5
_PAGEMAP_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16
_LARGEST = 1 << 40
"""Bytes of a mapping that is looked through without PAGEMAP_SCAN; larger ones are address space set
aside, and 2 GiB of pagemap."""


class _Scan(ctypes.Structure):
    """struct pm_scan_arg (include/uapi/linux/fs.h)."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in (
        "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages", "inverted",
        "mask", "anyof", "returned"))


@dataclass
class ProcessPages:
    """``pfn`` and ``process``, a place in the processes that were asked about, of each page that
    one of them has mapped: a page that several share is there several times. ``late``: how many
    processes there was no time for; ``unreadable``: the places of those that could not be read, but
    had not ended; ``skipped``: of those with a mapping that was too large to look through."""

    pfn: NDArray[np.uint64]
    process: NDArray[np.int32]
    late: int = 0
    unreadable: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)


def anonymous_pages(pids: Iterable[int], proc: str = "/proc", seconds: float = 5.0
                    ) -> ProcessPages:
    """The anonymous pages of these processes, in the order given, for so many seconds in all."""
    pfns: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    places: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    until = time.monotonic() + seconds
    found = ProcessPages(pfns[0], places[0])
    end = _user_end()
    for place, pid in enumerate(pids):
        if time.monotonic() > until:
            found.late += 1
            continue
        try:
            file = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            found.unreadable.append(place)
            continue
        try:
            regions, whole = _regions(file, f"{proc}/{pid}/maps", end)
            if not whole:
                found.skipped.append(place)
            here: list[NDArray[np.uint64]] = []
            for start, stop in regions:
                here += _anonymous(file, start, stop, until)
        except TimeoutError:
            found.late += 1
        except ProcessLookupError:
            here = []
        except OSError:
            found.unreadable.append(place)
            here = []
        finally:
            os.close(file)
        for part in here:
            pfns.append(part)
            places.append(np.full(len(part), place, np.int32))
    found.pfn, found.process = np.concatenate(pfns), np.concatenate(places)
    return found


def _anonymous(file: int, start: int, end: int, until: float) -> Iterator[NDArray[np.uint64]]:
    """Raises TimeoutError."""
    for first in range(start // mmap.PAGESIZE, end // mmap.PAGESIZE, _AT_ONCE):
        if time.monotonic() > until:
            raise TimeoutError
        count = min(_AT_ONCE, end // mmap.PAGESIZE - first)
        words = np.frombuffer(os.pread(file, count * 8, first * 8), np.uint64)
        frames = words[(words & (_PRESENT | _FILE)) == _PRESENT] & _FRAME
        yield frames[frames != 0]


def _regions(file: int, maps: str, user_end: int | None) -> tuple[list[tuple[int, int]], bool]:
    """Where to look, and whether that is everywhere."""
    if user_end is not None:
        return _scanned(file, user_end), True
    found, whole = [], True
    with open(maps, "rb") as lines:  # names of files may have any other line end
        for start, end in re.findall(rb"^([0-9a-f]+)-([0-9a-f]+) ", lines.read(), re.MULTILINE):
            first, stop = int(start, 16), int(end, 16)
            if stop - first > _LARGEST:
                whole = False
            elif first < 1 << 63:
                found.append((first, stop))
    return found, whole


def _scanned(file: int, user_end: int) -> list[tuple[int, int]]:
    """Where a process has anonymous pages in memory, as (first address, behind the last)."""
    regions = (ctypes.c_uint64 * (3 * _REGIONS))()
    kinds = _IS_FILE | _IS_ZERO
    asked = _Scan(size=ctypes.sizeof(_Scan), start=0, end=user_end,
                  vec=ctypes.addressof(regions), vec_len=_REGIONS, inverted=kinds,
                  mask=kinds | _IS_PRESENT, returned=_IS_PRESENT)
    found = []
    while asked.start < asked.end:
        count = fcntl.ioctl(file, _PAGEMAP_SCAN, asked)
        found += [(regions[3 * place], regions[3 * place + 1]) for place in range(count)]
        if asked.walk_end <= asked.start:
            break
        asked.start = asked.walk_end
    return found


@cache
def _user_end(own: str = "/proc/self/pagemap") -> int | None:
    """Behind the last address that a process can have; None where this kernel has no PAGEMAP_SCAN,
    which refuses addresses beyond it (fs/proc/task_mmu.c, pagemap_scan_get_args): 47 or 56 bits on
    x86-64, 36 to 52 on arm64, by its configuration and processor.
    """
    try:
        file = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for bits in range(57, 30, -1):
            for end in (1 << bits, (1 << bits) - mmap.PAGESIZE):
                asked = _Scan(size=ctypes.sizeof(_Scan), start=end - mmap.PAGESIZE, end=end,
                              mask=_IS_PRESENT, returned=_IS_PRESENT)
                with suppress(OSError):
                    fcntl.ioctl(file, _PAGEMAP_SCAN, asked)
                    # arm64 takes the highest byte for a tag, so that an end may become another.
                    if asked.walk_end == end:
                        return end
    finally:
        os.close(file)
    return None
