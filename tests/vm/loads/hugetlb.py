"""The hugetlb pool: grown, partly used, shrunk to what is in use, and surplus pages beyond it."""

from contextlib import ExitStack
from pathlib import Path

from common import HUGE, MAP_HUGE_2MB, MAP_HUGETLB, CannotLoad, Region, main, put

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def value(name: str) -> int:
    """One of the pool's numbers."""
    return int((POOL / name).read_text())


def load(held: ExitStack) -> str:
    """24 pages wanted, 6 used, the pool cut to 8, then 4 more taken as surplus."""
    if not POOL.exists():
        raise CannotLoad("this kernel has no hugetlb pool of 2 MiB pages")
    held.callback(put, POOL / "nr_hugepages", "0")
    put(POOL / "nr_hugepages", "24")
    grown = value("nr_hugepages")
    if grown < 8:
        raise CannotLoad(f"only {grown} huge pages could be had")
    Region(6 * HUGE, MAP_HUGETLB | MAP_HUGE_2MB).touch(step=HUGE)
    put(POOL / "nr_hugepages", "8")
    shrunk = value("nr_hugepages")
    put(POOL / "nr_overcommit_hugepages", "4")
    held.callback(put, POOL / "nr_overcommit_hugepages", "0")
    Region(6 * HUGE, MAP_HUGETLB | MAP_HUGE_2MB).touch(step=HUGE)
    return (
        f"pool grown to {grown} pages of 2 MiB, shrunk to {shrunk} with 6 in use,"
        f" {value('surplus_hugepages')} surplus; {value('free_hugepages')} free"
    )


if __name__ == "__main__":
    main("hugetlb", load)
