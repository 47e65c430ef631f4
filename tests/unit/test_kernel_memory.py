"""The kernel's own page owner out of its memory: what it says, and what it stands."""

import io
import random
import struct
from contextlib import suppress
from copy import deepcopy

import numpy as np
import pytest
from made_memory import (
    DEPOT,
    EXT,
    KALLSYMS,
    PAGE,
    PAGES,
    SECTION,
    STEXT,
    VERSIONS,
    MadeMemory,
    Version,
)

from pageowner.errors import PageownerError
from pageowner.kernel import kallsyms
from pageowner.kernel_memory.access import strings
from pageowner.kernel_memory.pageblocks import BlockTypes
from pageowner.kernel_memory.sections import Pieces, pieces, section_bits
from pageowner.kernel_memory.snapshot import page_owner
from pageowner.model.snapshot import Snapshot
from pageowner.sources.page_owner_text import write

EARLY, ALLOCATED = (STEXT + 0x110, STEXT + 0x410), (STEXT + 0x210, STEXT + 0x320)
OF_6_12, OF_7_3 = VERSIONS[2], VERSIONS[3]

every_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda each: each.release)


def read(memory: MadeMemory) -> Snapshot:
    return page_owner(memory, kallsyms.parse(KALLSYMS), "made")


def rows(snapshot: Snapshot) -> dict[int, dict]:
    return {row["pfn"]: row for row in snapshot.table.to_pylist()}


def text(snapshot: Snapshot) -> bytes:
    out = io.BytesIO()
    write(snapshot, out)
    return out.getvalue()


@every_version
def test_a_record_says_what_the_kernel_keeps(version: Version) -> None:
    memory = MadeMemory(version)
    handle = memory.stack(*ALLOCATED)
    memory.plant(0x100, memory.stack(*EARLY), gfp=0, pid=0, tgid=0, comm=b"swapper")
    memory.plant(0x300, handle, order=1, gfp=0xCC8, reason=0, page_flags=1 << 56 | 0x28)
    found = rows(read(memory))
    assert sorted(found) == [0x100, 0x300]
    row = found[0x300]
    assert row["stack"] == "alloc_pages_noprof+0x10/0x100\ndo_anonymous_page+0x20/0x100"
    assert (row["order"], row["gfp_mask"], row["gfp_flags"]) == (1, 0xCC8,
                                                                 "GFP_KERNEL|__GFP_MOVABLE")
    assert (row["migratetype"], row["migrate_reason"]) == ("Movable", "compaction")
    assert row["notes"] == "Page has been migrated, last migrate reason: compaction"
    assert (found[0x100]["state"], row["state"]) == ("early", "owned")
    assert (found[0x100]["block_migratetype"], row["block_migratetype"]) == ("Movable",
                                                                             "Reclaimable")
    if version.fields:
        assert row["flags"] == ("0x100000000000028(uptodate|lru|node=0|zone=1|lastcpupid=0x0)")
        assert (row["zone"], row["node"]) == ("1", 0)
        assert (row["pid"], row["tgid"], row["comm"], row["ts_ns"]) == (7, 5, "sh", 1000)
    else:
        assert row["flags"] == "0x100000000000028(uptodate|lru|0x100000000000000)" or (
            row["flags"] == "0x100000000000028(uptodate|lru)")
        assert (row["pid"], row["comm"], row["ts_ns"]) == (None, None, None)


@every_version
def test_what_the_kernels_reader_leaves_out_is_left_out(version: Version) -> None:
    memory = MadeMemory(version)
    handle = memory.stack(*ALLOCATED)
    memory.plant(0x200, handle)
    memory.plant(0x201, handle, order=1)  # a tail
    memory.plant(0x202, handle, flags=1)  # freed since
    memory.plant(0x203, 0)  # without a stack
    memory.plant(0x300, 0, flags=0, page_type=version.buddy, private=3)
    memory.plant(0x305, handle)  # in a free block
    memory.plant(0x308, handle)  # behind it
    memory.plant(0, handle)  # below the kernel's first frame
    assert sorted(rows(read(memory))) == [0x200, 0x308]


def test_an_isolated_pageblock_is_called_so() -> None:
    for version in (OF_6_12, OF_7_3):
        memory = MadeMemory(version)
        memory.plant(0x500, memory.stack(*ALLOCATED))
        assert rows(read(memory))[0x500]["block_migratetype"] == "Isolate"


def test_the_one_pageblock_of_a_section_has_its_type() -> None:
    """As with pages of 64 KiB on arm64, where a section is as large as a pageblock."""
    for version in VERSIONS:
        memory = MadeMemory(version)
        memory.types.structs["free_area"] = 64, {}  # 22 orders
        memory.types.structs["page"] = 64, memory.types.structs["page"][1]
        memory.page_size = 1 << 18
        found = BlockTypes(memory, pieces_of(memory))
        assert found.order == SECTION.bit_length() - 1
        assert [found.names[code] for code in found.codes(np.array([0, 9], np.uint64))] == [
            "Movable", "Movable"]


def pieces_of(memory: MadeMemory) -> Pieces:
    """Those of its sections, whose size stays as it was made."""
    size, memory.page_size = memory.page_size, PAGE
    found = pieces(memory)
    memory.page_size = size
    return found


@pytest.mark.parametrize(("machine", "release", "page", "told", "frames"), [
    ("x86_64", "6.1.0", 12, None, 15), ("x86_64", "6.1.0", 12, 28, 16),
    ("aarch64", "5.10.0", 12, 30, 18), ("aarch64", "5.12.0", 12, None, 15),
    ("aarch64", "6.12.0", 16, None, 13), ("loongarch64", "6.12.0", 14, None, 15)])
def test_a_section_is_as_large_as_the_kernel_has_them(
        machine: str, release: str, page: int, told: int | None, frames: int) -> None:
    memory = MadeMemory(OF_6_12, page_size=1 << page, machine=machine, section_size_bits=told)
    memory.release = release
    assert section_bits(memory) == frames


@pytest.mark.parametrize(("machine", "version"), [("sparc64", OF_6_12), ("aarch64", VERSIONS[0])])
def test_a_machine_whose_sections_are_not_known_is_refused(machine: str, version: Version) -> None:
    with pytest.raises(PageownerError, match=f"SECTION_SIZE_BITS of {machine}, Linux "):
        section_bits(MadeMemory(version, machine=machine))


def test_its_text_is_the_kernels() -> None:
    memory = MadeMemory(OF_6_12)
    memory.plant(0x400, memory.stack(*ALLOCATED), comm=b"a b\0left over", ts=5_000,
                 charge=memory.cgroup("small"))
    assert text(read(memory)) == (
        b"Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 7, tgid 5 (a b), ts 5000 ns\n"
        b"PFN 0x400 type Unmovable Block 2 type Isolate Flags 0x8(uptodate|node=0|zone=0|"
        b"lastcpupid=0x0)\n"
        b" alloc_pages_noprof+0x10/0x100\n do_anonymous_page+0x20/0x100\n"
        b"Charged to memcg small\n\n")


def test_before_6_5_its_text_has_decimal_frames_and_the_time_of_the_last_free() -> None:
    memory = MadeMemory(VERSIONS[1])
    memory.plant(0x400, memory.stack(*ALLOCATED))
    first, second = text(read(memory)).split(b"\n")[:2]
    assert first.endswith(b"ts 1000 ns, free_ts 900 ns")
    assert second.startswith(b"PFN 1024 ")


def test_cgroups_are_named_whichever_pointer_leads_to_them() -> None:
    memory = MadeMemory(OF_7_3)
    handle = memory.stack(*ALLOCATED)
    group, gone = memory.cgroup("kept"), memory.cgroup("gone", online=False)
    objcg = memory.put(struct.pack("<3Q", 0, 0, group))
    of_gone = memory.put(struct.pack("<3Q", 0, 0, gone))
    for pfn, charge in enumerate((group, objcg, objcg | 2, of_gone | 2, group | 1, 0x40, 0), 0x500):
        memory.plant(pfn, handle, charge=charge)
    snapshot = read(memory)
    assert [row["notes"] for row in snapshot.table.to_pylist()] == [
        "Charged to memcg kept", "Charged to memcg kept", "Charged (via objcg) to memcg kept",
        "Charged (via objcg) to offline memcg gone", "Slab cache page", None, None]
    assert snapshot.table["memcg"].to_pylist() == ["kept", "kept", "kept", "gone", None, None, None]
    assert snapshot.meta.counters["unknown_charges"] == 1


@every_version
def test_stacks_that_are_not_there_are_counted_and_known_by_handle(version: Version) -> None:
    memory = MadeMemory(version)
    good = [memory.stack(*ALLOCATED), memory.stack(*EARLY), memory.stack(STEXT + 0x210),
            memory.stack(STEXT + 0x310), memory.stack(STEXT + 0x320), memory.stack(STEXT + 0x330)]
    huge = memory.stack(*ALLOCATED, size=0xFFFFFFFF)
    bits = version.pool_bits
    bad = [huge, 1023 << bits | (good[0] & (1 << bits) - 1),  # beyond what was written
           good[0] + 1, good[0] + 2, good[0] + (1 << bits - 1)]  # pools that are not there
    for pfn, handle in enumerate(good + bad, 0x600):
        memory.plant(pfn, handle)
    snapshot = read(memory)
    found = rows(snapshot)
    assert snapshot.meta.counters["unknown_stacks"] == len(bad)
    for pfn, handle in enumerate(good + bad, 0x600):
        assert (found[pfn]["stack"] is None) == (handle in bad)
        assert found[pfn]["handle"] == (handle if handle in bad else None)


def test_orders_that_no_block_has_are_counted() -> None:
    memory = MadeMemory(OF_6_12)
    handle = memory.stack(*ALLOCATED)
    memory.plant(0x200, handle, order=65535)
    memory.plant(0x201, handle, order=23)
    memory.plant(0x202, handle)
    snapshot = read(memory)
    assert list(rows(snapshot)) == [0x202]
    assert snapshot.meta.counters["damaged"] == 2


def test_memory_without_records_and_what_is_not_there_are_counted() -> None:
    memory = MadeMemory(OF_6_12)
    memory.plant(0x200, memory.stack(*ALLOCATED))
    memory.regions[EXT] = memory.regions[EXT][:72 * (SECTION - 10)]
    snapshot = read(memory)
    assert list(rows(snapshot)) == [0x200]
    assert snapshot.meta.counters["without_page_ext"] == 1
    assert snapshot.meta.counters["unreadable"] == 10


def test_a_piece_of_memory_that_is_another_ones_is_left_out() -> None:
    memory = MadeMemory(OF_6_12)
    memory.plant(0x200, memory.stack(*ALLOCATED))
    # the second section's entries are the first's
    table = next(start for start, region in memory.regions.items() if region[:8] == struct.pack(
        "<Q", PAGES | 0xF))
    struct.pack_into("<Q", memory.regions[table], 48, EXT - SECTION * OF_6_12.ext_size)
    snapshot = read(memory)
    assert list(rows(snapshot)) == [0x200]
    assert snapshot.meta.counters["without_page_ext"] == 1


class Moving(MadeMemory):
    """Another record is written each time its entry is copied, until it was so many times."""

    moves = 0

    def copy(self, addresses: np.ndarray, size: int, out: np.ndarray | None = None
             ) -> tuple[np.ndarray, np.ndarray]:
        found = super().copy(addresses, size, out)
        low, high = EXT + 0x200 * 72, EXT + 0x201 * 72
        if self.moves and ((addresses <= low) & (addresses + size >= high)).any():
            self.moves -= 1
            self.plant(0x200, self.stack(*ALLOCATED), ts=2000 + self.moves)
        return found


@pytest.mark.parametrize(("moves", "times", "unsettled"), [
    (3, {0x200: 2000, 0x210: 1000}, 0), (100, {0x210: 1000}, 1)])
def test_a_record_that_changes_is_read_until_it_rests_or_left_out_and_counted(
        moves: int, times: dict[int, int], unsettled: int) -> None:
    memory = Moving(OF_6_12, live=True)
    for pfn in (0x200, 0x210):
        memory.plant(pfn, memory.stack(*ALLOCATED), ts=1000)
    memory.moves = moves
    snapshot = read(memory)
    assert {pfn: row["ts_ns"] for pfn, row in rows(snapshot).items()} == times
    counters = snapshot.meta.counters
    assert (counters["changed"], counters["unsettled"]) == (1, unsettled)


@pytest.mark.parametrize(("change", "words"), [
    (lambda memory: memory.number("page_owner_inited", 0, "<I"), "page_owner=on"),
    (lambda memory: memory.symbols.pop("page_owner_inited"), "page_owner=on"),
    (lambda memory: memory.symbols.pop("mem_section"), "do not have mem_section"),
    (lambda memory: memory.types.structs.pop("page_owner"), "do not have struct page_owner"),
    (lambda memory: memory.types.structs.pop("stack_record"), "stack_record"),
    (lambda memory: memory.number("page_ext_size", 1 << 40), "page_ext entries"),
    (lambda memory: memory.regions.pop(memory.symbols["max_pfn"]), "cannot be read"),
    (lambda memory: memory.regions.pop(DEPOT), "stack depot"),
    (lambda memory: memory.regions.pop(EXT), "no record"),
], ids=["off", "none", "sections", "page_owner", "stack_record", "size", "max_pfn", "depot",
        "page_ext"])
def test_what_is_not_as_expected_is_said_in_one_line(change, words: str) -> None:
    memory = MadeMemory(OF_6_12)
    memory.plant(0x200, memory.stack(*ALLOCATED))
    change(memory)
    with pytest.raises(PageownerError, match=words) as failure:
        read(memory)
    assert "\n" not in str(failure.value)


@every_version
def test_damaged_memory_never_ends_in_anything_but_a_line(version: Version) -> None:
    chance = random.Random(version.release)
    whole = MadeMemory(version)
    handles = [whole.stack(STEXT + 0x210, STEXT + 16 * depth) for depth in range(20)]
    group = whole.cgroup("g")
    for pfn in range(0x100, 0x180):
        whole.plant(pfn, chance.choice(handles), order=chance.randrange(3), charge=group)
    outcomes = set()
    for _ in range(15):
        memory = deepcopy(whole)
        small = [start for start in memory.regions if start not in (EXT, PAGES)]
        for _ in range(chance.randrange(1, 30)):
            region = memory.regions[chance.choice([EXT, PAGES, DEPOT, *small])]
            used = min(len(region), 0x180 * 72)
            at = chance.randrange(used)
            region[at] = chance.choice((0, 0xFF, region[at] ^ 1 << chance.randrange(8)))
        with suppress(PageownerError):
            outcomes.add(bool(read(memory).table.num_rows))
            continue
        outcomes.add(False)
    assert outcomes == {True, False}


def test_strings_end_where_memory_does() -> None:
    memory = MadeMemory(OF_6_12)
    short, long, cut = memory.put(b"abc\0"), memory.put(b"x" * 40 + b"\0"), memory.put(b"no end")
    wanted = np.array([short, long, cut, 0x10], np.uint64)
    assert strings(memory, wanted) == [b"abc", b"x" * 40, None, None]
