"""Memory cgroups: from the number that the kernel gives to the path that people know.

/proc/kpagecgroup (fs/proc/page.c) and BPF's bpf_get_current_cgroup_id() both name a cgroup by the
inode of its directory; the first means the hierarchy with the memory controller, the second that of
version 2.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pageowner.kernel import mounts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["STATES", "Cgroups", "charge_state", "gone", "memory", "path_state", "unified"]

STATES = ("online", "offline")
"""What a cgroup that is charged can be: offline ones were removed, but pages are still theirs."""

_CHARGED = re.compile(r"^Charged (?:\(via objcg\) )?to (offlined? )?memcg ", re.MULTILINE)
_GONE = re.compile(r"cgroup \d+ \(gone(?:: .*)?\)", re.DOTALL)


def gone(number: int, path: str = "") -> str:
    """What a cgroup that is no more is called: ``cgroup 1234 (gone: /a/b)``, which no path is."""
    return f"cgroup {number} (gone{': ' if path else ''}{path})"


def charge_state(notes: str) -> str | None:
    """One of `STATES`, by the lines of a record of page owner (mm/page_owner.c,
    print_page_owner_memcg, since 5.18); None if none of them is about a cgroup."""
    found = _CHARGED.search(notes)
    return None if found is None else STATES[found[1] is not None]


def path_state(path: str) -> str:
    """One of `STATES`, by what `Cgroups.path` says."""
    return STATES[_GONE.fullmatch(path) is not None]


@dataclass
class Cgroups:
    """Paths of one hierarchy by cgroup id: ``/system.slice/ssh.service``; its root is ``/``.

    ``origin`` is where it is mounted, "" if this machine has no such hierarchy.
    """

    known: dict[int, str] = field(default_factory=dict)
    origin: str = ""

    def path(self, number: int) -> str | None:
        """The path of a cgroup; ``cgroup 1234 (gone)`` if it is no more; None for 0, which means
        that nothing was charged."""
        if not number:
            return None
        return self.known.get(number) or gone(number)

    def column(self, numbers: NDArray[np.uint64]) -> tuple[NDArray[np.int32], list[str]]:
        """Paths of many, as a dictionary: indices (-1 for what was not charged) and values."""
        import numpy as np

        distinct, index = np.unique(numbers, return_inverse=True)
        values: list[str] = []
        codes = []
        for number in distinct.tolist():
            path = self.path(number)
            codes.append(-1 if path is None else len(values))
            if path is not None:
                values.append(path)
        return np.array(codes, np.int32)[index.reshape(numbers.shape)], values


def memory(mountinfo: str | None = None) -> Cgroups:
    """The cgroups that memory is charged to: of version 1's memory controller if that is mounted,
    else of version 2."""
    mounted = _mounted(mountinfo)
    return _walk(_place(mounted, "cgroup", "memory") or _place(mounted, "cgroup2"))


def unified(mountinfo: str | None = None) -> Cgroups:
    """The cgroups of version 2."""
    return _walk(_place(_mounted(mountinfo), "cgroup2"))


def _mounted(mountinfo: str | None) -> list[mounts.Mount]:
    try:
        return mounts.running() if mountinfo is None else mounts.parse(mountinfo)
    except OSError:
        return []


def _place(mounted: list[mounts.Mount], kind: str, controller: str = "") -> str:
    """Where a hierarchy is mounted, "" if it is not."""
    return next((mount.place for mount in mounted if mount.kind == kind
                 and (not controller or controller in mount.options)), "")


def _walk(top: str) -> Cgroups:
    """Every directory below ``top`` by its inode; those that vanish meanwhile are left out."""
    found = Cgroups(origin=top)
    if not top:
        return found
    try:
        found.known[os.stat(top).st_ino] = "/"
    except OSError:
        return Cgroups()
    todo = [(top, "")]
    while todo:
        directory, name = todo.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        path = f"{name}/{entry.name}"
                        found.known[entry.inode()] = _printable(path)
                        todo.append((entry.path, path))
        except OSError:
            continue
    return found


def _printable(path: str) -> str:
    """A name that is not UTF-8 keeps its bytes as ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
