"""How memory stands, by files of the kernel that are open before it is short.

OOM kills and failed allocations are read from the kernel's log (/dev/kmsg), which wakes who waits
for it, names the victim, and takes no BPF program of its own as the tracepoint oom:mark_victim
would; no tracepoint tells of failed allocations.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from pageowner.errors import PageownerError
from pageowner.report.text import printable

__all__ = ["KernelLog", "Memory", "Pressure", "Sign", "Standing", "sign_of"]

_RECORD = 1 << 14  # Documentation/ABI/testing/dev-kmsg: a read gives one record, or EINVAL
_FACILITY = 3  # bits of the priority below the facility; the kernel's own is 0

# mm/oom_kill.c, __oom_kill_process(): "%s: Killed process %d (%s) total-vm:%lukB"
_KILLED = re.compile(r"^(?:(Out of memory|Memory cgroup out of memory)[^:]*: )?Killed process (\d+)"
                     r" \((.*)\)(?:,? total-vm|, UID)")
# mm/page_alloc.c, warn_alloc(): "%s: page allocation failure: order:%u, mode:"
_FAILED = re.compile(r"^(.*): page allocation failure: order:(\d+), mode")

_SOON_S = 3.0
_LITTLE = 0.25
_LEAST = 0.03
_FASTEST = 4 << 30  # bytes a second that a few CPUs fill


class Sign(NamedTuple):
    """What a line of the kernel's log says: an event of ``oom`` or ``order``, in a sentence, and
    the order."""

    event: str
    text: str
    order: int = 0


def sign_of(record: bytes) -> Sign | None:
    """The sign in a record of /dev/kmsg (``priority,sequence,time,flags;text``), if it is the
    kernel's own: any user of /dev/kmsg may write others."""
    head, _, text = record.partition(b";")
    priority = head.partition(b",")[0]
    if not priority.isdigit() or int(priority[:9]) >> _FACILITY:
        return None
    line = text.partition(b"\n")[0].decode(errors="backslashreplace")
    if found := _KILLED.match(line):
        where = " of a cgroup at its limit" if (found[1] or "").startswith("Memory") else ""
        return Sign("oom", f"the kernel killed {printable(_unescaped(found[3]) or '?')} (pid"
                           f" {found[2]}){where} to get memory")
    if found := _FAILED.match(line):
        return Sign("order", f"{printable(_unescaped(found[1]) or '?')}: an allocation of order"
                             f" {found[2]} failed", int(found[2]))
    return None


def _unescaped(text: str) -> str:
    r"""/dev/kmsg writes what is not printable as ``\x1b``, and a backslash so too."""
    return text.replace("\\x5c", "\\")


class KernelLog:
    """The kernel's log from now on. ``fd`` is readable when there is more; None without rights."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self.fd: int | None = None
        with suppress(OSError):
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with suppress(OSError):
                os.lseek(self.fd, 0, os.SEEK_END)

    def signs(self) -> list[Sign]:
        """Those that came since the last time."""
        found: list[Sign] = []
        while self.fd is not None:
            try:
                record = os.read(self.fd, _RECORD)
            except BlockingIOError:
                break
            except BrokenPipeError:  # the oldest were overwritten
                continue
            except OSError:
                break
            if not record:
                break
            if sign := sign_of(record):
                found.append(sign)
        return found


class Pressure:
    """A trigger of /proc/pressure/memory (Documentation/accounting/psi.rst): ``fd`` polls POLLPRI
    when tasks stalled for ``stall_us`` of ``window_us``."""

    def __init__(self, stall_us: int, window_us: int,
                 path: str = "/proc/pressure/memory") -> None:
        """Raises PageownerError where the kernel does not have it, or refuses."""
        self.fd = -1
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self.fd, f"some {stall_us} {window_us}\0".encode())
        except OSError as error:
            if self.fd >= 0:
                os.close(self.fd)
            raise PageownerError(
                f"{path}: no trigger for memory pressure: {error.strerror}; it takes a kernel with"
                " psi=1 and, for this window, root; without it: --on low=5%") from error


class Standing(NamedTuple):
    """``available`` of ``total`` bytes, and what is left in seconds at the present rate (None: it
    does not shrink)."""

    available: int
    total: int
    left_s: float | None

    @property
    def is_near(self) -> bool:
        """Whether memory is about to be gone: hardly any is left, or it is a quarter at most and
        gone in three seconds."""
        return self.available < self.total * _LEAST or (
            self.available < self.total * _LITTLE and self.left_s is not None
            and self.left_s < _SOON_S)

    def next_s(self, bound: float) -> float:
        """When to look again: before so fast a program could fill memory to ``bound`` bytes."""
        return min(max((self.available - bound) / _FASTEST, 0.05), 1.0)


class Memory:
    """/proc/meminfo, open."""

    def __init__(self, path: str = "/proc/meminfo") -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._last: tuple[float, int] | None = None

    def standing(self, now: float) -> Standing:
        """At ``now``, in seconds of a clock that nobody sets."""
        text = os.pread(self._fd, 4096, 0)
        total, available = (int(text.partition(name)[2].split(None, 1)[0]) << 10
                            for name in (b"MemTotal:", b"MemAvailable:"))
        left = None
        if self._last is not None and now > self._last[0] and available < self._last[1]:
            left = available * (now - self._last[0]) / (self._last[1] - available)
        self._last = now, available
        return Standing(available, total, left)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)
