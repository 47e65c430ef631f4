"""Dump a guest's memory whose kernel keeps page owner itself: vmcore.elf, by QEMU, beside the text
that the kernel printed just before (before.txt) and just after (after.txt)."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "loads"))

from hotplug import Monitor  # noqa: E402

OWN = Path("/sys/kernel/debug/page_owner")


def save(name: str) -> None:
    with OWN.open("rb", buffering=0) as source, open(name, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


def main() -> int:
    # It would move pages between the readings.
    Path("/proc/sys/kernel/numa_balancing").write_text("0")
    (place,) = re.findall(r" po_out=(\S+)", Path("/proc/cmdline").read_text())
    os.sync()
    time.sleep(3)
    with ExitStack() as held:
        monitor = Monitor(held)
        save("before.txt")
        monitor.ask("dump-guest-memory", protocol=f"file:{place}/vmcore.elf", paging=False)
        save("after.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
