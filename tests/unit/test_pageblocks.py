"""Types of pageblocks are believed only if they add up to what the kernel counts."""

from __future__ import annotations

import numpy as np

from pageowner.kernel.zones import Zone, ZoneMap
from pageowner.model.pfn_runs import SideBySide
from pageowner.tracker.read.pageblocks import BlockTypes, counted, disagreement

NAMES = ("Unmovable", "Movable", "Reclaimable")
ZONES = ZoneMap([Zone(0, "DMA", 1, 1023, 1023, 1000), Zone(0, "Normal", 1024, 4096, 4096, 4000)])


def types(*codes: int) -> BlockTypes:
    return BlockTypes(9, SideBySide(np.array([[0, len(codes)]])), np.array(codes, np.int32), NAMES)


def test_blocks_are_counted_as_the_kernel_walks_zones() -> None:
    """From the zone's first frame on: the block that begins before it counts."""
    assert counted(types(0, 1, 1, 1, 0, 2, 1, -1, 1, 1), ZONES) == {
        (0, "DMA"): {"Unmovable": 1, "Movable": 1, "Reclaimable": 0},
        (0, "Normal"): {"Unmovable": 1, "Movable": 5, "Reclaimable": 1}}


def test_a_page_has_its_blocks_type() -> None:
    pfns = np.array([0, 511, 512, 1024, 5119, 5120, 1 << 40], np.uint64)
    found = types(0, 1, -1, 1, 0, 2, 1, 1, 1, 2).column(pfns)
    assert found.to_pylist() == ["Unmovable", "Unmovable", "Movable", None, "Reclaimable", None,
                                 None]


def test_what_cannot_be_what_the_kernel_counts_is_not_believed() -> None:
    kernels = {(0, "Normal"): {"Unmovable": 100, "Movable": 800, "Reclaimable": 100}}
    near = {(0, "Normal"): {"Unmovable": 103, "Movable": 795, "Reclaimable": 102}}
    offline = {(0, "Normal"): {"Unmovable": 100, "Movable": 1800, "Reclaimable": 100}}
    assert not disagreement(kernels, kernels)
    assert not disagreement(near, kernels)
    assert not disagreement(offline, kernels)
    for wrong in ({"Unmovable": 120, "Movable": 780, "Reclaimable": 100},
                  {"Unmovable": 100, "Movable": 780, "Reclaimable": 100},
                  {"Unmovable": 0, "Movable": 1000, "Reclaimable": 0}):
        assert "the kernel counts" in disagreement({(0, "Normal"): wrong}, kernels)
    assert disagreement({}, kernels)


def test_a_zone_within_another_is_no_disagreement() -> None:
    """Memory that was put into zone Movable in the midst of DMA32: some of what lies in the span of
    the one belongs to the other."""
    ours = {(0, "DMA32"): {"Unmovable": 10, "Movable": 50}, (0, "Movable"): {"Movable": 100}}
    kernels = {(0, "DMA32"): {"Unmovable": 10, "Movable": 90}, (0, "Movable"): {"Movable": 60}}
    assert not disagreement(ours, kernels)
