"""The files /proc/kpage*: a word of 8 bytes for each page frame, read by frame number; the one
place where they are, with NumPy's arrays (`pageflags.read`) or without.

fs/proc/page.c: a read beyond the end of memory gives nothing, so what is short tells where it ends.
"""

from __future__ import annotations

import errno
import os

from pageowner.errors import PageownerError
from pageowner.kernel import flag_bits

__all__ = ["KPAGECGROUP", "KPAGECOUNT", "KPAGEFLAGS", "compound_run", "failed", "fill", "opened",
           "words"]

KPAGEFLAGS = "/proc/kpageflags"
KPAGECOUNT = "/proc/kpagecount"
KPAGECGROUP = "/proc/kpagecgroup"

_CHUNK = 1 << 20


def opened(path: str) -> int:
    """The file, open for reading. Raises PageownerError if it is missing or not readable."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise failed(path, error) from error


def fill(file: int, first: int, buffer: memoryview | bytearray) -> int:
    """Fill a buffer with the words from frame ``first`` on; how many there were."""
    octets = memoryview(buffer)
    octets, done = octets.cast("B") if octets.nbytes else octets, 0
    while done < len(octets):
        got = os.preadv(file, [octets[done:done + _CHUNK]], first * 8 + done)
        if not got:
            break
        done += got
    return done // 8


def words(path: str, first: int, count: int) -> list[int]:
    """The words of ``count`` frames, fewer where memory ends. Raises PageownerError as `opened`
    does."""
    file = opened(path)
    try:
        raw = bytearray(count * 8)
        return list(memoryview(raw).cast("Q")[:fill(file, first, raw)])
    except OSError as error:
        raise failed(path, error) from error
    finally:
        os.close(file)


def compound_run(pfn: int) -> tuple[int, int, int] | None:
    """The first frame and the number of frames of the compound page that a frame is part of, and
    the flags of the first; None where no memory is. Raises PageownerError as `opened` does."""
    most = 1 << flag_bits.MAX_ORDER
    tail = flag_bits.mask("compound_tail")
    start = max(pfn - most, 0)
    flags = words(KPAGEFLAGS, start, pfn - start + 1 + most)
    first = at = pfn - start
    if pfn < 0 or at >= len(flags):
        return None
    while first and flags[first] & tail:
        first -= 1
    after = at + 1
    while after < len(flags) and flags[after] & tail:
        after += 1
    return start + first, after - first, flags[first]


def failed(path: str, error: OSError) -> PageownerError:
    """Why such a file cannot be read, in words."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return PageownerError(f"cannot read {path}: {error.strerror}; run as root")
    if error.errno == errno.ENOENT and path == KPAGECGROUP:
        return PageownerError(
            f"{path} is not there: this kernel has no memory cgroups (CONFIG_MEMCG)")
    if error.errno == errno.ENOENT and os.path.basename(path).startswith("kpage"):
        return PageownerError(
            f"{path} is not there: this kernel is without CONFIG_PROC_PAGE_MONITOR")
    return PageownerError(f"cannot read {path}: {error.strerror}")
