"""Swap on zram: anonymous memory paged out, compressed, and half of it paged in again."""

from contextlib import ExitStack
from pathlib import Path

from common import MADV_PAGEOUT, MIB, PAGE, CannotLoad, counters, main, put, run, since, small_pages

COUNTERS = ("pswpout", "pswpin")
DEVICE, CONTROL = "/dev/zram0", Path("/sys/block/zram0")


def swapped() -> int:
    """KiB in use on the device."""
    lines = Path("/proc/swaps").read_text().splitlines()
    return sum(int(line.split()[3]) for line in lines if line.startswith(DEVICE))


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
    region = small_pages(48 * MIB)
    region.touch()
    region.advise(MADV_PAGEOUT)
    if not (out := swapped()):
        raise CannotLoad("the kernel paged nothing out")
    region.touch(step=2 * PAGE)
    went = since(before, *COUNTERS)
    return f"{out >> 10} of 48 MiB paged out to zram, half of it in again; {went}"


if __name__ == "__main__":
    main("zram", load)
