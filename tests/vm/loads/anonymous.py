"""Anonymous memory: huge pages split and unmapped in part, small pages, some copied by a child."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

from common import (
    HUGE,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_HUGEPAGE,
    MIB,
    PAGE,
    Region,
    counters,
    libc,
    main,
    put,
    since,
    small_pages,
)

COUNTERS = ("thp_fault_alloc", "thp_split_page", "thp_split_pmd", "thp_deferred_split_page")


def load(held: ExitStack) -> str:
    """96 MiB of huge pages, each third of them taken apart in another way; 32 MiB of small ones."""
    before = counters(*COUNTERS)
    huge = Region(96 * MIB)
    huge.advise(MADV_HUGEPAGE)
    huge.touch(step=HUGE)
    for index, at in enumerate(range(0, huge.size, HUGE)):
        if index % 4 == 0:  # unmapped in part: queued for splitting, split when memory is wanted
            huge.unmap(at + 8 * PAGE, 2 * PAGE)
            huge.unmap(at + HUGE // 8, HUGE // 4)
        elif index % 4 == 1:
            huge.advise(MADV_DONTNEED, at + HUGE // 2, HUGE // 4)
            huge.advise(MADV_FREE, at, HUGE // 8)
    split = []
    control = Path("/sys/kernel/debug/split_huge_pages")
    if control.exists():  # by hand, and where the kernel can (6.10), into blocks of order 3
        for order, at in (("", 2 * HUGE), (",0x3", 6 * HUGE)):
            text = f"{os.getpid()},{huge.start + at:#x},{huge.start + at + HUGE:#x}{order}"
            try:
                put(control, text)
                split.append(order.lstrip(",") or "0")
            except OSError:
                continue
    put("/proc/sys/vm/drop_caches", "2")  # its shrinkers split what is queued

    small = small_pages(32 * MIB)
    small.touch()
    child = os.fork()
    if child == 0:  # copies every other page on write
        libc.prctl(15, b"load-anon-child", 0, 0, 0)
        small.touch(step=2 * PAGE)
        huge.touch(3 * HUGE, HUGE, HUGE)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    held.callback(os.waitpid, child, 0)
    held.callback(os.kill, child, signal.SIGKILL)
    return (
        f"96 MiB of huge pages, partly unmapped, split by hand to order {', '.join(split) or '-'};"
        f" 32 MiB of small ones, half copied by a child; {since(before, *COUNTERS)}"
    )


if __name__ == "__main__":
    main("anonymous", load)
