"""Whom `on` is to track alone: the process or the cgroup that its options name, if there is one."""

from __future__ import annotations

import os
from pathlib import Path

from pageowner.errors import PageownerError, UsageError
from pageowner.kernel import mounts
from pageowner.kernel.proc_text import proc_text
from pageowner.tracker.load.calibrate import is_first_pid_namespace

__all__ = ["began", "cgroup", "has_ended", "process"]


def process(tgid: int) -> int:
    """The same, if there is such a process."""
    if not tgid:
        return 0
    try:
        text = proc_text(f"/proc/{tgid}/status")
    except OSError:
        raise UsageError(f"there is no process {tgid} to track") from None
    leader = next((line for line in text.split("\n") if line.startswith("Tgid:")), "")
    if leader.split()[1:] != [str(tgid)]:  # threads are there too, though not listed
        raise UsageError(f"{tgid} is a thread, not a process; for its process use --pid"
                         f" {leader.split()[-1]}")
    return tgid


def began(tgid: int) -> int | None:
    """When this process started, in clock ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{tgid}/stat").read_bytes()
    except OSError:
        return None
    # Field 22; the second is the name, which may hold anything (proc_pid_stat(5)).
    return int(text.rpartition(b")")[2].split()[19])


def has_ended(tgid: int, start: int | None) -> bool:
    """Whether the process that is tracked alone, if one is, has ended: its number is nobody's, or
    another's, which BPF takes for it. False where /proc has other numbers."""
    return bool(tgid) and is_first_pid_namespace() and (start is None or began(tgid) != start)


def cgroup(path: str) -> tuple[int, int]:
    """Id and depth of a cgroup v2: its directory's inode number is its id (kernfs, 64 bit)."""
    root = next((mount.place for mount in mounts.running() if mount.kind == "cgroup2"), None)
    if root is None:
        raise PageownerError("cgroup v2 is not mounted, so tracking cannot be limited to a cgroup")
    if os.stat(root).st_ino != 1:
        raise PageownerError(
            f"{root} is the root of a cgroup namespace (a container), not of cgroup v2, so the"
            " depth that BPF needs is unknown here; use --cgroup outside the container")
    # resolved, since the depth is counted in the parts of the path
    place = Path(path if Path(path).is_relative_to(root) else f"{root}/{path.lstrip('/')}")
    place = place.resolve()
    if not place.is_relative_to(root) or not place.is_dir():
        raise UsageError(f"no cgroup {path} below {root}")
    return place.stat().st_ino, len(place.relative_to(root).parts)
