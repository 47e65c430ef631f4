"""The kernel's memory counters: /proc/meminfo, /proc/vmstat and /proc/zoneinfo.

Which of them count the same pages is in `pageowner.analysis.balance`.
"""

from __future__ import annotations

import mmap
import re
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CloseRead", "best", "kilobytes", "parse_vmstat", "pcp_pages", "read_together", "sizes"]

_ATTEMPTS, _BETWEEN = 7, 0.04
_COUNTED = ("MemFree", "AnonPages", "Cached", "Buffers", "Slab", "PageTables", "VmallocUsed")
"""The largest counters that count no page twice."""


def kilobytes(text: str) -> dict[str, int]:
    """Lines such as ``MemFree:  12 kB`` of /proc/meminfo or /proc/PID/status, in bytes; lines
    without this unit (``HugePages_Total``) are left out.

    ``kB`` are 1,024 bytes (fs/proc/meminfo.c, show_val_kb).
    """
    found = {}
    for line in text.split("\n"):
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdecimal():
            found[name] = int(words[0]) << 10
    return found


def parse_vmstat(text: str) -> dict[str, int]:
    """Each counter of the text of /proc/vmstat."""
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}


def pcp_pages(zoneinfo: str) -> int:
    """Free pages on the lists of the CPUs, of the text of /proc/zoneinfo: not in
    NR_FREE_PAGES (mm/page_alloc.c, rmqueue_bulk and free_pcppages_bulk) nor another counter."""
    return sum(map(int, re.findall(r"^\s+count:\s+(\d+)$", zoneinfo, re.MULTILINE)))


@dataclass(frozen=True)
class CloseRead:
    """The texts of the three files, read one after the other; ``moved``: by how many bytes the sum
    of what meminfo counts as used changed while they were read."""

    meminfo: str
    vmstat: str
    zoneinfo: str
    moved: int


def read_together(proc: str = "/proc") -> CloseRead:
    """The counters of (nearly) one moment: the `best` of seven readings in a quarter of a second.

    Raises OSError if /proc/meminfo cannot be read; of the others an unreadable one is empty.
    """
    found: list[CloseRead] = []
    for _ in range(_ATTEMPTS):
        if found:
            time.sleep(_BETWEEN)
        # zoneinfo on both sides of meminfo would not help: what moves is seen by MemFree
        before = _text(f"{proc}/meminfo")
        zoneinfo, vmstat = _optional(f"{proc}/zoneinfo"), _optional(f"{proc}/vmstat")
        after = _text(f"{proc}/meminfo")
        first, last = kilobytes(before), kilobytes(after)
        found.append(CloseRead(after, vmstat, zoneinfo,
                               abs(first.get("MemFree", 0) - last.get("MemFree", 0))))
        if len(found) > 1 and found[-2].meminfo == after:  # a copy, or nothing moves
            break
    return best(found)


def best(readings: list[CloseRead], within: float = 0.0005) -> CloseRead:
    """The reading that leaves the least uncounted, of those in which free memory moved by at most
    ``within`` of the total; the one in which it moved least, if it moved more in all.

    Pages that a process has just unmapped are in no counter until they are free (mm/mmu_gather.c:
    up to MAX_GATHER_BATCH_COUNT batches for each task that is at it). That may be 100 MiB at one
    moment, and nothing some milliseconds later.
    """
    def rank(reading: CloseRead) -> tuple[bool, int]:
        memory = kilobytes(reading.meminfo)
        if reading.moved > within * memory.get("MemTotal", 0):
            return True, reading.moved
        counted = sum(memory.get(name, 0) for name in _COUNTED)
        return False, -counted - pcp_pages(reading.zoneinfo) * mmap.PAGESIZE

    return min(readings, key=rank)


def sizes(proc: str = "/proc") -> dict[str, int]:
    """What /proc/meminfo counts now, in bytes; empty if it cannot be read."""
    return kilobytes(_optional(f"{proc}/meminfo"))


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _optional(path: str) -> str:
    try:
        return _text(path)
    except OSError:
        return ""
