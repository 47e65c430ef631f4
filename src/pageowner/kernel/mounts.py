"""What is mounted where, for this process: /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from typing import NamedTuple

from pageowner.kernel.proc_text import proc_text

__all__ = ["Mount", "parse", "running"]


class Mount(NamedTuple):
    """``place``: the directory; ``kind``: of file system; ``options`` of the file system itself,
    among them the controllers of a hierarchy of cgroups of version 1; ``device``: its number as
    ``major:minor``, as in /proc/PID/maps but for hexadecimal there; ``root``: which directory of
    the file system is mounted there; ``number``: the mount's id, as ``mnt_id`` in
    /proc/PID/fdinfo."""

    place: str
    kind: str
    options: tuple[str, ...]
    device: str = ""
    root: str = "/"
    number: str = ""


def running(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """In the order of the file: what is mounted over something else comes after it. Raises
    OSError."""
    return parse(proc_text(path, "surrogateescape"))


def parse(mountinfo: str) -> list[Mount]:
    """The mounts of the text of mountinfo; lines that are none are left out."""
    found = []
    for line in mountinfo.split("\n"):
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(rest) >= 3:
            root, place = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)
                           for field in fields[3:5])
            found.append(Mount(place, rest[0], tuple(rest[2].split(",")), fields[2], root,
                               fields[0]))
    return found
