"""What following objects adds to system calls that allocate them, beside other tools that do.

    objects.py [ROUNDS [PASSES]]

Loops of open and close, socketpair and epoll_ctl (objects.c), in each round with every tracer in
turn, in another order: none; programs that do nothing on the same tracepoints; `on`; `on
--objects` with one object in 64 and with all; bpftrace with a map of kmalloc's addresses to stacks;
bcc's memleak, where it is installed and can be compiled here (BCC_KERNEL_SOURCE). Medians of the ns
that each adds, and the ratio to `on --objects`. Needs root and cc.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from common import ROOT, folder, image_of_nothing, need_tracking, programs_of_nothing
from pageowner.model.tracking import Options
from pageowner.tracker import control

ROUNDS, PASSES = 7, 15
LOOPS = ("open", "socketpair", "epoll_ctl")
SCRIPT = """
tracepoint:kmem:kmalloc, tracepoint:kmem:kmem_cache_alloc { @objects[args->ptr] = kstack; }
tracepoint:kmem:kfree, tracepoint:kmem:kmem_cache_free { delete(@objects[args->ptr]); }
"""
HOOKS = ("on_kmalloc", "on_cache_alloc", "on_kfree", "on_cache_free")
STARTS = 30
"""Seconds that another tool may take to begin."""


@contextmanager
def tracking(options: Options) -> Iterator[bool]:
    control.on(options)
    try:
        yield True
    finally:
        control.off()


def programs() -> int:
    """BPF programs that are loaded in this kernel, as /proc tells: those of tracepoints."""
    found = 0
    for number in os.listdir("/proc"):
        if not number.isdigit():
            continue
        try:
            for name in os.listdir(f"/proc/{number}/fd"):
                found += os.readlink(f"/proc/{number}/fd/{name}") == "anon_inode:bpf-prog"
        except OSError:
            continue
    return found


@contextmanager
def other(*command: str) -> Iterator[bool]:
    """Another tool at work; False if it did not begin."""
    before = programs()
    with open(os.devnull, "w") as nothing, subprocess.Popen(
            command, stdout=nothing, stderr=nothing, start_new_session=True) as tool:
        try:
            end = time.monotonic() + STARTS
            while programs() <= before and tool.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
            time.sleep(1)
            yield tool.poll() is None and programs() > before
        finally:
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(tool.pid, signal.SIGKILL)


@contextmanager
def nothing() -> Iterator[bool]:
    yield True


@contextmanager
def empty(image: bytes) -> Iterator[bool]:
    with programs_of_nothing(image, HOOKS):
        yield True


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    passes = int(sys.argv[2]) if len(sys.argv) > 2 else PASSES
    need_tracking()
    tracers = {
        "none": nothing,
        "on": lambda: tracking(Options()),
        "on --objects": lambda: tracking(Options(objects=64)),
        "on --objects 1": lambda: tracking(Options(objects=1)),
    }
    if shutil.which("bpftrace"):
        tracers["bpftrace"] = lambda: other("bpftrace", "-e", SCRIPT)
    if shutil.which("memleak-bpfcc"):
        tracers["bcc memleak"] = lambda: other("memleak-bpfcc", "1000")
    with folder() as place:
        image = image_of_nothing(place)
        tracers["programs that do nothing"] = lambda: empty(image)
        program = f"{place}/objects"
        subprocess.run(["cc", "-O2", "-o", program, ROOT / "benchmarks/objects.c"], check=True)
        found: dict[str, list[list[float]]] = {name: [] for name in tracers}
        for _ in range(rounds):
            for name in random.sample(list(tracers), len(tracers)):
                with tracers[name]() as begun:
                    if not begun:
                        continue
                    text = subprocess.run([program], input=f"2\n{passes}\n", text=True,
                                          check=True, stdout=subprocess.PIPE).stdout
                    found[name].append([float(word) for word in text.splitlines()[1].split()])
    print(f"ns for one iteration, medians of {rounds} rounds; in brackets what is added")
    print("| tracer |", " | ".join(LOOPS), "| times `on --objects` |")
    print("| --- |", " --- |" * (len(LOOPS) + 1))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)]
               for name, rows in found.items() if rows}
    plain, ours = medians["none"], medians["on --objects"]
    for name, row in medians.items():
        added = [value - without for value, without in zip(row, plain, strict=True)]
        times = sum(added) / max(sum(ours) - sum(plain), 1e-9)
        cells = " | ".join(f"{value:.0f} ({more:+.0f}, {100 * more / without:+.1f} %)"
                           for value, more, without in zip(row, added, plain, strict=True))
        print(f"| {name} | {cells} | {times:.1f} |")
    for name, rows in found.items():
        if not rows:
            print(f"{name}: did not begin here")


if __name__ == "__main__":
    main()
