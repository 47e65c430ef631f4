"""Compaction: memory in stripes, every second page given back, then compacted."""

from contextlib import ExitStack

from common import MADV_DONTNEED, MIB, PAGE, counters, main, put, since, small_pages

COUNTERS = ("compact_migrate_scanned", "compact_isolated", "pgmigrate_success", "pgmigrate_fail")


def load(held: ExitStack) -> str:
    """128 MiB touched, half of it freed page by page, all nodes compacted twice."""
    before = counters(*COUNTERS)
    region = small_pages(128 * MIB)
    region.touch()
    for at in range(0, region.size, 2 * PAGE):
        region.advise(MADV_DONTNEED, at, PAGE)
    for _ in range(2):
        put("/proc/sys/vm/compact_memory", "1")
    return f"64 MiB in stripes of a page, compacted; {since(before, *COUNTERS)}"


if __name__ == "__main__":
    main("compaction", load)
