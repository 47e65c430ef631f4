"""Die with a crash kernel loaded, which runs this again: then the memory of the first one is dumped
by makedumpfile, vmcore.kdump as distributions set it up and vmcore.elf as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VMCORE = Path("/proc/vmcore")
LEFT_OUT = "31"
"""Pages of zeros, of the cache, of processes, and free ones (makedumpfile(8), -d)."""


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
    for name, options in (("vmcore.kdump", ("-c", "-d", LEFT_OUT)), ("vmcore.elf", ("-E",))):
        if status := subprocess.run(["makedumpfile", *options, VMCORE, name],
                                    check=False).returncode:
            return status
    return 0


def main() -> int:
    if VMCORE.exists():
        return dump()
    load()
    return subprocess.run([sys.executable, HERE / "panic.py", "sysrq"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
