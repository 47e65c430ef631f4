"""Die with a crash kernel loaded, which runs this again: then the memory of the first one is copied
as it is, vmcore.elf, and by makedumpfile, vmcore.kdump."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VMCORE = Path("/proc/vmcore")
LEFT_OUT = ("31", "23")
"""What makedumpfile leaves out (-d): as distributions have it, pages of zeros, of the cache, of
processes, and free ones; and without those of processes where the kernel is newer than makedumpfile
1.7.2, which would take slabs for them."""
KNOWN = "6.1."
LOADS = "pipes,forks"


def load() -> None:
    """The same kernel, with the same words, but for its memory and what brings it into trouble."""
    words = Path("/proc/cmdline").read_text().strip()
    (kernel,) = re.findall(r"po_kernel=(\S+)", words)
    words = re.sub(r"crashkernel=\S+", "", words)
    initrd = Path(kernel, "initrd")
    subprocess.run(["kexec", "-p", f"{kernel}/bzImage", *(
        [f"--initrd={initrd}"] if initrd.exists() else []),
        f"--append={words} nr_cpus=1 reset_devices irqpoll"], check=True)


def dump() -> int:
    # where makedumpfile keeps a copy of VMCOREINFO meanwhile; the guest's root is read-only
    subprocess.run(["mount", "-t", "tmpfs", "none", "/tmp"], check=True)
    left_out = LEFT_OUT[not platform.release().startswith(KNOWN)]
    for command in (["cp", VMCORE, "vmcore.elf"],
                    ["makedumpfile", "--message-level", "6", "-c", "-d", left_out, VMCORE,
                     "vmcore.kdump"]):
        if status := subprocess.run(command, check=False).returncode:
            return status
    return 0


def main() -> int:
    if VMCORE.exists():
        return dump()
    load()
    return subprocess.run([sys.executable, HERE / "panic.py", "sysrq", LOADS],
                          check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
