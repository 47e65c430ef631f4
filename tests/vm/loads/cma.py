"""Contiguous allocations (alloc_contig_range): from a CMA area, which movable pages fill first."""

from contextlib import ExitStack
from pathlib import Path

from common import MIB, CannotLoad, counters, main, put, since, small_pages

COUNTERS = ("cma_alloc_success", "cma_alloc_fail", "pgmigrate_success")
AREAS = Path("/sys/kernel/debug/cma")


def load(held: ExitStack) -> str:
    """64 MiB of movable memory, then 1 + 16 + 512 + 1024 pages from the area, some given back."""
    areas = sorted(AREAS.iterdir()) if AREAS.exists() else []
    if not areas:
        raise CannotLoad(f"no {AREAS}: the kernel lacks CMA_DEBUGFS, or cma=64M at boot")
    before = counters(*COUNTERS)
    filler = small_pages(64 * MIB)
    filler.touch()
    area, taken = areas[0], 0
    for count in (1, 16, 512, 1024):
        put(area / "alloc", str(count))
        taken += count
        held.callback(put, area / "free", str(count))
    put(area / "alloc", "64")
    put(area / "free", "64")
    return f"{taken} pages of {area.name} held, 64 given back; {since(before, *COUNTERS)}"


if __name__ == "__main__":
    main("cma", load)
