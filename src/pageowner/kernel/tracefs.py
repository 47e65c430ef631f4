"""Where the kernel shows its tracepoints."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TRACEFS", "event"]

TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
"""The second one is tracefs, too: debugfs mounts it there (fs/tracefs/inode.c)."""


def event(name: str) -> Path | None:
    """The directory of a tracepoint (``kmem/mm_page_alloc``); None where tracefs is not mounted,
    or has none of that name."""
    for root in TRACEFS:
        path = Path(root, "events", name)
        if (path / "id").exists():
            return path
    return None
