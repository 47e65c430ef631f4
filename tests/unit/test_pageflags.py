"""Every page frame must be told for what it is."""

from __future__ import annotations

import lzma
import os
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import pageflags, zones
from pageowner.kernel.memory_ranges import ram_ranges

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

K = pageflags.KINDS.index


def flags_of(*frames: str) -> NDArray[np.uint64]:
    """Frames written as names joined by ``|``."""
    return np.array([sum(1 << pageflags.BITS[n] for n in frame.split("|") if n)
                     for frame in frames], np.uint64)


@pytest.fixture(scope="module")
def before(data: Path) -> NDArray[np.uint64]:
    with lzma.open(data / "6.12-fragmented/kpageflags.before.xz") as file:
        return np.frombuffer(file.read(), np.uint64)


@pytest.fixture(scope="module")
def kinds(before: NDArray[np.uint64]) -> Counter[str]:
    found = pageflags.kind(before)
    return Counter({pageflags.KINDS[n]: int(c) for n, c in enumerate(np.bincount(found)) if c})


def test_kinds_of_a_real_kernel_agree_with_its_own_page_owner(
    kinds: Counter[str], dump_stacks: dict[str, Counter[str]]
) -> None:
    pages = dump_stacks["6.12-fragmented"]

    def owned(pattern: str, without: str = "$^") -> int:
        return sum(n for stack, n in pages.items()
                   if re.search(pattern, stack) and not re.search(without, stack))

    assert kinds["shared memory"] == owned(r"(?m)^shmem_alloc_folio\+", r"slab")
    assert kinds["file"] == owned(r"(?m)^__filemap_get_folio\+", r"slab")
    anonymous = kinds["anonymous"] + kinds["thp"]
    assert anonymous == pytest.approx(
        owned(r"(?m)^vma_alloc_folio_noprof\+"), rel=0.02)
    assert kinds["slab"] == pytest.approx(owned(r"(?m)^allocate_slab\+"), rel=0.3)


def test_the_accounts_of_a_real_kernel_close(
    data: Path, before: NDArray[np.uint64], kinds: Counter[str]
) -> None:
    assert sum(kinds.values()) == len(before)
    (zone,) = zones.parse_zoneinfo((data / "6.12-fragmented/zoneinfo.txt").read_text())
    # What is not managed is reserved: nothing else is kept from the page allocator.
    assert len(before) - kinds["reserved"] == pytest.approx(zone.managed, abs=4)
    assert pageflags.deferred(before, zone) == slice(zone.end_pfn, zone.end_pfn)


def test_free_blocks_of_a_real_kernel_agree_with_its_free_lists(
    data: Path, before: NDArray[np.uint64]
) -> None:
    """The kernel wrote pagetypeinfo at about the time of the flags: blocks moved only by a few."""
    text = (data / "6.12-fragmented/pagetypeinfo.before.txt").read_text()
    listed = np.sum(list(zones.parse_pagetypeinfo(text).free.values()), axis=0)
    pfn, order = pageflags.free_blocks(before)
    counted = np.bincount(order, minlength=11)
    moved = np.abs(counted - listed)
    assert (moved[1:] <= 3).all()
    assert moved[0] < 0.06 * listed[0]
    assert (pfn & ((1 << order.astype(np.int64)) - 1) == 0).all()
    assert (np.diff(pfn) >= 1 << order[:-1].astype(np.int64)).all()
    assert (1 << order.astype(np.int64)).sum() == pageflags.is_free(before).sum()


class Buddy:
    """The buddy allocator by its book: split on allocation, merge on free."""

    def __init__(self, frames: int, max_order: int) -> None:
        self.max_order = max_order
        self.free = {(n, max_order) for n in range(0, frames, 1 << max_order)}

    def allocate(self, pfn: int, order: int) -> bool:
        for size in range(order, self.max_order + 1):
            head = pfn >> size << size
            if (head, size) in self.free:
                self.free.remove((head, size))
                while size > order:
                    size -= 1
                    half = pfn >> size << size
                    self.free.add((half ^ (1 << size), size))
                return True
        return False

    def release(self, pfn: int, order: int) -> None:
        while order < self.max_order and (pfn ^ (1 << order), order) in self.free:
            self.free.remove((pfn ^ (1 << order), order))
            pfn &= ~(1 << order)
            order += 1
        self.free.add((pfn, order))


@pytest.mark.parametrize("seed", range(5))
def test_free_blocks_are_those_of_a_buddy_allocator(seed: int) -> None:
    frames, max_order = 1 << 13, 10
    rng = np.random.default_rng(seed)
    buddy, held = Buddy(frames, max_order), []
    for _ in range(3000):
        if held and rng.random() < 0.45:
            buddy.release(*held.pop(int(rng.integers(len(held)))))
        else:
            order = int(rng.choice([0, 0, 0, 1, 2, 3, 9], p=[.3, .2, .1, .15, .1, .1, .05]))
            pfn = int(rng.integers(frames)) >> order << order
            if buddy.allocate(pfn, order):
                held.append((pfn, order))
    flags = np.zeros(frames, np.uint64)
    for pfn, order in buddy.free:
        flags[pfn:pfn + (1 << order)] = pageflags.bit("buddy")
    pfn, order = pageflags.free_blocks(flags, max_order)
    assert list(zip(pfn.tolist(), order.tolist(), strict=True)) == sorted(buddy.free)


def test_free_blocks_do_not_cross_zones() -> None:
    flags = np.full(16, pageflags.bit("buddy"))
    bounds = np.array([0, 4, 16], np.uint64)
    pfn, order = pageflags.free_blocks(flags, 10, bounds)
    assert pfn.tolist() == [0, 4, 8]
    assert order.tolist() == [2, 2, 3]
    assert pageflags.free_blocks(flags[:0])[0].tolist() == []


def test_tails_are_what_their_head_is() -> None:
    """As 6.1 gives them: only the head tells."""
    flags = flags_of("slab|compound_head", "compound_tail", "compound_tail", "lru|uptodate",
                     "anon|thp|compound_head|swapbacked", "compound_tail|thp", "",
                     "compound_head", "compound_tail")
    names = [pageflags.KINDS[k] for k in pageflags.kind(flags)]
    assert names == ["slab", "slab", "slab", "file", "thp", "thp", "kernel", "kernel", "kernel"]
    assert pageflags.compound_order(flags).tolist() == [1, -1, -1, 0, 1, -1, 0, 1, -1]


def test_a_huge_page_may_be_longer_than_what_is_looked_at_at_once() -> None:
    flags = np.full(1 << 18, pageflags.bit("compound_tail"))
    flags[0] = flags_of("huge|compound_head")[0]
    assert (pageflags.kind(flags) == K("hugetlb")).all()
    assert pageflags.compound_order(flags)[0] == 18


def test_rare_frames_are_told_apart() -> None:
    flags = flags_of("nopage", "buddy", "reserved", "offline", "hwpoison|lru|uptodate",
                     "zero_page|reserved", "zero_page|thp|compound_head", "huge|compound_head",
                     "pgtable", "anon|ksm|swapbacked", "anon|swapbacked", "swapbacked|lru", "")
    names = [pageflags.KINDS[k] for k in pageflags.kind(flags)]
    assert names == ["no page", "free", "reserved", "offline", "hwpoison", "zero page",
                     "zero page", "hugetlb", "page table", "ksm", "anonymous", "shared memory",
                     "kernel"]


def test_a_kernel_that_calls_all_anonymous_pages_merged_is_not_believed() -> None:
    flags = flags_of("anon|ksm|swapbacked", "anon|ksm|swapbacked|lru")
    assert (pageflags.kind(flags) == K("anonymous")).all()


def test_holes_and_deferred_frames_are_nobodys() -> None:
    """As a kernel of 6.18 has it: a hole and the end of a zone, both without any flag."""
    flags = flags_of(*["buddy"] * 4, *[""] * 4, *["lru|uptodate"] * 2, *[""] * 6)
    zone = zones.Zone(0, "Normal", 8, 8, 8, 5)
    found = pageflags.kind(flags, [zone], [(0, 4), (8, 16)])
    assert [pageflags.KINDS[k] for k in found] == (
        ["free"] * 4 + ["no page"] * 4 + ["file"] * 2 + ["kernel"] * 3 + ["deferred"] * 3)
    assert pageflags.deferred(flags, zone) == slice(13, 16)


def test_names_of_bits() -> None:
    assert pageflags.names(0) == ""
    assert pageflags.names((1 << 10) | (1 << 32)) == "buddy|reserved"
    assert pageflags.names(1 << 60) == hex(1 << 60)


def test_arrays_are_read_whole_and_in_part(tmp_path: Path) -> None:
    path = tmp_path / "flags"
    values = np.arange(300_000, dtype=np.uint64)
    path.write_bytes(values.tobytes())
    assert (pageflags.read(str(path)) == values).all()
    assert (pageflags.read(str(path), 299_990, 100) == values[299_990:]).all()
    assert pageflags.read(str(path), 5, 3).tolist() == [5, 6, 7]
    assert len(pageflags.read(str(path), 300_000)) == 0


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PageownerError, match=r"cannot read .*none: No such file"):
        pageflags.read(str(tmp_path / "none"))
    with pytest.raises(PageownerError, match="cannot read"):
        pageflags.read(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="/proc/kpageflags is for root only")
def test_this_machine_is_read_and_its_accounts_close() -> None:
    ram = ram_ranges()
    present = zones.running().zones
    flags = pageflags.read()
    kinds = pageflags.kind(flags, present, ram)
    assert len(flags) >= max(zone.end_pfn for zone in present)
    assert len(pageflags.read(pageflags.KPAGECOUNT, 0, 4096)) == 4096
    in_ram = np.zeros(len(flags), bool)
    for first, behind in ram:
        in_ram[first:behind] = True
    there = kinds != K("no page")
    assert not (in_ram & ~there).any()
    pages = Counter({pageflags.KINDS[n]: int(c) for n, c in enumerate(np.bincount(kinds))})
    assert sum(pages.values()) == len(flags)
    anonymous = pages["anonymous"] + pages["thp"] + pages["ksm"]
    now = int(re.findall(r"AnonPages:\s+(\d+) kB", zones.read_text("/proc/meminfo"))[0]) // 4
    assert now / 3 < anonymous < now * 3  # other work goes on while the flags are read
