"""panic.py WHY [LOADS]: die of it, while tracked and with loads held; the host then dumps the
memory.

WHY is ``sysrq``, or ``oom``: a hog of anonymous memory where the kernel panics when that is gone.
What is tracked is saved twice just before (early.parquet, before.parquet), so that what stands
still is known; ``saving`` has the time, in ns since boot, at which the second one was begun.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOADS = "vmalloc,pipes,forks,tmpfs"


def pageowner(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pageowner", *words], check=True)


def die(why: str) -> None:
    """What is run while the loads hold their memory."""
    time.sleep(5)
    Path("balance.json").write_bytes(subprocess.run(
        [sys.executable, "-m", "pageowner", "balance", "--json"], check=True,
        stdout=subprocess.PIPE).stdout)
    pageowner("save", "early.parquet")
    Path("saving").write_text(f"{time.monotonic_ns()}\n")
    pageowner("save", "before.parquet")
    Path("release").write_text(Path("/proc/sys/kernel/osrelease").read_text())
    os.sync()
    if why == "sysrq":
        Path("/proc/sysrq-trigger").write_text("c")
    Path("/proc/sys/vm/panic_on_oom").write_text("2")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(sys.executable, [sys.executable, str(HERE / "oom_hogs.py"), "anonymous"])


def main() -> int:
    if sys.argv[1] == "--die":
        die(sys.argv[2])
        return 1
    # QEMU has the kernel's own notes of itself (VMCOREINFO) through this driver, if it is there.
    subprocess.run(["modprobe", "-q", "qemu_fw_cfg"], check=False)
    pageowner("on")
    return subprocess.run([sys.executable, str(HERE.parent / "loads" / "hold.py"), "--only",
                           *(sys.argv[2:] or [LOADS]), sys.executable, __file__, "--die",
                           sys.argv[1]], check=False).returncode or 1


if __name__ == "__main__":
    sys.exit(main())
