"""openat2(2): to open what lies in a folder where others may have a hand."""

from __future__ import annotations

import ctypes
import errno
import os
import stat

__all__ = ["open_strictly"]

_OPENAT2 = 437  # on every architecture
_NO_LINKS_NO_MOUNTS = 1 | 2 | 4  # RESOLVE_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS (openat2.h)
_TRIES = 1000  # of what another user can bring to nought again and again

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """struct open_how (uapi/linux/openat2.h)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64),
                ("resolve", ctypes.c_uint64))


def open_strictly(folder: int, path: str, flags: int) -> int:
    """openat(), but no link is followed and no mount entered: OSError with ELOOP (ENOTDIR for a
    folder) and EXDEV.

    Where openat2() is not to be had, as in units of systemd with ``RestrictSUIDSGID=`` (what it is
    given cannot be filtered), each part of the path is opened and looked at."""
    how = _OpenHow(flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _NO_LINKS_NO_MOUNTS)
    for _ in range(_TRIES):
        ctypes.set_errno(0)
        handle: int = _libc.syscall(ctypes.c_long(_OPENAT2), folder, os.fsencode(path),
                                    ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if handle >= 0:
            return handle
        if ctypes.get_errno() != errno.EAGAIN:  # somebody renames or mounts just now
            break
    if ctypes.get_errno() == errno.ENOSYS:
        return _step_by_step(folder, path, flags)
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def _step_by_step(folder: int, path: str, flags: int) -> int:
    *before, last = path.split("/")
    mount, at = _mount(folder), os.dup(folder)
    try:
        for name in before:
            at = _entered(at, name, os.O_DIRECTORY, mount)
        at = _entered(at, last, flags & os.O_DIRECTORY, mount)
        if flags & os.O_PATH:
            return os.dup(at)
        if stat.S_ISLNK(os.fstat(at).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.open(f"/proc/self/fd/{at}", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
    finally:
        os.close(at)


def _entered(folder: int, name: str, flags: int, mount: str) -> int:
    """What is there by this name, in the place of the folder, which is closed."""
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    if _mount(found) != mount:
        os.close(found)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    os.close(folder)
    return found


def _mount(handle: int) -> str:
    """The number of the mount that something opened lies in (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{handle}", encoding="ascii") as file:
        return next(line for line in file if line.startswith("mnt_id:"))
