"""What each process has in memory, and the files without a name that it holds open."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pageowner.kernel import mounts
from pageowner.kernel.allowance import Allowance
from pageowner.kernel.meminfo import kilobytes
from pageowner.kernel.proc_text import proc_text

__all__ = ["DeletedFile", "GpuClient", "OpenFiles", "ProcessMemory", "mapped_inodes",
           "named_files_open", "open_files", "processes"]


class ProcessMemory(NamedTuple):
    """Bytes of a process, of /proc/PID/status: ``anonymous`` counts a page that several processes
    share in each of them. ``proportional`` is its share of those (Pss_Anon of smaps_rollup, since
    5.9); None where it was not read: not to this user, or ``late``, since the time was over.
    """

    pid: int
    comm: str
    anonymous: int
    resident: int
    page_tables: int
    proportional: int | None = None
    late: bool = False


def processes(proc: str = "/proc", seconds: float = 0.4) -> list[ProcessMemory]:
    """All processes with memory of their own, those with the most anonymous memory first.

    smaps_rollup walks the page tables of a process (fs/proc/task_mmu.c), so it is read of the
    largest first, for so many seconds in all. Kernel threads are left out; those that end meanwhile
    too.
    """
    found = []
    for pid in _pids(proc):
        try:
            text = proc_text(Path(proc, pid, "status"))
        except OSError:
            continue
        status = kilobytes(text)
        if "VmRSS" in status:
            name = re.search(r"^Name:\t(.*)$", text, re.MULTILINE)
            found.append(ProcessMemory(int(pid), name[1] if name else "", status.get("RssAnon", 0),
                                       status["VmRSS"], status.get("VmPTE", 0)))
    found.sort(key=lambda process: (-process.anonymous, process.pid))
    until = time.monotonic() + seconds
    known = []
    for process in found:
        try:
            if time.monotonic() >= until:
                process = process._replace(late=True)
            else:
                sums = kilobytes(Path(proc, str(process.pid), "smaps_rollup").read_text())
                process = process._replace(proportional=sums.get("Pss_Anon"))
        except ProcessLookupError:
            continue
        except OSError:
            pass  # not this user's, or a copy of /proc without it
        known.append(process)
    return known


class DeletedFile(NamedTuple):
    """A file that has no name any more. ``device``: ``major:minor``; ``allocated``: bytes of its
    blocks, which are memory on tmpfs and disk elsewhere; ``holders``: processes (pid, comm)."""

    path: str
    device: str
    inode: int
    allocated: int
    holders: tuple[tuple[int, str], ...]


class GpuClient(NamedTuple):
    """A client of a DRM driver: bytes of system memory that it holds (drm-usage-stats)."""

    driver: str
    pid: int
    comm: str
    system: int


@dataclass
class OpenFiles:
    """What open files tell: deleted files, largest first, clients of GPUs, buffers of dma-buf by
    inode. ``unreadable``: processes whose files this user may not see; ``complete`` is False where
    the time did not suffice."""

    deleted: list[DeletedFile] = field(default_factory=list)
    gpu: list[GpuClient] = field(default_factory=list)
    dmabuf: dict[int, int] = field(default_factory=dict)
    unreadable: int = 0
    complete: bool = True


def open_files(names: dict[int, str], proc: str = "/proc", seconds: float = 0.3) -> OpenFiles:
    """Look through the open files of the processes ``names`` (comm by pid), for so many seconds
    (`Allowance`)."""
    found = OpenFiles()
    deleted: dict[tuple[int, int], tuple[str, int, list[tuple[int, str]]]] = {}
    clients: dict[tuple[str, str], GpuClient] = {}
    allowed = Allowance(seconds)
    for pid, comm in names.items():
        if not found.complete or allowed.is_over:
            found.complete = False
            break
        folder = f"{proc}/{pid}/fd"
        try:
            numbers = os.listdir(folder)
        except PermissionError:
            found.unreadable += 1
            continue
        except OSError:
            continue
        for number in numbers:
            if allowed.is_over:
                found.complete = False
                break
            with suppress(OSError):
                target = os.readlink(f"{folder}/{number}")
                if target.endswith(" (deleted)"):
                    status = os.stat(f"{folder}/{number}")
                    key = status.st_dev, status.st_ino
                    holders = deleted.setdefault(
                        key, (target.removesuffix(" (deleted)"), status.st_blocks * 512, []))[2]
                    if (pid, comm) not in holders:
                        holders.append((pid, comm))
                elif target.startswith("/dev/dri/"):
                    _gpu_client(f"{proc}/{pid}/fdinfo/{number}", pid, comm, clients)
                elif target.startswith("/dmabuf:"):
                    _dmabuf(f"{proc}/{pid}/fdinfo/{number}",
                            os.stat(f"{folder}/{number}").st_ino, found.dmabuf)
    found.deleted = sorted(
        (DeletedFile(path, f"{os.major(device)}:{os.minor(device)}", inode, allocated,
                     tuple(holders))
         for (device, inode), (path, allocated, holders) in deleted.items()),
        key=lambda file: -file.allocated)
    found.gpu = sorted(clients.values(), key=lambda client: -client.system)
    return found


def _fields(path: str) -> dict[str, str]:
    # The first of a name counts: the name of a dma-buf comes last, and may even have line ends
    # (drivers/dma-buf/dma-buf.c, dma_buf_set_name and dma_buf_show_fdinfo, 6.12).
    return {name.strip(): value.strip() for name, _, value in (
        line.partition(":") for line in reversed(proc_text(path).split("\n")))}


def _gpu_client(path: str, pid: int, comm: str, found: dict[tuple[str, str], GpuClient]) -> None:
    """Memory regions of system memory are called ``system``, ``memory`` or ``gtt``
    (Documentation/gpu/drm-usage-stats.rst); one client may be open many times."""
    about = _fields(path)
    units = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    held = 0
    for region in ("system", "system0", "memory", "gtt"):
        words = (about.get(f"drm-resident-{region}") or about.get(f"drm-memory-{region}")
                 or "0").split()
        if words[0].isdecimal():
            held += int(words[0]) * units.get(words[1] if len(words) > 1 else "", 1)
    key = about.get("drm-pdev", ""), about.get("drm-client-id", path)
    found.setdefault(key, GpuClient(about.get("drm-driver", "DRM"), pid, comm, held))


def _dmabuf(path: str, inode: int, found: dict[int, int]) -> None:
    text = _fields(path).get("size", "0")
    if text.isdecimal():
        found[inode] = int(text)


# The first System V segment is number 0, and so is its inode (ipc/shm.c, newseg).
_MAPPED = r"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*|0(?= +/SYSV)) "


def mapped_inodes(pids: list[int], proc: str = "/proc", seconds: float = 0.3
                  ) -> set[tuple[str, int]] | None:
    """Files that processes map, as (``major:minor``, inode); None if not all could be read."""
    found: set[tuple[str, int]] = set()
    allowed = Allowance(seconds)
    for pid in pids:
        if allowed.is_over:
            return None
        try:
            text = proc_text(Path(proc, str(pid), "maps"))
        except PermissionError:
            return None
        except OSError:
            continue
        for major, minor, inode in set(re.findall(_MAPPED, text, re.MULTILINE)):
            found.add((f"{int(major, 16)}:{int(minor, 16)}", int(inode)))
    return found


def named_files_open(pids: list[int], wanted: set[tuple[str, int]], proc: str = "/proc"
                     ) -> set[tuple[str, int]]:
    """Which of the ``wanted`` files (``major:minor``, inode) these processes hold open. Files on
    other devices are told by their mount and not looked at: a look at one of a server that is away
    does not end."""
    found, devices = set(), {device for device, _ in wanted}
    for pid in pids:
        with suppress(OSError):
            near = {mount.number for mount in mounts.running(f"{proc}/{pid}/mountinfo")
                    if mount.device in devices}
            for number in os.listdir(f"{proc}/{pid}/fd") if near else ():
                with suppress(OSError):
                    about = Path(proc, str(pid), "fdinfo", number).read_text()
                    mount = re.search(r"^mnt_id:\s*(\d+)$", about, re.MULTILINE)
                    if mount is None or mount[1] not in near:
                        continue
                    status = os.stat(f"{proc}/{pid}/fd/{number}")
                    key = (f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", status.st_ino)
                    if key in wanted:
                        found.add(key)
    return found


def _pids(proc: str) -> list[str]:
    return [name for name in os.listdir(proc) if name.isdecimal()]
