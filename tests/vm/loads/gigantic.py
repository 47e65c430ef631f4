"""Huge pages of 1 GiB: contiguous ranges (alloc_contig_range) of memory that others use."""

from contextlib import ExitStack
from pathlib import Path

from common import HUGE, MAP_HUGETLB, CannotLoad, Region, counters, main, put, since

COUNTERS = ("pgmigrate_success", "pgmigrate_fail")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
GIB = 1 << 30
MAP_HUGE_1GB = 30 << 26
KERNELS_OWN = Path("/sys/kernel/debug/page_owner")


def harmed_by_page_owner() -> bool:
    """Whether the kernel's own page owner is on and would write past a section's page_ext.

    Each section of memory (128 MiB) has an array of its own, and until page_ext_lookup() came
    __set_page_owner() went on to the next entry of the same one (page_ext_next in
    mm/page_owner.c of 6.12; 7.3 looks each section up): seen as an oops on 6.12, arm64.
    """
    return KERNELS_OWN.exists() and " page_ext_lookup\n" not in Path("/proc/kallsyms").read_text()


def load(held: ExitStack) -> str:
    """One page had and given back, then one had again and used."""
    if not POOL.exists():
        raise CannotLoad("this kernel or processor has no huge pages of 1 GiB")
    if harmed_by_page_owner():
        raise CannotLoad("this kernel's own page owner is on, and crashes with pages of 1 GiB")
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
