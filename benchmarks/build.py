"""What tracking costs a real load: a part of the Linux kernel compiled with nothing, with the
tracker as it is turned on by default, and with plain unwinding.

    build.py [ROUNDS] [FOLDER…]

Each of ROUNDS (5) compiles FOLDERs (mm fs/ext4 net/ipv4) of Debian's linux-source with as
many compilers as there are CPUs, once each way, in an order that changes; objects are
removed between. Medians of the ratios to nothing in the same round are printed. The source is
unpacked and configured once, in the cache; see `prepared` for what must be installed. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import may_track, median
from pageowner.tracker import lifecycle, memo
from pageowner.tracker.lifecycle import Options

VERSION = "6.12"
ARCHIVE = Path(f"/usr/src/linux-source-{VERSION}.tar.xz")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pageowner/peers"
FOLDERS = ["mm", "fs/ext4", "net/ipv4"]
TOOLS = ("make", "cc", "flex", "bison", "bc", "xz")
NOTHING, MEMO, PLAIN = "nothing", "memo", "plain unwinding"


def prepared() -> Path | None:
    """The configured source, or None, having said what is missing."""
    tree = CACHE / f"linux-source-{VERSION}"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if not Path("/usr/include/libelf.h").exists():
        missing.append("libelf-dev")
    if not ARCHIVE.exists():
        missing.append(ARCHIVE.name.split(".tar")[0])
    if missing:
        print(f"skipped: sudo apt-get install {' '.join(missing)}")
        return None
    done = tree / ".pageowner-prepared"
    if not done.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"preparing {tree}", file=sys.stderr)
        subprocess.run(["tar", "-C", CACHE, "-xf", ARCHIVE], check=True)
        _make(tree, "defconfig")
        _make(tree, "prepare")
        done.touch()
    return tree


def _make(tree: Path, *targets: str) -> None:
    subprocess.run(["make", "-s", f"-j{os.cpu_count()}", "-C", tree, *targets], check=True,
                   stdout=subprocess.DEVNULL)


def compile_once(tree: Path, folders: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of CPU time, objects removed before."""
    for folder in folders:
        for made in (*tree.joinpath(folder).rglob("*.o"), *tree.joinpath(folder).rglob("*.a")):
            made.unlink()
    used = _cpu()
    started = time.perf_counter()
    _make(tree, *(f"{folder}/" for folder in folders))
    return time.perf_counter() - started, _cpu() - used


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tracked(way: str) -> contextlib.AbstractContextManager[object]:
    if way == NOTHING:
        return contextlib.nullcontext()
    return lifecycle.tracking(Options() if way == MEMO else Options(memo=False))


def main() -> None:
    if not may_track():
        return
    tree = prepared()
    if tree is None:
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folders = sys.argv[2:] or FOLDERS
    compile_once(tree, folders)  # what it reads is then in the page cache
    ways = [NOTHING, MEMO, PLAIN]
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in ways[turn % 3:] + ways[: turn % 3]:
            with tracked(way) as store:
                taken[way].append(compile_once(tree, folders))
                if way == MEMO:
                    said = memo.read_counters(store.bpf, store.fd("memo_states"))  # type: ignore[attr-defined]
    print(f"{', '.join(folders)} of Linux {VERSION}, {os.cpu_count()} compilers; medians of"
          f" {rounds} rounds")
    print("| tracking | s | against nothing | CPU s | against nothing |")
    print("| --- | --- | --- | --- | --- |")
    for way, runs in taken.items():
        cells = []
        for what in (0, 1):
            ratios = [run[what] / base[what]
                      for run, base in zip(runs, taken[NOTHING], strict=True)]
            cells += [f"{median([run[what] for run in runs]):.1f}",
                      f"{100 * (median(ratios) - 1):+.1f} %"
                      f" ({', '.join(f'{100 * (ratio - 1):+.1f}' for ratio in ratios)})"]
        print(f"| {way} | {' | '.join(cells)} |")
    stacks = said["hits"] + said["misses"]
    print(f"\nThe last build with the memo: {stacks:,} stacks,"
          f" {100 * said['hits'] / stacks:.2f} % recognised.")


if __name__ == "__main__":
    main()
