"""Track a guest whose kernel keeps page owner itself, under every load, and read both while quiet.

    agree.py            turns tracking on, runs the loads, reads, turns it off
    agree.py --read     what is run while the loads hold their memory

The tracker is saved before and after the kernel's own file is read: what is the same in both did
not change meanwhile. tests/vm/agreement.py compares them afterwards, outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS_OWN = Path("/sys/kernel/debug/page_owner")


def pageowner(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pageowner", *words], check=True)


def read() -> int:
    """Quiet first: nothing is to be written back, freed late, or compacted behind our back."""
    os.sync()
    time.sleep(3)
    pageowner("save", "before.parquet")
    with KERNELS_OWN.open("rb", buffering=0) as source, open("page_owner.txt", "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    shutil.copy("/proc/pagetypeinfo", "pagetypeinfo-before")
    pageowner("save", "after.parquet")
    pageowner("status")
    for name in ("pagetypeinfo", "buddyinfo", "kallsyms"):
        shutil.copy(f"/proc/{name}", name)
    # the kernel's own tool, built with it (guest-init: po_kernel is the folder of the kernel)
    words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    shutil.copy(Path(words["po_kernel"]) / "page_owner_sort", "page_owner_sort")
    return 0


def main() -> int:
    if sys.argv[1:] == ["--read"]:
        return read()
    # it would move pages between the two readings
    Path("/proc/sys/kernel/numa_balancing").write_text("0")
    pageowner("on")
    status = subprocess.run([sys.executable, str(HERE.parent / "loads" / "hold.py"),
                             *sys.argv[1:], sys.executable, __file__, "--read"],
                            check=False).returncode
    pageowner("off")
    return status


if __name__ == "__main__":
    sys.exit(main())
