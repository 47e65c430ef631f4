"""Memory of shmem: tmpfs by mount, System V segments, files in /dev/shm."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pageowner.kernel import mounts

__all__ = ["SysvSegment", "Tmpfs", "TmpfsFile", "memfd_device", "parse_sysv", "read_sysv",
           "shm_files", "tmpfs_mounts"]

_NAMESPACES = 200
_FILES = 10_000


class Tmpfs(NamedTuple):
    """A mounted tmpfs or devtmpfs. ``used``: bytes in memory or swap; None if the file system has
    no limit and so does not tell (mm/shmem.c, shmem_statfs), or is out of reach."""

    place: str
    device: str
    used: int | None


class SysvSegment(NamedTuple):
    """A System V segment: bytes in memory, processes attached, the pid that made it."""

    id: int
    resident: int
    attached: int
    creator: int


class TmpfsFile(NamedTuple):
    """A file on tmpfs: bytes of its blocks."""

    path: str
    device: str
    inode: int
    allocated: int


def tmpfs_mounts(pids: list[int], proc: str = "/proc") -> list[Tmpfs]:
    """Each mounted tmpfs once, of all mount namespaces that this user may look into."""
    found: dict[str, Tmpfs] = {}
    seen: set[str] = set()
    for root in [f"{proc}/self", *(f"{proc}/{pid}" for pid in pids)]:
        if len(seen) >= _NAMESPACES:
            break
        with suppress(OSError):
            namespace = os.readlink(f"{root}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            first = len(seen) == 1
            for mount in mounts.running(f"{root}/mountinfo"):
                if mount.kind not in ("tmpfs", "devtmpfs"):
                    continue
                known = found.get(mount.device)
                if known is None or known.used is None:
                    inside = "" if first else f"{root}/root"
                    place = mount.place if first else f"{mount.place} (namespace of {root[6:]})"
                    found[mount.device] = Tmpfs(place, mount.device,
                                                _used(inside + mount.place, mount.device))
    return sorted(found.values(), key=lambda mount: -(mount.used or 0))


def _used(path: str, device: str) -> int | None:
    with suppress(OSError):
        number = os.stat(path).st_dev
        if f"{os.major(number)}:{os.minor(number)}" != device:  # something is mounted over it
            return None
        about = os.statvfs(path)
        if about.f_blocks:
            return (about.f_blocks - about.f_bfree) * about.f_frsize
    return None


def parse_sysv(text: str) -> list[SysvSegment]:
    """Segments of the text of /proc/sysvipc/shm (ipc/shm.c, sysvipc_shm_proc_show)."""
    head, *lines = text.splitlines() or [""]
    names = head.split()
    found = []
    for line in lines:
        about = dict(zip(names, line.split(), strict=False))
        with suppress(KeyError, ValueError):
            found.append(SysvSegment(int(about["shmid"]), int(about["rss"]), int(about["nattch"]),
                                     int(about["cpid"])))
    return sorted(found, key=lambda segment: -segment.resident)


def shm_files(folder: str = "/dev/shm", least: int = 1 << 20) -> list[TmpfsFile]:
    """Files of at least so many bytes below a tmpfs, largest first; the first 10,000 names are
    looked at."""
    found, todo, seen = [], [folder], 0
    while todo and seen < _FILES:
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                seen += 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # it has gone meanwhile
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and status.st_blocks * 512 >= least:
                    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
                    found.append(TmpfsFile(entry.path, device, status.st_ino,
                                           status.st_blocks * 512))
    return sorted(found, key=lambda file: -file.allocated)


def memfd_device() -> str:
    """The device of the kernel's own tmpfs, which has memfds, System V segments and shared mappings
    without a file (mm/shmem.c, shm_mnt), as ``major:minor``; "" if there are no memfds."""
    try:
        file = os.memfd_create("pageowner")
    except (OSError, AttributeError):
        return ""
    number = os.fstat(file).st_dev
    os.close(file)
    return f"{os.major(number)}:{os.minor(number)}"


def read_sysv(proc: str = "/proc") -> list[SysvSegment]:
    """`parse_sysv` of this machine; none where the kernel has no System V IPC."""
    try:
        return parse_sysv(Path(proc, "sysvipc/shm").read_text())
    except OSError:
        return []
