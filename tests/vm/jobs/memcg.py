"""A kernel with its own page owner and cgroup2's memory controller in use: on 6.12 its own reader
crashes there (print_page_owner_memcg follows a tail page's field); ours says who owns what, cgroups
by name, and so does what the kernel keeps if it is read out of its memory.

Writes memcg.json. The kernel's own file is read last, by a task of its own, to see what happens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc

from pageowner.sources.kernel_page_owner import from_memory
from pageowner.sources.source import KERNEL_PAGE_OWNER, read

ROOT = Path("/run/cgroup2")
GROUPS = {"kept-by-first": 2048, "kept-by-second": 512}
HOLD = """
import mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]) * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(15)
for at in range(0, len(area), mmap.PAGESIZE): area[at] = 1
print(flush=True)
sys.stdin.read()
"""


def pageowner(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pageowner", *words], check=True)


def main() -> int:
    ROOT.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", ROOT], check=True)
    (ROOT / "cgroup.subtree_control").write_text("+memory")
    pageowner("on")
    children = {}
    for name, pages in GROUPS.items():
        (ROOT / name).mkdir()
        # Python is in the group from its first page on.
        child = subprocess.Popen(
            ["sh", "-c", 'echo 0 >"$1" && shift && exec "$@"', "sh", ROOT / name / "cgroup.procs",
             sys.executable, "-c", HOLD, str(pages)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        children[name] = child
    pageowner("save", "memcg.parquet")
    snapshot = read("memcg.parquet")
    kernels_own, why = from_memory(KERNEL_PAGE_OWNER)
    if kernels_own is None:
        print(f"the kernel's own page owner out of memory: {why}")
        return 1
    found: dict[str, dict[str, int]] = {}
    out_of_memory: dict[str, int] = {}
    for name, child in children.items():
        mine = snapshot.select(pid=(child.pid,), subsystem=("anonymous memory",))
        counts = pc.value_counts(mine.table["memcg"]).to_pylist()
        found[name] = {str(one["values"]): one["counts"] for one in counts}
        kept = kernels_own.select(pid=(child.pid,), subsystem=("anonymous memory",)).table["memcg"]
        out_of_memory[name] = pc.sum(pc.equal(kept, name)).as_py() or 0
        child.communicate()
    wrong = [name for name, groups in found.items()
             if set(groups) != {f"/{name}"} or groups[f"/{name}"] < GROUPS[name]
             or out_of_memory[name] < GROUPS[name]]
    for name, groups in found.items():
        print(f"{name}: {groups} of {GROUPS[name]} pages that it mapped, {out_of_memory[name]} by"
              " the kernel's own, out of memory", flush=True)
    pageowner("off")
    reader = subprocess.run(
        [sys.executable, "-c",
         "import sys\nfor _ in open('/sys/kernel/debug/page_owner', 'rb', 1 << 16): pass"],
        check=False).returncode
    said = ("reads its file to the end" if reader == 0 else
            f"does not: the reader was killed by signal {-reader}" if reader < 0 else
            f"does not: exit status {reader}")
    print(f"the kernel's own page owner: {said}")
    Path("memcg.json").write_text(json.dumps(
        {"kernel": os.uname().release, "found": found, "right": not wrong, "kernels own": said}))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
