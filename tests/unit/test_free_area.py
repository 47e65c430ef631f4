"""Indices of free memory, against mm/vmstat.c read line by line, and a real kernel's free lists."""

from __future__ import annotations

import lzma
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pageowner.kernel import free_area, pageflags, zones

if TYPE_CHECKING:
    from pathlib import Path


def contig_page_info(free_area_nr_free: list[int], suitable_order: int) -> tuple[int, int, int]:
    """fill_contig_page_info."""
    free_pages = free_blocks_total = free_blocks_suitable = 0
    for order in range(len(free_area_nr_free)):
        blocks = free_area_nr_free[order]
        free_blocks_total += blocks
        free_pages += blocks << order
        if order >= suitable_order:
            free_blocks_suitable += blocks << (order - suitable_order)
    return free_pages, free_blocks_total, free_blocks_suitable


def kernel_unusable(counts: list[int], order: int) -> int:
    free_pages, _, suitable = contig_page_info(counts, order)
    if free_pages == 0:
        return 1000
    return ((free_pages - (suitable << order)) * 1000) // free_pages


def kernel_fragmentation(counts: list[int], order: int) -> int:
    free_pages, total, suitable = contig_page_info(counts, order)
    requested = 1 << order
    if not total:
        return 0
    if suitable:
        return -1000
    return 1000 - (1000 + free_pages * 1000 // requested) // total


@pytest.mark.parametrize("seed", range(50))
def test_indices_are_those_of_the_kernels_formulas(seed: int) -> None:
    rng = random.Random(seed)
    top = rng.randrange(0, 12)
    counts = [rng.choice([0, 1, rng.randrange(10_000)]) if order < top else 0
              for order in range(11)]
    for order in range(11):
        assert free_area.unusable_index(counts, order) == kernel_unusable(counts, order)
        assert free_area.fragmentation_index(counts, order) == kernel_fragmentation(counts, order)


def test_indices_of_memory_that_is_easy_to_judge() -> None:
    nothing, scattered, whole = [0] * 11, [1024] + [0] * 10, [0] * 10 + [1]
    assert free_area.unusable_index(nothing, 3) == 1000
    assert free_area.fragmentation_index(nothing, 3) == 0
    # a huge page's worth in single pages fails for fragmentation, four pages for lack of memory
    assert free_area.unusable_index(scattered, 9) == 1000
    assert free_area.fragmentation_index(scattered, 9) > 990
    assert free_area.fragmentation_index([4] + [0] * 10, 9) < free_area.fragmentation_index(
        scattered, 9)
    assert free_area.unusable_index(whole, 9) == 0
    assert free_area.fragmentation_index(whole, 9) == free_area.NO_INDEX


def test_free_blocks_of_a_real_kernel_are_its_buddyinfo_but_for_what_moved(data: Path) -> None:
    folder = data / "6.12-fragmented"
    said = zones.parse_buddyinfo((folder / "buddyinfo.before.txt").read_text())
    known = [one for one in zones.parse_zoneinfo((folder / "zoneinfo.txt").read_text())
             if one.present]
    with lzma.open(folder / "kpageflags.before.xz") as file:
        flags = np.frombuffer(file.read(), np.uint64)
    counted = free_area.by_order(flags, known)
    assert counted.keys() == said.keys()
    with lzma.open(folder / "kpageflags.after.xz") as file:
        later = np.frombuffer(file.read(), np.uint64)
    changed = int((pageflags.is_free(flags) != pageflags.is_free(later)).sum())
    assert changed > 0
    for zone, counts in said.items():
        # between the readings of one file and of the next no more moves than in all the time
        moved = free_area.free_pages(counts) - free_area.free_pages(counted[zone])
        assert abs(moved) <= changed
        assert all(abs(a - b) <= 4 for a, b in zip(counts[3:], counted[zone][3:], strict=True))
        assert all(abs(a - b) <= 0.07 * a for a, b in zip(counts[:3], counted[zone], strict=False))


def test_free_blocks_are_counted_in_the_zone_they_lie_in() -> None:
    flags = np.full(32, pageflags.bit("buddy"), np.uint64)
    two = [zones.Zone(0, "DMA", 0, 8, 8, 8), zones.Zone(1, "Normal", 8, 24, 24, 24)]
    assert free_area.by_order(flags, two, 4) == {(0, "DMA"): (0, 0, 0, 1, 0),
                                                 (1, "Normal"): (0, 0, 0, 1, 1)}
