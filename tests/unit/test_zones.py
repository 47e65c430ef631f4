"""Zones, pageblocks and free lists must be read as the kernel wrote them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import zones
from pageowner.kernel.memory_ranges import parse_iomem

if TYPE_CHECKING:
    from pathlib import Path

TWO_NODES = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 34964
  pages free     3840
        boost    0
        spanned  4095
        present  3998
        managed  3840
  start_pfn:           1
Node 0, zone   Normal
  pages free     1
        spanned  1000
        present  900
        managed  800
  pagesets
    cpu: 0
              count: 126
  node_unreclaimable:  0
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        spanned  0
        present  0
        managed  0
Node 1, zone   Normal
        spanned  1000
        present  1000
        managed  1000
  start_pfn:           5096
"""


def test_zones_of_a_real_kernel(data: Path) -> None:
    text = (data / "6.12-fragmented/zoneinfo.txt").read_text()
    assert zones.parse_zoneinfo(text) == [zones.Zone(0, "DMA32", 1, 262111, 262014, 251523)]


def test_frames_find_their_zone_and_node() -> None:
    places = zones.ZoneMap(zones.parse_zoneinfo(TWO_NODES))
    pfns = np.array([0, 1, 4095, 4096, 5095, 5096, 6095, 6096, 1 << 40], np.uint64)
    assert places.zone_column(pfns).to_pylist() == [
        None, "DMA", "DMA", "Normal", "Normal", "Normal", "Normal", None, None]
    assert places.node_column(pfns).to_pylist() == [None, 0, 0, 0, 0, 1, 1, None, None]
    assert [zone.name for zone in places.zones] == ["DMA", "Normal", "Normal"]


@pytest.mark.skipif(not os.access("/proc/zoneinfo", os.R_OK), reason="/proc/zoneinfo is hidden")
def test_zones_of_this_machine() -> None:
    found = zones.running()
    assert all(0 < zone.present <= zone.spanned for zone in found.zones)
    first = found.zones[0]
    pfns = np.array([first.start_pfn, first.end_pfn - 1], np.uint64)
    assert found.zone_column(pfns).to_pylist() == [first.name, first.name]


@pytest.mark.parametrize("text", ["", "Node 0, zone Movable\n  spanned 0\n  present 0\n", "x"])
def test_a_zoneinfo_without_zones_is_an_error(text: str) -> None:
    with pytest.raises(PageownerError, match="no zone with pages"):
        zones.parse_zoneinfo(text)


def test_free_lists_of_a_real_kernel(data: Path) -> None:
    folder = data / "6.12-fragmented"
    buddy = zones.parse_buddyinfo((folder / "buddyinfo.before.txt").read_text())
    assert buddy == {(0, "DMA32"): (7014, 4568, 4451, 15, 13, 3, 3, 4, 1, 4, 13)}
    info = zones.parse_pagetypeinfo((folder / "pagetypeinfo.before.txt").read_text())
    assert (info.pageblock_order, info.pages_per_block) == (9, 512)
    assert info.free[0, "DMA32", "Movable"] == (6369, 4496, 4340, 2, 1, 0, 0, 0, 0, 3, 13)
    assert info.blocks[0, "DMA32"]["Unmovable"] == 139
    assert sum(info.blocks[0, "DMA32"].values()) == 512
    assert info.mixed == {(0, "DMA32"): {"Unmovable": 3, "Movable": 68, "Reclaimable": 0,
                                         "HighAtomic": 0, "CMA": 0, "Isolate": 0}}
    assert not info.cut_off


def test_counts_that_the_kernel_cut_off_are_known_as_such() -> None:
    text = ("Page block order: 9\nPages per block:  512\n\n"
            "Node    1, zone   Normal, type      Movable >100000      7\n")
    info = zones.parse_pagetypeinfo(text)
    assert info.free == {(1, "Normal", "Movable"): (100000, 7)}
    assert info.cut_off == {(1, "Normal", "Movable", 0)}


def test_the_pageblock_order_is_found_where_it_is_told(data: Path) -> None:
    text = (data / "6.1-sample/pagetypeinfo.txt").read_text()
    assert zones.pageblock_order(text) == 9
    page = os.sysconf("SC_PAGE_SIZE")
    assert zones.pageblock_order(None, f"Hugepagesize:    {512 * page // 1024} kB\n") == 9
    for huge in (page << 4, page << 18):  # default_hugepagesz, of which pageblocks know nothing
        assert zones.pageblock_order("", f"Hugepagesize: {huge // 1024} kB\n") == 9
    assert zones.pageblock_order("", "Hugepagesize: 2048 kB\n", largest=8) == 8
    assert zones.pageblock_order(None, "MemTotal: 1 kB") is None
    with pytest.raises(PageownerError, match="no pageblock order"):
        zones.parse_pagetypeinfo("")


def test_ram_is_whole_frames(data: Path) -> None:
    text = (data / "6.12-fragmented/iomem.txt").read_text()
    assert parse_iomem(text) == [(1, 0x9f), (0x100, 0x3ffe0)]
    assert parse_iomem("100000000-13fffffff : System RAM (virtio_mem)\n") == [
        (0x100000, 0x140000)]


def test_the_largest_order_is_what_the_kernel_was_built_with(tmp_path: Path) -> None:
    line = "Node 0, zone   Normal " + " ".join(f"{n:6}" for n in range(14)) + "\n"
    (tmp_path / "buddyinfo").write_text(line)
    assert zones.max_order(str(tmp_path)) == 13
    assert zones.max_order() >= 8


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PageownerError, match="cannot read"):
        zones.read_text(str(tmp_path / "none"))
