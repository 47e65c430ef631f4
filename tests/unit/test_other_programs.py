"""Page owner's facts in lines of vendors, and as crash and gdb print them of a dead kernel."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from one_record import CURRENT

import pageowner
from pageowner.sources.page_owner_text import write
from pageowner.sources.restoring import restored
from pageowner.sources.source import read_opened

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import dumps

if TYPE_CHECKING:
    from pageowner import Snapshot

TEXTS = Path(__file__).parents[1] / "data" / "texts"


def read(text: bytes) -> Snapshot:
    return read_opened(dumps.as_opened(text))


def again(snapshot: Snapshot) -> bytes:
    file = io.BytesIO()
    write(snapshot, file)
    return file.getvalue()


def test_lines_in_front_of_the_pfn_line_come_out_where_they_stood(tmp_path: Path) -> None:
    path = TEXTS / "slab-file-page-lines.txt"
    snapshot = pageowner.read(path)
    assert (snapshot.pages, snapshot.table.num_rows) == (10, 3)
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 0}
    assert again(snapshot) == path.read_bytes()
    # and after a while in a file
    snapshot.save(tmp_path / "saved.parquet")
    assert again(pageowner.read(tmp_path / "saved.parquet")) == path.read_bytes()


@pytest.mark.parametrize("lines", [
    (b"ANON_PAGE x\nvendor: 7\n", b"", b""), (b"", b"PID 87\n", b""), (b"", b"", b"last line: 3\n"),
    (b"a 1\n", b"b 2\nc 3\n", b"d 4\nCharged to memcg x\n"),
    (b"SLAB_PAGE a+0x1/0x2\n", b"", b"[free]\n pipe_release+0x1/0x2\nd 4\n")])
def test_every_line_stays_where_it_was(lines: tuple[bytes, bytes, bytes]) -> None:
    above, front, behind = lines
    pfn = CURRENT.index(b"PFN ")
    frames = CURRENT.index(b" post_alloc")
    text = (CURRENT[:pfn] + above + CURRENT[pfn:frames] + front + CURRENT[frames:-1] + behind
            + b"\n")
    assert again(read(text + CURRENT)) == text + CURRENT


def test_a_pid_in_a_line_of_its_own_is_the_task() -> None:
    snapshot = pageowner.read(TEXTS / "vendor-pid-line.txt")
    rows = snapshot.report(by="tid").to_pylist()
    assert {row["tid"]: row["pages"] for row in rows} == {1423: 1, 233: 4}
    assert snapshot.meta.counters["unknown_lines"] == 0
    text = again(snapshot)
    assert text.count(b" Flags RU LA\nPID 1423\n __alloc_pages_nodemask+") == 1
    assert again(read(text)) == text


@pytest.mark.parametrize("pointer", [
    b"Page ptr 0xfffffffe00012340", b"Page ptr: fffffffe00012340", b"page fffffffe00012340"])
def test_the_address_of_the_struct_page_in_the_pfn_line_is_passed_over(pointer: bytes) -> None:
    text = CURRENT.replace(b"PFN 0x1a2b4 ", b"PFN 0x1a2b4 " + pointer + b" ")
    assert text != CURRENT
    assert read(text).table.equals(read(CURRENT).table)


@pytest.mark.parametrize(("node", "damaged"), [(b"1023", 0), (b"1024", 1), (b"99999", 1)])
def test_a_node_that_no_kernel_has_is_damage(node: bytes, damaged: int, tmp_path: Path) -> None:
    snapshot = read(CURRENT + CURRENT.replace(b"node=0", b"node=" + node))
    assert (snapshot.table.num_rows, snapshot.meta.counters["damaged"]) == (2 - damaged, damaged)
    snapshot.save(tmp_path / "saved.parquet")
    pageowner.read(tmp_path / "saved.parquet")


def test_crash_tells_pfns_in_front_and_both_stacks() -> None:
    snapshot = pageowner.read(TEXTS / "crash-owner-l.txt")
    assert snapshot.pages == 641
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 0}
    assert snapshot.meta.extra["undone"] == ["the form of crash's 'owner'"]
    rows = snapshot.table.to_pylist()
    assert [(row["pfn"], row["order"], row["comm"]) for row in rows] == [
        (256, 7, "swapper/0"), (4096, 9, "khugepaged"), (4609, 0, "bash")]
    assert rows[2]["stack"].split("\n")[-1] == "do_anonymous_page+0x77"
    assert rows[2]["notes"].startswith("[free]\n free_unref_page_prepare+0x10\n")
    assert snapshot.report(by="subsystem")["subsystem"].to_pylist() == [
        "huge pages (THP)", "DMA buffers", "anonymous memory"]
    assert (snapshot.meta.page_size, snapshot.meta.extra["page_size_from"]) == (4096, "addresses")
    assert again(read(again(snapshot))) == again(snapshot)


def test_the_addresses_of_crash_tell_the_page_size() -> None:
    text = (TEXTS / "crash-owner-l.txt").read_bytes()
    for pfn in (b"1201", b"1000", b"100"):
        text = text.replace(b"paddr " + pfn + b"000 ", b"paddr " + pfn + b"0000 ")
    assert read(text).meta.page_size == 1 << 16
    assert "page_size" not in read(text.replace(b"paddr 10000000 ", b"paddr 9 ")).meta.extra


def test_gdb_tells_as_much() -> None:
    snapshot = pageowner.read(TEXTS / "gdb-lx-dump-page-owner.txt")
    assert snapshot.meta.extra["undone"] == ["the form of gdb's lx-dump-page-owner"]
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 1}
    first, second = snapshot.table.to_pylist()
    assert (first["pfn"], first["order"], first["gfp_mask"], first["comm"]) == (
        655360, 2, 0xd20c0, "swapper/0")
    assert first["stack"].split("\n")[0] == "post_alloc_hook+0x74"
    assert (second["pid"], second["tgid"], second["comm"]) == (77, 70, "a (b), x")
    assert second["stack"] == "post_alloc_hook+0x74\ndo_anonymous_page+0x164"
    assert second["migrate_reason"] == "compaction"
    assert snapshot.report(by="subsystem")["subsystem"].to_pylist() == [
        "slab: dentries", "anonymous memory"]


GDB = (TEXTS / "gdb-lx-dump-page-owner.txt").read_bytes()
OF_ONE = GDB[GDB.index(b"\nPage") + 1:].replace(b"Page alloc", b"Page last alloc")
FREED = (b"page_owner tracks the page as freed\n", b"page_owner is not allocated\n")


@pytest.mark.parametrize("lines", [FREED, FREED[:1], FREED[1:]])
@pytest.mark.parametrize("times", [1, 4000])
def test_a_freed_page_that_gdb_was_asked_for_is_left_out_and_counted(
        lines: tuple[bytes, ...], times: int) -> None:
    freed = b"".join(lines) + OF_ONE
    owned = b"page_owner tracks the page as allocated\n" + OF_ONE
    snapshot = read((GDB + freed + owned) * times)
    assert snapshot.table.num_rows == 3 * times
    assert snapshot.meta.counters["damaged"] == times
    assert snapshot.meta.counters["unknown_lines"] == 0
    assert "freed" in snapshot.meta.extra["damage"][0][1]
    first, second = pageowner.read(TEXTS / "gdb-lx-dump-page-owner.txt").table["stack"].to_pylist()
    assert set(snapshot.table["stack"].to_pylist()) == {first, second}
    only = read(freed + owned)
    assert only.table["pfn"].to_pylist() == [655370]


@pytest.mark.parametrize("name", ["crash-owner-l", "gdb-lx-dump-page-owner",
                                  "slab-file-page-lines", "vendor-pid-line"])
def test_spoilt_texts_of_other_programs_lose_nothing_silently(name: str) -> None:
    text = (TEXTS / f"{name}.txt").read_bytes()
    pool = [part + b"\n\n" for part in text.split(b"\n\n") if part.strip()]
    for seed in range(150):
        dumps.check_snapshot(text + dumps.mutated(random.Random(seed), pool))


def test_long_texts_of_other_programs_are_read_in_pieces() -> None:
    for name in ("crash-owner-l", "gdb-lx-dump-page-owner"):
        text = (TEXTS / f"{name}.txt").read_bytes()
        times = (3 << 20) // len(text)
        one, many = read(text), read(text * times)
        assert many.table.num_rows == times * one.table.num_rows
        assert many.meta.counters["damaged"] == 0
        assert many.pages == times * one.pages


def test_two_records_far_apart_take_no_memory_for_what_lies_between() -> None:
    import tracemalloc

    pageowner.frag(TEXTS / "sparse-high-pfn.txt")  # what is imported is not counted
    tracemalloc.start()
    try:
        pageowner.frag(TEXTS / "sparse-high-pfn.txt")
        pageowner.frag(TEXTS / "sparse-high-pfn.txt", order=9)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert pageowner.read(TEXTS / "sparse-high-pfn.txt").pages == 2


def minidump(records: int, stacks: int) -> bytes:
    """Blocks that share some stacks, each listed once."""
    lines = []
    for number in range(records):
        handle = number % stacks
        frames = [] if number >= stacks else [f"ffffffc0{0x10000000 + handle * 4096 + place:08x}"
                                              for place in range(3 + handle % 3)]
        lines += [f"{655360 + 2 * number} {handle + 5000} {len(frames)}", *frames]
    return "\n".join([*lines, ""]).encode()


def test_a_minidump_is_read_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    snapshot = read(minidump(20, 4))
    assert snapshot.table["pfn"].to_pylist() == list(range(655360, 655400, 2))
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 0}
    (undone,) = snapshot.meta.extra["undone"]
    assert "no orders (each block counts as one page)" in undone
    assert snapshot.table["gfp_mask"].null_count == snapshot.table["migratetype"].null_count == 20
    assert snapshot.report(by="migratetype").to_pylist()[0]["migratetype"] is None
    owners = snapshot.report(by="stack").to_pylist()
    assert [owner["blocks"] for owner in owners] == [5] * 4
    assert owners[0]["stack"].startswith("0xffffffc0100")
    # names from the kernel's symbols
    (tmp_path / "System.map").write_text("ffffffc00f000000 T _stext\nffffffc010000000 T f\n"
                                         "ffffffc010004000 T _etext\n")
    (tmp_path / "dump.txt").write_bytes(minidump(20, 4))
    named = pageowner.read(tmp_path / "dump.txt", system_map=tmp_path / "System.map")
    assert str(named.table["stack"][0]).startswith("f+0x0/0x4000\n")


def test_a_long_minidump_is_read_in_pieces() -> None:
    records = 150_000
    text = minidump(records, 700)
    assert len(text) > 2 << 20
    snapshot = read(text)
    assert snapshot.table.num_rows == records
    assert snapshot.meta.counters["damaged"] == 0
    assert snapshot.table["handle"].null_count == records


@pytest.mark.parametrize("damage", [b"junk\n", b"655361 5001 9\n", b"655361 5001\n", b"ffffffc0\n"])
def test_damage_in_a_minidump_is_counted(damage: bytes) -> None:
    text = minidump(20, 4)
    at = text.index(b"\n", len(text) * 3 // 4) + 1
    snapshot = read(text[:at] + damage + text[at:])
    assert snapshot.table.num_rows == 20
    assert snapshot.meta.counters["damaged"] == 1


def test_a_handle_whose_stack_was_not_listed_stays_a_handle() -> None:
    snapshot = read(minidump(8, 4) + b"655390 9999 0\n")
    assert snapshot.table["handle"].to_pylist()[-1] == 9999


@pytest.mark.parametrize("text", [
    b"1 2 3\nx\n", b"10 20 0\n30 40 0\nx\n", b"4096 5 1\nzz\n", b"1 2\n3 4\n"])
def test_lines_of_three_numbers_are_no_minidump_without_more(text: bytes) -> None:
    assert not restored(dumps.as_opened(text)).undone


@pytest.mark.parametrize("seed", range(30))
def test_a_spoilt_minidump_loses_nothing_silently(seed: int) -> None:
    chance = random.Random(seed)
    text = bytearray(minidump(40, 5))
    for _ in range(3):
        text[chance.randrange(400, len(text))] = chance.choice(b"\n x0f")
    dumps.check_snapshot(bytes(text))


def test_a_line_of_the_console_in_a_stack_is_counted_and_costs_no_frame() -> None:
    plain, found = (pageowner.read(TEXTS / f"{name}.txt")
                    for name in ("cma-pinned", "console-interleaved"))
    assert found.table["stack"].equals(plain.table["stack"])
    assert found.meta.counters["unknown_lines"] == 1
