"""What every load shares: how it reports, how it holds what it allocated, and the system calls.

A load is a small program that runs as root in a guest. It does its work, prints one line,

    NAME: did: …            what it did, with the counts that the kernel gives for it
    NAME: could not: …      why this kernel or machine does not have it

and, with ``--hold``, keeps what it allocated until its standard input ends; then it undoes it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
MIB = 1 << 20

MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT = 8, 14, 15, 21
MADV_DONTNEED, MADV_REMOVE = 4, 9
MAP_HUGETLB = 0x40000
THP = Path("/sys/kernel/mm/transparent_hugepage")
MAP_HUGE_2MB = 21 << 26
"""The size has to be said: with pages of 16 or 64 KiB the usual one is larger."""
PR_SET_NAME = 15

MACHINES = ("x86_64", "aarch64")
SYSCALLS = {"bpf": (321, 280), "io_uring_setup": (425, 425), "mbind": (237, 235),
            "migrate_pages": (256, 238), "move_pages": (279, 239)}
"""Their numbers on each of MACHINES."""

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
for _name in ("munmap", "madvise", "mprotect"):
    getattr(libc, _name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.syscall.restype = ctypes.c_long
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class CannotLoad(Exception):
    """This kernel or machine does not have what the load needs; one line says what."""


def check(result: int, what: str) -> int:
    """The result of a C call. Raises OSError if it is -1 (`what` says what was tried)."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(name: str, what: str, *arguments: object) -> int:
    """A raw system call by its name. Raises OSError."""
    number = SYSCALLS[name][MACHINES.index(platform.machine())]
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(libc.syscall(ctypes.c_long(number), *words), what)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Take a part out of a file, which keeps its size. Raises OSError."""
    keep_size, punch = 1, 2
    check(libc.fallocate(descriptor, keep_size | punch, offset, length), "punching a hole")


class Region:
    """Anonymous private memory, aligned to huge pages, whose parts can be given back one by one."""

    def __init__(self, size: int, flags: int = 0) -> None:
        """Map `size` bytes (a multiple of 2 MiB); `flags` are added to the mmap flags."""
        self.size = size
        span = size if flags & MAP_HUGETLB else size + HUGE
        kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags
        address = libc.mmap(None, span, mmap.PROT_READ | mmap.PROT_WRITE, kind, -1, 0)
        check(-1 if address == ctypes.c_void_p(-1).value else 0, f"mmap of {size >> 20} MiB")
        self.start = address if flags & MAP_HUGETLB else (address + HUGE - 1) & -HUGE

    def advise(self, advice: int, offset: int = 0, length: int | None = None) -> None:
        """madvise a part. All pages are small where the kernel has no huge ones (PREEMPT_RT)."""
        if advice == MADV_NOHUGEPAGE and not THP.exists():
            return
        length = self.size - offset if length is None else length
        check(libc.madvise(self.start + offset, length, advice), f"madvise {advice}")

    def touch(self, offset: int = 0, length: int | None = None, step: int = PAGE) -> None:
        """Write to every `step` bytes of a part."""
        length = self.size - offset if length is None else length
        memory = (ctypes.c_char * length).from_address(self.start + offset)
        for at in range(0, length, step):
            memory[at] = b"\1"

    def bind(self, node: int, length: int | None = None) -> None:
        """Let the first part live on one NUMA node; what lies elsewhere is migrated there."""
        policy_bind, flag_move = 2, 2
        mask = (ctypes.c_ulong * 1)(1 << node)
        length = self.size if length is None else length
        start = ctypes.c_void_p(self.start)
        syscall("mbind", "mbind", start, length, policy_bind, mask, 8, flag_move)

    def frames(self) -> list[int]:
        """Frame numbers of the pages that are present."""
        with open("/proc/self/pagemap", "rb") as pagemap:
            pagemap.seek(self.start // PAGE * 8)
            entries = struct.unpack(f"<{self.size // PAGE}Q", pagemap.read(self.size // PAGE * 8))
        return [entry & ((1 << 55) - 1) for entry in entries if entry >> 63]

    def unmap(self, offset: int, length: int) -> None:
        """Give a part back."""
        check(libc.munmap(self.start + offset, length), "munmap")


def small_pages(size: int) -> Region:
    """A region of `size` bytes that the kernel makes no huge pages of."""
    region = Region(size)
    region.advise(MADV_NOHUGEPAGE)
    return region


def counters(*names: str) -> list[int]:
    """These counters of /proc/vmstat; 0 for one that the kernel does not have."""
    table = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return [int(table.get(name, 0)) for name in names]


def since(before: list[int], *names: str) -> str:
    """How far these counters went, as text."""
    after = counters(*names)
    return ", ".join(
        f"{name} +{b - a}" for name, a, b in zip(names, before, after, strict=True)
    )


def put(path: str | Path, text: str) -> None:
    """Write to a kernel file in one write. Raises CannotLoad if it is not there, OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        raise CannotLoad(f"there is no {path}") from None
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def run(*command: str) -> str:
    """Run a tool. Raises CannotLoad if it is not installed or fails, with its own last line."""
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotLoad(f"{command[0]} is not installed") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CannotLoad(f"{' '.join(command)}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def folder(held: ExitStack, name: str) -> Path:
    """A new folder in the guest's own memory file system, gone when the load ends."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    held.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def mounted(held: ExitStack, kind: str, source: str, options: str = "") -> Path:
    """Mount a file system on a new folder; unmounted when the load ends."""
    where = folder(held, kind)
    run("mount", "-t", kind, *(["-o", options] if options else []), source, str(where))
    held.callback(run, "umount", str(where))
    return where


def main(name: str, load: Callable[[ExitStack], str]) -> None:
    """Run a load as a program: `load(held)` does it, registers what undoes it in `held`, and
    returns the sentence that says what it did."""
    libc.prctl(PR_SET_NAME, f"load-{name}".encode(), 0, 0, 0)
    with ExitStack() as held:
        try:
            print(f"{name}: did: {load(held)}", flush=True)
        except CannotLoad as error:
            print(f"{name}: could not: {error}", flush=True)
        except OSError as error:
            text = error.strerror or str(error)
            where = f" ({error.filename})" if error.filename else ""
            code = errno.errorcode.get(error.errno or 0, "")
            print(f"{name}: could not: {text}{where} {code}".rstrip(), flush=True)
        if "--hold" in sys.argv[1:]:
            sys.stdin.read()
