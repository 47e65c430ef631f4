"""What tracking costs a real load: a part of the Linux kernel compiled with nothing, with the
tracker as it is turned on by default, and with plain unwinding; or with the WAYs of `WAYS`.

    build.py [--ways=nothing,WAY,…] [ROUNDS] [FOLDER…]

Each of ROUNDS (5) compiles FOLDERs (mm fs/ext4 net/ipv4) of Debian's linux-source with as
many compilers as there are CPUs, once each way; objects are removed between. A machine that is
shared changes its speed within a minute by more than tracking costs. So the ways take turns at
each PARTth part of a folder, in an order that changes, and what stands here is the sum of the
parts: what disturbs for longer than a part disturbs all ways alike. `on` itself is not timed, and
one object is compiled after it, so that all ways begin alike. Medians of the ratios to nothing in
the same round are printed. The source is unpacked and configured once, in the cache; see
`prepared` for what must be installed. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import median, need_tracking, skip
from pageowner.tracker import control
from pageowner.tracker.control import Options
from pageowner.tracker.load import memo
from pageowner.tracker.read.maps import Store

VERSION = "6.12"
ARCHIVE = Path(f"/usr/src/linux-source-{VERSION}.tar.xz")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pageowner/peers"
FOLDERS = ["mm", "fs/ext4", "net/ipv4"]
TOOLS = ("make", "cc", "flex", "bison", "bc", "xz")
PARTS = 4
NOTHING, MEMO, PLAIN = "nothing", "memo", "plain unwinding"
OBJECTS, ALL_OBJECTS = "objects one in 64", "all objects"
WAYS = {"nothing": NOTHING, "memo": MEMO, "plain": PLAIN, "objects": OBJECTS, "all": ALL_OBJECTS}
OPTIONS = {MEMO: Options(), PLAIN: Options(memo=False), OBJECTS: Options(objects=64),
           ALL_OBJECTS: Options(objects=1)}


def prepared() -> Path:
    """The configured source; skips the benchmark where something is missing."""
    tree = CACHE / f"linux-source-{VERSION}"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if not Path("/usr/include/libelf.h").exists():
        missing.append("libelf-dev")
    if not ARCHIVE.exists():
        missing.append(ARCHIVE.name.split(".tar")[0])
    if missing:
        skip(f"sudo apt-get install {' '.join(missing)}")
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


@dataclass
class Taken:
    """Seconds by the clock, of CPU time, and of CPU time in the kernel."""

    clock: float = 0
    cpu: float = 0
    system: float = 0

    def __add__(self, other: Taken) -> Taken:
        return Taken(self.clock + other.clock, self.cpu + other.cpu, self.system + other.system)


def compiled(tree: Path, objects: list[str]) -> Taken:
    """What it takes to make these, removed before."""
    for made in objects:
        (tree / made).unlink(missing_ok=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _make(tree, *objects)
    ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    system = after.ru_stime - before.ru_stime
    return Taken(ended - started, after.ru_utime - before.ru_utime + system, system)


def parts_of(tree: Path, folders: list[str]) -> list[list[str]]:
    """The objects of these folders, which are compiled once to see which there are."""
    _make(tree, *(f"{folder}/" for folder in folders))
    parts = []
    for folder in folders:
        objects = sorted(str(made.with_suffix(".o").relative_to(tree))
                         for made in tree.joinpath(folder).glob("*.c")
                         if made.with_suffix(".o").exists())
        parts += [objects[first::PARTS] for first in range(PARTS)]
    return parts


def tracked(way: str) -> contextlib.AbstractContextManager[object]:
    if way == NOTHING:
        return contextlib.nullcontext()
    return control.tracking(OPTIONS[way])


def ways_of(names: str) -> list[str]:
    """The ways of these names; all are compared with nothing, which has to be among them."""
    ways = names.split(",")
    if unknown := [name for name in ways if name not in WAYS]:
        raise SystemExit(f"build: no way {unknown[0]!r}: there are {', '.join(WAYS)}")
    if "nothing" not in ways:
        raise SystemExit("build: --ways needs 'nothing', with which the others are compared")
    return [WAYS[name] for name in ways]


def main() -> None:
    words = sys.argv[1:]
    ways = ways_of(words.pop(0).removeprefix("--ways=")
                   if words[:1] and words[0].startswith("--") else "nothing,memo,plain")
    need_tracking()
    tree = prepared()
    rounds = int(words[0]) if words else 5
    folders = words[1:] or FOLDERS
    parts = parts_of(tree, folders)
    taken = {way: [Taken() for _ in range(rounds)] for way in ways}
    stacks = hits = 0
    for turn in range(rounds):
        for number, part in enumerate(parts):
            first = (turn + number) % len(ways)
            for way in ways[first:] + ways[:first]:
                with tracked(way) as store:
                    compiled(tree, part[:1])
                    taken[way][turn] += compiled(tree, part)
                    if isinstance(store, Store) and way != PLAIN:
                        said = memo.read_counters(store.bpf, store.fd("memo_states"),
                                                  store.fd("counters"))
                        stacks += said["hits"] + said["misses"]
                        hits += said["hits"]
    print(f"{', '.join(folders)} of Linux {VERSION}, {os.cpu_count()} compilers, {len(parts)} parts"
          f" in turn; medians of {rounds} rounds, against nothing by the round")
    print("| tracking | s | | CPU s | | of these in the kernel | added |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for way, runs in taken.items():
        both = list(zip(runs, taken[NOTHING], strict=True))
        cells = [f"{median([run.clock for run in runs]):.1f}",
                 _against([run.clock / base.clock for run, base in both]),
                 f"{median([run.cpu for run in runs]):.1f}",
                 _against([run.cpu / base.cpu for run, base in both]),
                 f"{median([run.system for run in runs]):.2f}",
                 f"{median([run.system - base.system for run, base in both]):+.2f}"]
        print(f"| {way} | {' | '.join(cells)} |")
    if not stacks:
        return
    print(f"\nWith the memo: {stacks:,} stacks, {100 * hits / stacks:.2f} % recognised.")


def _against(ratios: list[float]) -> str:
    return (f"{100 * (median(ratios) - 1):+.1f} %"
            f" ({', '.join(f'{100 * (ratio - 1):+.1f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
