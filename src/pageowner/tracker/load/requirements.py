"""What tracking needs of the machine, each asked for itself, and the refusals in words."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel.tracefs import TRACEFS, event
from pageowner.tracker.load.libbpf import SOCKET_FILTER, BpfError, Libbpf, LibbpfMissing, libbpf
from pageowner.tracker.load.pins import BPFFS, is_bpffs, lock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BPFFS", "has_tracefs", "is_mounted", "lockdown", "mount_bpffs", "mount_tracefs",
           "require", "require_root", "too_old", "tracefs_meanwhile"]

_ATOMIC_FETCH = struct.pack(
    "<" + 5 * "BBhi",
    *(0xB7, 0x01, 0, 1),       # r1 = 1
    *(0x7B, 0x1A, -8, 0),      # *(u64 *)(r10 - 8) = r1
    *(0xDB, 0x1A, -8, 0x01),   # r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)
    *(0xB7, 0x00, 0, 0),       # r0 = 0
    *(0x95, 0x00, 0, 0))       # exit
"""The youngest of what the programs cannot do without: atomics that return the old value
(kernel/bpf/verifier.c, 5.12, "bpf: Add BPF_FETCH field / create atomic_fetch_add instruction";
before, the verifier takes one for BPF_XADD with a reserved field in use). The rest is older:
BPF_PROG_TEST_RUN of raw tracepoints (5.10), bpf_get_current_task_btf (5.11), mm_page_alloc with a
struct page (3.19). Tried, not told by the version: distributions' kernels have the BPF of
later ones."""


def require(debug: bool = False) -> Libbpf:
    """Everything that `control.on` cannot do without; bpffs and tracefs are mounted if they are
    not.

    Raises PageownerError with what is missing and what to do.
    """
    require_root()
    if sys.byteorder != "little":
        raise PageownerError(
            f"tracking needs a little-endian machine, and this one ({platform.machine()}) is not:"
            " the programs are built for the other order; dumps can be read here")
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        raise PageownerError(
            "this kernel has no type information (/sys/kernel/btf/vmlinux); it needs"
            " CONFIG_DEBUG_INFO_BTF=y, as distribution kernels have"
        )
    try:
        bpf = libbpf()
    except LibbpfMissing as error:
        raise PageownerError(str(error)) from error
    why = lockdown() or too_old(bpf)
    if why:
        raise PageownerError(why)
    mount_bpffs()
    mount_tracefs()
    bpf.debug = debug
    return bpf


def require_root() -> None:
    """Raises PageownerError unless this process may load BPF programs and pin them."""
    if os.geteuid() != 0:
        raise PageownerError("tracking needs root; run with sudo")


def too_old(bpf: Libbpf) -> str | None:
    """Why the kernel's BPF is too old for the programs; None if it is not, or if it lets nobody
    try."""
    try:
        os.close(bpf.load_program("atomic_fetch", SOCKET_FILTER, _ATOMIC_FETCH))
    except BpfError as error:
        if error.errno == errno.EINVAL:
            return (f"kernel {platform.release()} is too old to track pages: its BPF has no atomic"
                    " operation that returns the old value, which Linux has since 5.12")
    return None


def lockdown(path: str = "/sys/kernel/security/lockdown") -> str | None:
    """Why lockdown forbids tracking: in mode ``confidentiality`` BPF may not read kernel memory
    (kernel_lockdown(7)); None if it does not."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    if "[confidentiality]" in text:
        return ("the kernel is locked down (confidentiality), so BPF may not read kernel memory;"
                " boot with lockdown=integrity or without it")
    return None


def is_mounted() -> bool:
    """Whether there is a bpffs at `BPFFS`."""
    return is_bpffs()


def mount_bpffs() -> bool:
    """Mount bpffs if need be, for root alone; whether that was done. Raises PageownerError if it
    cannot be."""
    if is_mounted():
        return False
    with lock(None):  # two mounts would hide one's pins behind the other
        if is_mounted():
            return False
        # without a mode it would be as /tmp is (bpf_fill_super() in kernel/bpf/inode.c)
        _mount("bpf", BPFFS, "BPF file system", "mode=0700,nosuid,nodev,noexec")
    return True


def has_tracefs() -> bool:
    """Whether the tracepoints of memory can be seen, in any of the places of tracefs."""
    return event("kmem/mm_page_alloc") is not None


def mount_tracefs() -> bool:
    """Mount tracefs if need be, as `mount_bpffs` does."""
    if has_tracefs():
        return False
    _mount("tracefs", TRACEFS[0], "tracefs")
    return True


@contextmanager
def tracefs_meanwhile() -> Iterator[None]:
    """With tracefs; without it again afterwards, if it was not there."""
    mounted = mount_tracefs()
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", TRACEFS[0]], capture_output=True, check=False)


def _mount(kind: str, place: str, what: str, options: str = "") -> None:
    words = ["mount", "-t", kind, *(["-o", options] if options else []), kind, place]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()
        raise PageownerError(
            f"no {what} at {place} and it cannot be mounted"
            f" ({why[-1] if why else done.returncode}); try: {' '.join(words)}"
        )
