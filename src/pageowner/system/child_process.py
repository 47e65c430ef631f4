"""A child process that ends with its parent, also when that is killed outright."""

from __future__ import annotations

import os

__all__ = ["end_with"]

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_SIGKILL = 9


def end_with(parent: int) -> None:
    """To be called in a child, with the process id of its parent: the kernel kills this process
    when the thread that forked it ends (prctl(2))."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(_SIGKILL))
    if os.getppid() != parent:  # it has ended before
        os._exit(1)
