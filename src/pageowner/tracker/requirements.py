"""What tracking needs of the machine, each asked for itself, and the refusals in words."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from pageowner.errors import PageownerError
from pageowner.tracker.libbpf import Libbpf, LibbpfMissing, libbpf
from pageowner.tracker.maps import PIN_DIRECTORY

__all__ = ["BPFFS", "OLDEST", "is_mounted", "kernel_version", "lockdown", "mount_bpffs", "require",
           "require_root"]

BPFFS = os.path.dirname(PIN_DIRECTORY)
"""Where the tracker pins."""

OLDEST = (5, 15)
"""What the programs need: atomics that return (5.12), BPF_PROG_TEST_RUN of raw tracepoints
(5.10), mm_page_alloc with a struct page (3.19)."""


def require(debug: bool = False) -> Libbpf:
    """Everything that `lifecycle.on` cannot do without; bpffs is mounted if it is not.

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
    done = subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()
        raise PageownerError(
            f"no BPF file system at {BPFFS} and it cannot be mounted"
            f" ({why[-1] if why else done.returncode}); try: mount -t bpf bpf {BPFFS}"
        )
    return True
