"""``pageowner who`` of one frame of this machine, beside that of another commit.

    who.py [COMMIT] [ROUNDS]

As root, with tracking off: in each round each is turned on by itself and asked three times. The
target: 0.2 s by the clock. Without COMMIT there is nothing beside.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from common import Run, median, need_tracking
from starting import compared, rounds_or, run_of

ROUNDS = 5
ASKED = 3


def main() -> None:
    need_tracking()
    rounds = rounds_or(ROUNDS)
    with compared() as (sources, name):
        runs: dict[Path, list[Run]] = {source: [] for source in sources}
        for _ in range(rounds):
            for source in sources:
                run_of(source, "on")
                try:
                    # memory of this process, allocated since: it has an owner
                    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
                        memory[0] = 1
                        pfn = _frame(memory)
                        runs[source] += [run_of(source, "who", hex(pfn)) for _ in range(ASKED)]
                finally:
                    run_of(source, "off")
    print(f"medians of {rounds * ASKED} runs" + (f", beside commit {name}" if name else ""))
    print()
    print("| command | | ours, s | theirs, s | times faster |")
    print("| --- | --- | --- | --- | --- |")
    for what, of in (("by the clock", "wall"), ("CPU", "cpu")):
        times = [[getattr(run, of) for run in runs[source]] for source in sources]
        beside = f"{median(times[1]):.2f}" if name else ""
        faster = f"{median([b / a for a, b in zip(*times, strict=True)]):.2f}" if name else ""
        print(f"| `pageowner who PFN` | {what} | {median(times[0]):.2f} | {beside} | {faster} |")


def _frame(memory: mmap.mmap) -> int:
    """The frame of its first page, by /proc/self/pagemap."""
    here = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(here)
    del here
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(address // mmap.PAGESIZE * 8)
        return int.from_bytes(file.read(8), "little") & ((1 << 55) - 1)


if __name__ == "__main__":
    main()
