"""What the kernel counts of its own page allocator, in /proc/vmstat."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["pages_freed"]


def pages_freed(path: str = "/proc/vmstat") -> int | None:
    """Base pages given back to the page allocator since boot; None where the kernel does not count
    them (CONFIG_VM_EVENT_COUNTERS).

    The allocator counts itself, whether or not its tracepoint mm_page_free was seen by anybody:
    PGFREE, where blocks go to the buddy allocator and where they go to a CPU's own list
    (mm/page_alloc.c of 6.1, 6.12 and 7.3: the same blocks that the tracepoint announces).
    """
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    found = re.search(r"^pgfree (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None
