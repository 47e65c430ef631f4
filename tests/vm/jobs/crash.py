"""Dump a guest's memory while it is tracked: vmcore.elf, and vmcore.kdump, by QEMU, beside what was
saved just before (before.parquet) and just after (after.parquet)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "loads"))

from hotplug import Monitor  # noqa: E402

LOADS = "vmalloc,sockets,pipes,forks"
OWN = Path("/sys/kernel/debug/page_owner")
FORMATS = {"elf": "vmcore.elf"}
KDUMP = {"kdump-zlib": "vmcore.kdump"}
"""Where the kernel has qemu_fw_cfg, through which QEMU gets VMCOREINFO."""


def pageowner(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pageowner", *words], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def dump() -> None:
    """What is run while the loads hold their memory."""
    words = Path("/proc/cmdline").read_text()
    (place,) = re.findall(r" po_out=(\S+)", words)
    # QEMU has the kernel's own notes of itself (VMCOREINFO) through this driver, if it is there.
    has_note = not subprocess.run(["modprobe", "-q", "qemu_fw_cfg"], check=False).returncode
    time.sleep(5)
    with ExitStack() as held:
        monitor = Monitor(held)
        if OWN.exists():
            Path("page_owner.txt").write_bytes(OWN.read_bytes())
        pageowner("save", "before.parquet")
        for kind, name in (FORMATS | (KDUMP if has_note else {})).items():
            how: dict[str, Any] = {} if kind == "elf" else {"format": kind}
            monitor.ask("dump-guest-memory", protocol=f"file:{place}/{name}", paging=False, **how)
        pageowner("save", "after.parquet")
    Path("status.json").write_text(json.dumps(json.loads(pageowner("status", "--json"))))
    Path("release").write_text(Path("/proc/sys/kernel/osrelease").read_text())


def main() -> int:
    if sys.argv[1:] == ["--dump"]:
        dump()
        return 0
    pageowner("on")
    status = subprocess.run([sys.executable, str(HERE.parent / "loads" / "hold.py"), "--only",
                             LOADS, sys.executable, __file__, "--dump"], check=False).returncode
    pageowner("off")
    return status


if __name__ == "__main__":
    sys.exit(main())
