"""Text of /proc in which the kernel writes names that others chose: of tasks, files, cgroups."""

from __future__ import annotations

from pathlib import Path

__all__ = ["proc_text"]


def proc_text(path: str | Path, errors: str = "backslashreplace") -> str:
    r"""The text of a file of /proc, of which ``"\n"`` alone ends a line; raises OSError.

    No other is escaped in names (6.12: fs/proc/array.c, proc_task_name; fs/proc_namespace.c,
    mangle; fs/proc/task_mmu.c, show_map_vma) or refused (kernel/cgroup/cgroup.c, cgroup_mkdir): a
    task called ``"\rTgid:\t1"`` has a line of its own to whoever takes ``"\r"`` for an end, as
    `Path.read_text` and `str.splitlines` do, the latter with more. So split it by ``"\n"``.
    """
    return Path(path).read_bytes().decode("utf-8", errors)
