"""Huge pages of 1 GiB: contiguous ranges (alloc_contig_range) of memory that others use."""

from contextlib import ExitStack
from pathlib import Path

from common import HUGE, MAP_HUGETLB, CannotLoad, Region, counters, main, put, since

COUNTERS = ("pgmigrate_success", "pgmigrate_fail")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
GIB = 1 << 30
MAP_HUGE_1GB = 30 << 26


def load(held: ExitStack) -> str:
    """One page had and given back, then one had again and used."""
    if not POOL.exists():
        raise CannotLoad("this kernel or processor has no huge pages of 1 GiB")
    before = counters(*COUNTERS)
    held.callback(put, POOL, "0")
    had = []
    for want in ("1", "0", "1"):
        put(POOL, want)
        had.append(int(POOL.read_text()))
    if not had[-1]:
        raise CannotLoad("no 1 GiB of memory can be freed in one piece")
    Region(GIB, MAP_HUGETLB | MAP_HUGE_1GB).touch(step=HUGE)
    return f"{had[0]} page of 1 GiB had, {had[1]} left, {had[2]} in use; {since(before, *COUNTERS)}"


if __name__ == "__main__":
    main("gigantic", load)
