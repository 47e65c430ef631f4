"""What tracking adds to a page: a loop of page faults with nothing, with the tracker (recognising
stacks, and unwinding each one), with programs that do nothing in its place, and with a bpftrace
one-liner that keeps the kernel stack of every page.

Each round measures all in turn and gives differences to nothing in the same round; the best of 12
passes stands for a round, since everything that disturbs only adds. Needs root, cc and bpftrace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, folder, may_track, median
from pageowner.tracker import lifecycle
from pageowner.tracker.libbpf import libbpf
from pageowner.tracker.maps import RECORD

ROUNDS = 7
PASSES = 12
ONE_LINER = ("tracepoint:kmem:mm_page_alloc { @owner[args->pfn] = kstack(16); }"
             " tracepoint:kmem:mm_page_free { delete(@owner[args->pfn]); }")
PAGE_EXT_BYTES = 64 + 8
"""The kernel's own page owner: struct page_owner and struct page_ext's flags, each page."""


def measure(program: str) -> float:
    """Best ns a page of `PASSES`."""
    out = subprocess.run([program, str(PASSES)], capture_output=True, text=True, check=True)
    return min(map(float, out.stdout.split()))


def with_bpftrace(program: str) -> float:
    environment = {**os.environ, "BPFTRACE_MAP_KEYS_MAX": "2000000"}
    program_text = f'BEGIN {{ printf("ready\\n"); }} {ONE_LINER} END {{ clear(@owner); }}'
    tracer = subprocess.Popen(["bpftrace", "-q", "-e", program_text],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    try:
        assert tracer.stdout
        if tracer.stdout.readline() != b"ready\n":
            raise SystemExit("bpftrace did not start")
        return measure(program)
    finally:
        tracer.terminate()
        tracer.communicate()


def with_empty(program: str, image: bytes, *names: str) -> float:
    """With programs that do nothing, where the tracker's are."""
    with libbpf().open(image, "nothing") as empty:
        empty.load()
        for name in names:
            empty.attach(name)
        return measure(program)


def with_tracker(program: str, options: lifecycle.Options) -> float:
    with lifecycle.tracking(options):
        return measure(program)


def main() -> None:
    if not may_track():
        return
    ways = {
        "tracker": lambda program: with_tracker(program, lifecycle.Options()),
        "tracker, --plain": lambda program: with_tracker(
            program, lifecycle.Options(memo=False)),
        "tracker, 64 frames": lambda program: with_tracker(program, lifecycle.Options(depth=64)),
        "tracker, --kernel-only": lambda program: with_tracker(
            program, lifecycle.Options(kernel_only=True)),
        "tracker, --free": lambda program: with_tracker(
            program, lifecycle.Options(free_side=True)),
    }
    if shutil.which("bpftrace"):
        ways["bpftrace, kstack by pfn"] = with_bpftrace
    with folder() as place:
        program = str(Path(place, "fault"))
        subprocess.run(["cc", "-O2", "-o", program, ROOT / "benchmarks/fault.c"], check=True)
        subprocess.run([ROOT / "scripts/build-bpf", Path(place, "nothing.o"),
                        ROOT / "benchmarks/nothing.bpf.c"], check=True)
        image = Path(place, "nothing.o").read_bytes()
        ways |= {
            "two programs that do nothing": lambda program: with_empty(
                program, image, "on_alloc", "on_free"),
            "four programs that do nothing": lambda program: with_empty(
                program, image, "on_alloc", "on_nested_alloc", "on_free", "on_nested_free"),
        }
        measure(program)
        nothing: list[float] = []
        added: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS):
            for name, way in ways.items():
                time.sleep(0.2)
                before = measure(program)
                nothing.append(before)
                added[name].append(way(program) - before)
    base = median(nothing)
    print(f"| | added ns a page (alloc and free) | of {base:.0f} ns with nothing |")
    print("| --- | --- | --- |")
    for name, values in added.items():
        print(f"| {name} | {median(values):.0f} | +{100 * median(values) / base:.0f} % |")
    with lifecycle.tracking() as store:
        frames = sum(end - start for start, end in store.facts["ranges"])
        print(f"\nMemory: {RECORD.itemsize} bytes a page in records,"
              f" {store.memory() / frames:.1f} with all tables,"
              f" against {PAGE_EXT_BYTES} of the kernel's page_ext.")


if __name__ == "__main__":
    main()
