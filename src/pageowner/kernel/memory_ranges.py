"""Which page frames the machine has, /proc/iomem, and which of them are offline."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from pageowner.errors import PageownerError

__all__ = ["PAGE_SHIFT", "is_present", "memory_ranges", "parse_iomem", "present_ranges",
           "ram_ranges"]

PAGE_SHIFT = 12
"""Bytes of /proc/iomem's addresses to page frames; set for other page sizes by the caller."""

_RAM = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) : System RAM", re.MULTILINE)
_MEMORY = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) : (?:System RAM|reserved$)", re.MULTILINE)
"""With the memory that firmware keeps: arm64 and riscv call it ``reserved`` (setup.c,
request_standard_resources and init_resources). What x86 calls ``Reserved`` may be no memory."""


def parse_iomem(text: str, page_shift: int = PAGE_SHIFT,
                lines: re.Pattern[str] = _RAM) -> list[tuple[int, int]]:
    """Ranges ``(first pfn, pfn after the last)`` of ``System RAM``, in order, joined where they
    touch. Memory of DAX devices given to the system (``System RAM (kmem)``, drivers/dax/kmem.c)
    counts. Frames that a range covers in part are left out, as the kernel does.
    """
    ranges: list[tuple[int, int]] = []
    page = 1 << page_shift
    for first, last in sorted((int(a, 16), int(b, 16)) for a, b in lines.findall(text)):
        start, end = (first + page - 1) >> page_shift, (last + 1) >> page_shift
        if start >= end:
            continue
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def ram_ranges(path: str = "/proc/iomem") -> list[tuple[int, int]]:
    """`parse_iomem` of this machine. Raises PageownerError where the addresses are hidden
    (zeros without CAP_SYS_ADMIN)."""
    ranges = parse_iomem(Path(path).read_text(), _page_shift())
    if not ranges:
        raise PageownerError(
            f"{path} shows no System RAM to this process; run as root, outside a container"
        )
    return ranges


def memory_ranges(path: str = "/proc/iomem") -> list[tuple[int, int]]:
    """All memory that has struct pages of its own and may be in a zone: RAM, and what firmware
    keeps of it; none where the addresses are hidden.

    Memory of devices (``Persistent Memory``, DAX, GPUs) may have struct pages too, but is never the
    page allocator's: /proc/kpageflags does not show it (fs/proc/page.c, pfn_to_online_page).
    """
    return parse_iomem(Path(path).read_text(), _page_shift(), _MEMORY)


def present_ranges(proc: str = "/proc", sys: str = "/sys") -> list[tuple[int, int]]:
    """`memory_ranges` without the memory that is offline, as the kernel calls what was taken from
    the page allocator, or not given to it yet, and may be removed. ``proc``, ``sys``: where these
    file systems are."""
    return _without(memory_ranges(f"{proc}/iomem"), _offline(sys))


def is_present(pfn: int, proc: str = "/proc", sys: str = "/sys") -> bool:
    """Whether a page frame is in `present_ranges`, which need not all be found for it; also where
    the addresses are hidden."""
    there = memory_ranges(f"{proc}/iomem")
    if there and not any(first <= pfn < end for first, end in there):
        return False
    top = f"{sys}/devices/system/memory"
    with suppress(OSError, ValueError, ZeroDivisionError):
        return _state(f"{top}/memory{pfn // _block_size(top)}/state") != b"offline"
    return True


def _block_size(top: str) -> int:
    """In page frames. Raises OSError, ValueError."""
    return int(Path(top, "block_size_bytes").read_text(), 16) >> _page_shift()


def _offline(sys: str) -> list[tuple[int, int]]:
    """Blocks of memory that are offline, which /proc/iomem has (drivers/base/memory.c, state_show,
    6.12); none where the kernel knows no such blocks."""
    top = f"{sys}/devices/system/memory"
    found: list[tuple[int, int]] = []
    try:
        size = _block_size(top)
        for name in os.listdir(top):
            number = name.removeprefix("memory")
            if number.isdecimal() and _state(f"{top}/{name}/state") == b"offline":
                found.append((int(number) * size, (int(number) + 1) * size))
    except (OSError, ValueError):
        return []
    return sorted(found)


def _state(path: str) -> bytes:
    with suppress(OSError), open(path, "rb", 0) as file:  # or removed, also from /proc/iomem
        return file.read(64).strip()
    return b""


def _without(left: list[tuple[int, int]],
             holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for first, end in holes:
        left = [part for start, stop in left
                for part in ((start, min(stop, first)), (max(start, end), stop))
                if part[0] < part[1]]
    return left


def _page_shift() -> int:
    return os.sysconf("SC_PAGE_SIZE").bit_length() - 1
