"""What tracking needs of the machine, each asked for itself, and the refusals in words."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel.tracefs import TRACEFS, event
from pageowner.tracker.libbpf import Libbpf, LibbpfMissing, libbpf
from pageowner.tracker.maps import PIN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BPFFS", "OLDEST", "has_tracefs", "is_mounted", "kernel_version", "lockdown",
           "mount_bpffs", "mount_tracefs", "require", "require_root", "tracefs_meanwhile"]

BPFFS = os.path.dirname(PIN_DIRECTORY)
"""Where the tracker pins."""

OLDEST = (5, 15)
"""What the programs need: atomics that return (5.12), BPF_PROG_TEST_RUN of raw tracepoints
(5.10), mm_page_alloc with a struct page (3.19)."""


def require(debug: bool = False) -> Libbpf:
    """Everything that `lifecycle.on` cannot do without; bpffs and tracefs are mounted if they are
    not.

    Raises PageownerError with what is missing and what to do.
    """
    require_root()
    if kernel_version() < OLDEST:
        raise PageownerError(
            f"kernel {platform.release()} is too old to track pages; 5.15 or newer is needed"
        )
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        raise PageownerError(
            "this kernel has no type information (/sys/kernel/btf/vmlinux); it needs"
            " CONFIG_DEBUG_INFO_BTF=y, as the kernels of the distributions have"
        )
    try:
        bpf = libbpf()
    except LibbpfMissing as error:
        raise PageownerError(str(error)) from error
    why = lockdown()
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


def kernel_version(release: str | None = None) -> tuple[int, int]:
    """Major and minor number of a kernel release."""
    match = re.match(r"(\d+)\.(\d+)", release or platform.release())
    return (int(match[1]), int(match[2])) if match else (0, 0)


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
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return any(mount == BPFFS and kind == "bpf" for _, mount, kind, *_ in mounts)


def mount_bpffs() -> bool:
    """Mount bpffs if need be; whether that was done. Raises PageownerError if it cannot be."""
    if is_mounted():
        return False
    _mount("bpf", BPFFS, "BPF file system")
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


def _mount(kind: str, place: str, what: str) -> None:
    done = subprocess.run(["mount", "-t", kind, kind, place], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()
        raise PageownerError(
            f"no {what} at {place} and it cannot be mounted"
            f" ({why[-1] if why else done.returncode}); try: mount -t {kind} {kind} {place}"
        )
