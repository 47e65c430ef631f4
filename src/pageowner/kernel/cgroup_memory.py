"""What memory cgroups are charged with, and how many of them were removed but still hold memory."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pageowner.kernel.allowance import Allowance

if TYPE_CHECKING:
    from pageowner.kernel.cgroups import Cgroups

__all__ = ["CgroupCharges", "CgroupMemory", "read_charges"]


class CgroupMemory(NamedTuple):
    """Bytes charged to a cgroup itself, without those below it that still exist; ``container`` and
    ``pod``: what these are called, see `pageowner.kernel.containers`, None outside of any."""

    path: str
    anonymous: int
    file: int
    kernel: int
    container: str | None = None
    pod: str | None = None


@dataclass
class CgroupCharges:
    """Cgroups with the most first. ``removed``: how many were removed and are still charged, None
    if the kernel does not tell; ``removed_bytes``: anonymous and file memory charged to them, where
    version 1 tells; ``complete`` is False where the time did not suffice."""

    cgroups: list[CgroupMemory] = field(default_factory=list)
    removed: int | None = None
    removed_bytes: int | None = None
    complete: bool = True


def read_charges(known: Cgroups, proc: str = "/proc", seconds: float = 0.2) -> CgroupCharges:
    """memory.stat of every cgroup of ``known``.

    In version 2 a cgroup's figures include those below it (Documentation/admin-guide/
    cgroup-v2.rst), so what the children have is taken off; charges of removed cgroups are then
    their parent's. In version 1 they are its own (``total_`` ones are not), and the number of
    cgroups in /proc/cgroups includes removed ones (kernel/cgroup/cgroup.c, css_free_rwork_fn).
    """
    found, own, allowed = CgroupCharges(), {}, Allowance(seconds)
    whole: dict[str, int] = {}
    version1 = (Path(known.origin) / "memory.limit_in_bytes").exists()
    for path in known.known.values() if known.origin else ():
        if allowed.is_over:
            found.complete = False
            break
        stat = _stat(f"{known.origin}{path}/memory.stat")
        if path == "/" and version1:
            whole = stat
        if "anon" in stat:
            own[path] = [stat["anon"], stat.get("file", 0), stat.get("kernel") or sum(
                stat.get(name, 0) for name in ("kernel_stack", "pagetables", "percpu", "slab"))]
        elif "rss" in stat:
            kernel = _number(f"{known.origin}{path}/memory.kmem.usage_in_bytes")
            own[path] = [stat["rss"], stat.get("cache", 0), kernel]
    places = [0, 1, 2] if not version1 else [2]  # of version 1 only kernel memory includes children
    # Those above first, while what is below them has its whole figures yet.
    for path in sorted(own, key=lambda path: path.count("/")):
        parent = path.rpartition("/")[0] or "/"
        if path != "/" and parent in own:
            for place in places:
                own[parent][place] -= own[path][place]
    found.cgroups = sorted((CgroupMemory(path, anonymous, file, kernel)
                            for path, (anonymous, file, kernel) in own.items()),
                           key=lambda cgroup: -(cgroup.anonymous + cgroup.file + cgroup.kernel))
    _removed(found, known, proc, whole)
    return found


def _removed(found: CgroupCharges, known: Cgroups, proc: str, whole: dict[str, int]) -> None:
    dying = _stat(f"{known.origin}/cgroup.stat").get("nr_dying_descendants")
    if whole:
        with suppress(OSError):
            number = re.search(r"^memory\t\d+\t(\d+)\t", Path(proc, "cgroups").read_text(),
                               re.MULTILINE)
            if number and int(number[1]) >= len(known.known):
                found.removed = int(number[1]) - len(known.known)
        if found.complete:
            found.removed_bytes = sum(
                whole.get(total, 0) for total in ("total_rss", "total_cache")) - sum(
                cgroup.anonymous + cgroup.file for cgroup in found.cgroups)
    elif dying is not None:
        found.removed = dying


def _stat(path: str) -> dict[str, int]:
    with suppress(OSError):
        return {name: int(value) for name, value in re.findall(
            r"^(\w+) (\d+)$", Path(path).read_text(), re.MULTILINE)}
    return {}


def _number(path: str) -> int:
    with suppress(OSError, ValueError):
        return int(Path(path).read_text())
    return 0
