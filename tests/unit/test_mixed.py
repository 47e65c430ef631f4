"""Mixed pageblocks: what a real kernel counted, and its own walk over machines made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from machines import TYPES, Machine, machine

import pageowner
from pageowner.analysis.culprits import owners_of, polluters
from pageowner.analysis.fragmentation import fragmentation
from pageowner.analysis.memory import memory
from pageowner.analysis.mixed import BINS, contents, mixed
from pageowner.kernel.zones import parse_pagetypeinfo

if TYPE_CHECKING:
    from pathlib import Path

    from pageowner import Snapshot


def test_a_dump_alone_gives_the_mixed_blocks_that_its_kernel_counted(big: Snapshot,
                                                                     data: Path) -> None:
    text = (data / "6.12-fragmented/pagetypeinfo.before.txt").read_text()
    (said,) = parse_pagetypeinfo(text).mixed.values()
    (zone,) = fragmentation(big, "comm")["zones"]
    assert zone["mixed"] == {kind: number for kind, number in said.items() if number}
    assert zone["mixed"] == {"Movable": 68, "Unmovable": 3}


def test_a_saved_dump_gives_them_too(big: Snapshot, tmp_path: Path) -> None:
    big.save(tmp_path / "saved.parquet")
    again = fragmentation(pageowner.read(tmp_path / "saved.parquet"))
    assert again["mixed_exact"]
    assert again["zones"][0]["mixed"] == {"Movable": 68, "Unmovable": 3}


def showmixedcount(made: Machine) -> dict[tuple[str, str], int]:
    """pagetypeinfo_showmixedcount_print, frame by frame."""
    count: dict[tuple[str, str], int] = {}
    at = made.owner_at()
    size = 1 << made.pageblock_order
    for name, start, end in made.zones:
        pfn = start
        while pfn < end:
            block_end = min((pfn // size + 1) * size, end)
            kind = made.types[pfn // size]
            while pfn < block_end:
                page = at[pfn]
                if page is None:
                    pfn += 1
                    continue
                if TYPES[page.what] != kind:
                    where = name, "Movable" if kind == "CMA" else kind
                    count[where] = count.get(where, 0) + 1
                    pfn = block_end
                    break
                pfn += 1 << page.order
    return count


@pytest.mark.parametrize("seed", range(20))
def test_mixed_blocks_are_those_of_the_kernels_walk(seed: int) -> None:
    made = machine(seed, largest=4)  # no allocation is larger than a pageblock
    snapshot = made.snapshot("page_owner")
    seen = memory(snapshot)
    found = mixed(snapshot, seen)
    counted: dict[tuple[str, str], int] = {}
    for (place, kind), number in found.counts.items():
        zone = str(seen.stretches[place].zone)
        counted[zone, kind] = counted.get((zone, kind), 0) + number
    assert found.exact
    assert counted == showmixedcount(made)


@pytest.mark.parametrize("seed", range(10))
def test_polluters_are_ranked_by_the_blocks_of_others_that_they_sit_in(seed: int) -> None:
    made = machine(seed, largest=3)
    snapshot = made.snapshot("page_owner")
    seen = memory(snapshot)
    owners = owners_of(snapshot, ["comm"])
    listed = polluters(owners, seen, mixed(snapshot, seen))
    where: dict[str, set[int]] = {}
    foreign: dict[str, int] = {}
    in_block: dict[int, int] = {}
    for page in made.pages:
        block = page.pfn >> made.pageblock_order
        if TYPES[page.what] != made.types[block]:
            where.setdefault(page.comm, set()).add(block)
            foreign[page.comm] = foreign.get(page.comm, 0) + (1 << page.order)
            in_block[block] = in_block.get(block, 0) + (1 << page.order)
    named = {owners.labels[one["owner"]]["comm"]: one for one in listed}
    assert {name: one["blocks"] for name, one in named.items()} == {
        name: len(blocks) for name, blocks in where.items()}
    assert {name: one["foreign_pages"] for name, one in named.items()} == foreign
    assert [one["blocks"] for one in listed] == sorted(
        (one["blocks"] for one in listed), reverse=True)
    assert sum(one["single"] for one in listed) == list(in_block.values()).count(1)


@pytest.mark.parametrize("seed", range(5))
def test_without_the_blocks_types_what_is_said_to_be_mixed_is(seed: int) -> None:
    """A block with both kinds of pages is mixed whatever its type: never more than there are."""
    made = machine(seed, kinds=("cache", "buffer"), largest=3)
    live = fragmentation(made.snapshot("tracker"), "comm")
    assert not live["mixed_exact"]
    at = made.owner_at()
    both = 0
    size = 1 << made.pageblock_order
    for block in range(0, made.frames, size):
        both += len({TYPES[page.what] for page in at[block:block + size] if page}) == 2
    assert both > 5
    assert sum(sum(zone["mixed"].values()) for zone in live["zones"]) == both


def test_shares_of_blocks_fall_into_one_step_each() -> None:
    pages = np.array([0, 1, 2, 51, 52, 255, 256, 511, 512])
    (steps,) = contents({"free": pages}, 512).values()
    assert dict(zip(BINS, steps, strict=True)) == {
        "none": 1, "one page": 1, "under 10 %": 2, "10 to 50 %": 2, "50 to 100 %": 2, "all": 1}
