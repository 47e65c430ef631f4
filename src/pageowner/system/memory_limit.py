"""How much memory this process may still take, and whether what it is about to do fits."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

from pageowner.errors import PageownerError
from pageowner.kernel.meminfo import kilobytes
from pageowner.kernel.proc_text import proc_text
from pageowner.report.text import size

__all__ = ["available", "check"]

_SMALL = 1 << 20
"""Bytes that are not asked for: what has less left ends anywhere, with MemoryError."""


def available(swap: bool = True) -> int:
    """Bytes that this process can take before the kernel has to kill: what the machine has
    available, with what can be swapped unless ``swap`` is False, or less where a cgroup or a limit
    of the process (``ulimit -v``, ``-d``) says so."""
    found = [_machine(swap), *_cgroups()]
    used = _status()
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and name in used:
            found.append(soft - used[name])
    return max(min(found), 0)


def check(needed: int, what: str) -> None:
    """Raises PageownerError, beginning with ``what``, if so many bytes are not available."""
    if needed <= _SMALL:
        return
    there = available()
    if needed > there:
        raise PageownerError(f"{what} would take {size(needed)} of memory, and {size(there)} is"
                             " available; use a machine with more, or stop other programs")


def _machine(swap: bool) -> int:
    memory = kilobytes(Path("/proc/meminfo").read_text())
    free = memory.get("MemAvailable", memory.get("MemFree", 0))
    return free + (memory.get("SwapFree", 0) if swap else 0)


def _status() -> dict[str, int]:
    return kilobytes(Path("/proc/self/status").read_text(errors="replace"))


def _cgroups() -> list[int]:
    """What the limits of this process's cgroup and those above it leave (cgroup v2; files that can
    be dropped do not count as taken)."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        text = proc_text("/proc/self/cgroup", "surrogateescape")
        path = next(line[3:] for line in text.split("\n") if line.startswith("0::"))
        folder = Path("/sys/fs/cgroup") / path.lstrip("/")
        while folder != folder.parent and os.path.isdir(folder):
            with suppress(OSError, ValueError):
                limit = int((folder / "memory.max").read_text())  # "max" is no number
                current = int((folder / "memory.current").read_text())
                stat = dict(line.split() for line in
                            (folder / "memory.stat").read_text().splitlines())
                found.append(limit - current + int(stat.get("inactive_file", 0)))
            folder = folder.parent
    return found
