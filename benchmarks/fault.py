"""What tracking adds to a page: a loop of page faults with nothing, with the tracker (recognising
stacks, and unwinding each one), with programs that do nothing in its place, and with a bpftrace
one-liner that keeps the kernel stack of every page.

    fault.py [ROUNDS]
    fault.py --against TREE [ROUNDS]

The page cache is dropped and memory compacted first, so that free pages, and with them their
records, lie together as after boot. One process, on one CPU and before all others there, faults
throughout, so that all ways meet the same memory: each is measured in turn in each round, as the
difference to nothing just before and just after it. The best of 12 passes stands for a
measurement, since everything that disturbs only adds; medians of the rounds (9) are printed, with
their quartiles. Needs root, cc and bpftrace.

``--against`` measures this tree and another one (a git worktree) by turns, round by round the other
way round, and prints the median of the rounds' ratios.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from common import ROOT, folder, image_of_nothing, need_tracking, programs_of_nothing
from pageowner.tracker import control
from pageowner.tracker.control import Options
from pageowner.tracker.read.maps import RECORD

ROUNDS = 9
PASSES = 12
MEMO = "tracker"
ONE_LINER = ("tracepoint:kmem:mm_page_alloc { @owner[args->pfn] = kstack(16); }"
             " tracepoint:kmem:mm_page_free { delete(@owner[args->pfn]); }")
PAGE_EXT_BYTES = 64 + 8
"""The kernel's own page owner: struct page_owner and struct page_ext's flags, each page."""

Way = Callable[[], AbstractContextManager[object]]


class Loop:
    """`fault.c`, running on the last CPU."""

    def __init__(self, place: str) -> None:
        program = str(Path(place, "fault"))
        subprocess.run(["cc", "-O2", "-o", program, ROOT / "benchmarks/fault.c"], check=True)
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        os.sched_setaffinity(self.process.pid, {max(os.sched_getaffinity(0))})
        os.sched_setscheduler(self.process.pid, os.SCHED_FIFO, os.sched_param(1))

    def best(self, passes: int) -> float:
        """ns a page of the fastest of ``passes``."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{passes}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def bpftrace() -> Iterator[None]:
    environment = {**os.environ, "BPFTRACE_MAP_KEYS_MAX": "2000000"}
    program_text = f'BEGIN {{ printf("ready\\n"); }} {ONE_LINER} END {{ clear(@owner); }}'
    tracer = subprocess.Popen(["bpftrace", "-q", "-e", program_text],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    try:
        assert tracer.stdout
        if tracer.stdout.readline() != b"ready\n":
            raise SystemExit("bpftrace did not start")
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def ways_to_measure(place: str) -> dict[str, Way]:
    ways: dict[str, Way] = {
        MEMO: partial(control.tracking, Options()),
        "tracker, --plain": partial(control.tracking, Options(memo=False)),
        "tracker, 64 frames": partial(control.tracking, Options(depth=64)),
        "tracker, --kernel-only": partial(control.tracking, Options(kernel_only=True)),
        "tracker, --free": partial(control.tracking, Options(free_side=True)),
    }
    if shutil.which("bpftrace"):
        ways["bpftrace, kstack by pfn"] = bpftrace
    image = image_of_nothing(place)
    alloc_and_free = ("on_alloc", "on_free")
    return ways | {
        "two programs that do nothing": partial(programs_of_nothing, image, alloc_and_free),
        "four programs that do nothing": partial(
            programs_of_nothing, image, (*alloc_and_free, "on_nested_alloc", "on_nested_free")),
    }


def compact() -> None:
    """Free pages together, as after boot, where the kernel can (CONFIG_COMPACTION)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")
    with suppress(FileNotFoundError):
        Path("/proc/sys/vm/compact_memory").write_text("1")


def by_turns(loop: Loop, ways: dict[str, Way],
             rounds: int) -> tuple[list[float], dict[str, list[float]]]:
    """ns a page with nothing, and what each way adds, round by round."""
    loop.best(PASSES)
    nothing: list[float] = []
    added: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, way in list(ways.items())[:: -1 if turn % 2 else 1]:
            before = loop.best(PASSES // 2)
            with way():
                with_it = loop.best(PASSES)
            nothing.append(min(before, loop.best(PASSES // 2)))
            added[name].append(with_it - nothing[-1])
    return nothing, added


def measure(rounds: int) -> tuple[list[float], dict[str, list[float]]]:
    """ns a page with nothing, and what each way adds, round by round."""
    with folder() as place:
        ways = ways_to_measure(place)
        compact()
        loop = Loop(place)
        measured = by_turns(loop, ways, rounds)
        loop.end()
    return measured


class Build:
    """The tracker of a tree, in a process of its own (`at_command`)."""

    def __init__(self, tree: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks/at_command.py")], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(tree / "src")})

    @contextmanager
    def tracking(self, *options: str) -> Iterator[None]:
        self._say(" ".join(["on", *options]))
        yield
        self._say("off")

    def _say(self, line: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        if self.process.stdout.readline().split() != line.split()[:1]:
            raise SystemExit(f"the tracker of another tree ended at: {line}")

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def against(tree: Path, rounds: int) -> None:
    """This tree beside another: what each adds, round by round, and plain beside ours."""
    builds = {"this tree": Build(ROOT), f"{tree.name}": Build(tree)}
    ways: dict[str, Way] = {name: build.tracking for name, build in builds.items()}
    ways["this tree, --second-programs always"] = partial(builds["this tree"].tracking, "always")
    ways["this tree, --plain"] = partial(builds["this tree"].tracking, "plain")
    with folder() as place:
        compact()
        loop = Loop(place)
        nothing, added = by_turns(loop, ways, rounds)
        loop.end()
    for build in builds.values():
        build.end()
    print(f"{rounds} rounds, {statistics.median(nothing):.0f} ns a page with nothing\n")
    print("| | added ns a page (alloc and free) | quartiles | to the other tree, median of the"
          " rounds |")
    print("| --- | --- | --- | --- |")
    for name, values in added.items():
        low, cost, high = statistics.quantiles(values, n=4)
        ratio = statistics.median([a / b for a, b in zip(values, added[tree.name], strict=True)])
        print(f"| {name} | {cost:.0f} | {low:.0f} to {high:.0f} | {100 * ratio:.0f} % |")
    to_plain = statistics.median([a / b for a, b in zip(
        added["this tree, --plain"], added["this tree"], strict=True)])
    print(f"\nUnwinding each stack costs {to_plain:.1f} times what recognising them does.")


def main() -> None:
    need_tracking()
    if sys.argv[1:2] == ["--against"]:
        against(Path(sys.argv[2]).absolute(), int([*sys.argv[3:], str(ROUNDS)][0]))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    if rounds < 2:
        raise SystemExit("at least 2 rounds: quartiles need two")
    nothing, added = measure(rounds)
    base, ours = statistics.median(nothing), statistics.median(added[MEMO])
    print(f"| | added ns a page (alloc and free) | quartiles | of {base:.0f} ns with nothing |"
          " to tracker |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in added.items():
        low, cost, high = statistics.quantiles(values, n=4)
        print(f"| {name} | {cost:.0f} | {low:.0f} to {high:.0f} | {100 * cost / base:+.0f} % |"
              f" {cost / ours:.1f} : 1 |")
    with control.tracking() as store:
        frames = sum(end - start for start, end in store.facts["ranges"])
        print(f"\nMemory: {RECORD.itemsize} bytes a page in records,"
              f" {store.memory() / frames:.1f} with all tables,"
              f" against {PAGE_EXT_BYTES} of the kernel's page_ext.")


if __name__ == "__main__":
    main()
