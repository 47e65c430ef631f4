"""openat2(2): to open what lies in a folder where others may have a hand."""

from __future__ import annotations

import ctypes
import errno
import os

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
    folder) and EXDEV."""
    how = _OpenHow(flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _NO_LINKS_NO_MOUNTS)
    for _ in range(_TRIES):
        ctypes.set_errno(0)
        handle: int = _libc.syscall(ctypes.c_long(_OPENAT2), folder, os.fsencode(path),
                                    ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if handle >= 0:
            return handle
        if ctypes.get_errno() != errno.EAGAIN:  # somebody renames or mounts just now
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
