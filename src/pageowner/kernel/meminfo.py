"""The kernel's memory counters: /proc/meminfo, /proc/vmstat and /proc/zoneinfo.

Which of them count the same pages is in `pageowner.analysis.balance`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CloseRead", "kilobytes", "parse_vmstat", "pcp_pages", "read_together"]

_ATTEMPTS = 5


def kilobytes(text: str) -> dict[str, int]:
    """Lines such as ``MemFree:  12 kB`` of /proc/meminfo or /proc/PID/status, in bytes; lines
    without this unit (``HugePages_Total``) are left out.

    ``kB`` are 1,024 bytes (fs/proc/meminfo.c, show_val_kb).
    """
    found = {}
    for line in text.splitlines():
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


def read_together(proc: str = "/proc", within: float = 0.0005) -> CloseRead:
    """The counters of (nearly) one moment: read again, up to five times, while free memory moves by
    more than ``within`` of the total. The attempt in which it moved least is returned.

    Raises OSError if /proc/meminfo cannot be read; of the others an unreadable one is empty.
    """
    best: CloseRead | None = None
    for _ in range(_ATTEMPTS):
        # zoneinfo on both sides of meminfo would not help: what moves is seen by MemFree
        before = _text(f"{proc}/meminfo")
        zoneinfo, vmstat = _optional(f"{proc}/zoneinfo"), _optional(f"{proc}/vmstat")
        after = _text(f"{proc}/meminfo")
        first, last = kilobytes(before), kilobytes(after)
        moved = abs(first.get("MemFree", 0) - last.get("MemFree", 0))
        if best is None or moved < best.moved:
            best = CloseRead(after, vmstat, zoneinfo, moved)
        if moved <= within * last.get("MemTotal", 0):
            break
    assert best is not None
    return best


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _optional(path: str) -> str:
    try:
        return _text(path)
    except OSError:
        return ""
