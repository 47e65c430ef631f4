"""Swap on zram: anonymous memory paged out, compressed, and half of it paged in again."""

import time
from contextlib import ExitStack
from pathlib import Path

from common import (
    MADV_NOHUGEPAGE,
    MADV_PAGEOUT,
    MIB,
    PAGE,
    CannotLoad,
    Region,
    counters,
    main,
    put,
    run,
    since,
)

COUNTERS = ("pswpout", "pswpin")
DEVICE, CONTROL = "/dev/zram0", Path("/sys/block/zram0")


def load(held: ExitStack) -> str:
    """48 MiB out, 24 MiB of it in again."""
    before = counters(*COUNTERS)
    run("modprobe", "zram")
    held.callback(run, "modprobe", "-r", "zram")
    put(CONTROL / "disksize", str(96 * MIB))
    held.callback(put, CONTROL / "reset", "1")
    run("mkswap", DEVICE)
    run("swapon", DEVICE)
    held.callback(run, "swapoff", DEVICE)
    region = Region(48 * MIB)
    region.advise(MADV_NOHUGEPAGE)
    region.touch()
    region.advise(MADV_PAGEOUT)
    deadline = time.monotonic() + 20
    while counters("pswpout")[0] == before[0]:
        if time.monotonic() > deadline:
            raise CannotLoad("nothing was paged out in 20 s")
        time.sleep(0.1)
    region.touch(step=2 * PAGE)
    return f"48 MiB paged out to zram, half of it in again; {since(before, *COUNTERS)}"


if __name__ == "__main__":
    main("zram", load)
