"""How many dentries are in use: /proc/sys/fs/dentry-state."""

from __future__ import annotations

from pathlib import Path

from pageowner.kernel.slabs import parse_slabinfo

__all__ = ["bytes_in_use", "in_use"]


def in_use(proc: str = "/proc") -> int | None:
    """Dentries less those that nobody uses, which the kernel takes back when memory is short
    (fs/dcache.c, proc_nr_dentry: ``nr_dentry`` and ``nr_unused``); None if unreadable."""
    try:
        words = Path(proc, "sys/fs/dentry-state").read_text(errors="replace").split()
        return int(words[0]) - int(words[1])
    except (OSError, ValueError, IndexError):
        return None


def bytes_in_use(proc: str = "/proc") -> int | None:
    """The memory of these in their slabs; None if that is unreadable, or without /proc/slabinfo."""
    number = in_use(proc)
    try:
        text = Path(proc, "slabinfo").read_text(errors="backslashreplace")
    except OSError:
        return None
    size = next((cache.object_size for cache in parse_slabinfo(text) if cache.name == "dentry"),
                None)
    return None if number is None or size is None else number * size
