"""How much of the files that processes hold open is in the page cache: cachestat(2), since 6.5."""

from __future__ import annotations

import ctypes
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from pageowner.kernel import mounts
from pageowner.kernel.allowance import Allowance

__all__ = ["CachedFile", "CachedFiles", "open_cached_files"]

_PIDFD_GETFD, _CACHESTAT = 438, 451  # the same on all architectures but alpha
_LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "f2fs", "vfat", "exfat", "ntfs3", "erofs",
                    "squashfs", "iso9660"))
"""File systems whose files are looked at. Closing a file of a network file system or of FUSE makes
it write back or asks a server (nfs_file_flush, fuse_flush)."""


class CachedFile(NamedTuple):
    """Bytes of a file in the page cache, and a process that holds it open."""

    path: str
    cached: int
    pid: int
    comm: str


class CachedFiles(NamedTuple):
    """Open files with pages in the page cache, largest first; ``complete`` is False where there was
    no time to look at all."""

    files: list[CachedFile]
    complete: bool = True


class _Range(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Stat(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in (
        "cache", "dirty", "writeback", "evicted", "recently_evicted"))


def open_cached_files(names: dict[int, str], page_size: int, least: int = 1 << 20,
                      seconds: float = 0.15) -> CachedFiles | None:
    """Open files of at least so many bytes, largest in the cache first; files that several
    processes hold open once; as many as can be looked at in ``seconds``. None where the kernel has
    no cachestat or this user may not ask.

    The files are not opened again, which would break leases: pidfd_getfd (5.6) copies the
    descriptor.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    try:
        local = {mount.device for mount in mounts.running() if mount.kind in _LOCAL}
    except OSError:
        return None
    found: dict[tuple[int, int], CachedFile] = {}
    allowed, answered, complete = Allowance(seconds), False, True
    for pid, comm in names.items():
        if allowed.is_over:
            complete = False
            break
        with suppress(OSError):
            process = os.pidfd_open(pid)
            try:
                for number in os.listdir(f"/proc/{pid}/fd"):
                    with suppress(OSError):
                        path = f"/proc/{pid}/fd/{number}"
                        target = os.readlink(path)
                        if not target.startswith("/") or target.startswith(("/dev/", "/memfd:")):
                            continue
                        about = os.stat(path)
                        device = f"{os.major(about.st_dev)}:{os.minor(about.st_dev)}"
                        key = about.st_dev, about.st_ino
                        if (device not in local or not stat.S_ISREG(about.st_mode)
                                or about.st_size < least or key in found):
                            continue
                        held = _cached(call, process, int(number))
                        if held is not None:
                            answered = True
                            found[key] = CachedFile(target, held * page_size, pid, comm)
            finally:
                os.close(process)
    if not answered:
        return None
    return CachedFiles(sorted((file for file in found.values() if file.cached),
                              key=lambda file: -file.cached), complete)


def _cached(call: ctypes._NamedFuncPointer, process: int, number: int) -> int | None:
    """Pages of an open file in the page cache (mm/filemap.c, SYSCALL cachestat)."""
    copy = call(_PIDFD_GETFD, process, number, 0)
    if copy < 0:
        return None
    try:
        whole, answer = _Range(0, 0), _Stat()
        failed = call(_CACHESTAT, copy, ctypes.byref(whole), ctypes.byref(answer), 0)
        return None if failed else int(answer.cache)
    finally:
        os.close(copy)
