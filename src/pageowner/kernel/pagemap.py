"""Which page frame lies behind an address of a process: /proc/PID/pagemap.

Documentation/admin-guide/mm/pagemap.rst: a word for each page, bit 63 set if it is in memory, bit
62 if it is swapped out, the page frame number in bits 0 to 54, which reads as 0 without
CAP_SYS_ADMIN (since 4.2, fs/proc/task_mmu.c, pagemap_open()).
"""

from __future__ import annotations

import mmap
import os

from pageowner.errors import PageownerError

__all__ = ["frame_of", "frames"]

_PRESENT, _SWAPPED = 1 << 63, 1 << 62
_FRAME = (1 << 55) - 1


def frame_of(pid: int, address: int, proc: str = "/proc") -> int:
    """The page frame behind an address (bytes) of a process.

    Raises PageownerError, in one line, if there is no such process, nothing at that address, or it
    is not for this user to know.
    """
    where = f"{pid}:{address:#x}"
    try:
        word = next(iter(_words(f"{proc}/{pid}/pagemap", address, 1)), 0)
    except FileNotFoundError:
        raise PageownerError(f"{where}: there is no process {pid}") from None
    except PermissionError:
        raise PageownerError(f"{where}: only root can read that: use sudo") from None
    except (OSError, OverflowError) as error:
        raise PageownerError(f"{where}: is not an address of a process: {error}") from None
    if word & _SWAPPED:
        raise PageownerError(f"{where}: is swapped out, so no page frame holds it")
    if not word & _PRESENT:
        raise PageownerError(f"{where}: no page is there (never touched, or not mapped)")
    if not word & _FRAME:
        raise PageownerError(f"{where}: the kernel shows page frames only to root: use sudo")
    return word & _FRAME


def frames(address: int, count: int) -> list[int]:
    """The page frames behind ``count`` pages of this process. Raises ValueError if one is not
    there, or not for this user to know."""
    entries = _words("/proc/self/pagemap", address, count)
    if not entries or not all(word & _PRESENT and word & _FRAME for word in entries):
        raise ValueError("a page is not there")
    return [word & _FRAME for word in entries]


def _words(path: str, address: int, count: int) -> list[int]:
    with open(path, "rb", buffering=0) as file:
        raw = os.pread(file.fileno(), 8 * count, address // mmap.PAGESIZE * 8)
    return list(memoryview(raw[:len(raw) // 8 * 8]).cast("Q"))
