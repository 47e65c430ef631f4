"""Every form that mm/page_owner.c has printed since 3.19, and what may happen to it since."""

from __future__ import annotations

import io
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from one_record import CURRENT

import pageowner
from pageowner.sources import page_owner, page_owner_stacks
from pageowner.sources.page_owner_text import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pageowner import Snapshot

    Read = Callable[[bytes], Snapshot]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Snapshot]:
    def reader(text: bytes) -> Snapshot:
        path = tmp_path / "dump.txt"
        path.write_bytes(text)
        return pageowner.read(path)

    return reader


def only(snapshot: Snapshot) -> dict[str, Any]:
    """The single row, its null columns left out."""
    (row,) = snapshot.table.to_pylist()
    assert snapshot.meta.counters["damaged"] == 0
    return {name: value for name, value in row.items() if value is not None}


def again(snapshot: Snapshot) -> bytes:
    file = io.BytesIO()
    write(snapshot, file)
    return file.getvalue()


def test_3_19_numbers_letters_and_addresses_are_understood(read: Read) -> None:
    # 3.19 to 4.5: type is a number, 2 is Movable (include/linux/mmzone.h before 4.4); flags are
    # letters in twelve places; frames carry addresses.
    snapshot = read(
        b"Page allocated via order 0, mask 0x280da\n"
        b"PFN 524288 Block 1024 type 2          Flags    UDLA     \n"
        b" [<ffffffff811682c4>] alloc_pages_vma+0x114/0x220\n"
        b" [<ffffffff8114a5e7>] handle_mm_fault+0x9c7/0x1160\n"
        b" [<ffffffffa02b1c30>] xfs_buf_get+0x10/0x40 [xfs]\n"
        b"\n")
    assert only(snapshot) == {
        "pfn": 524288, "order": 0, "gfp_mask": 0x280da, "migratetype": "Movable",
        "block_migratetype": "Movable", "state": "owned", "flags": "UDLA",
        "stack": "alloc_pages_vma+0x114/0x220\nhandle_mm_fault+0x9c7/0x1160\n"
                 "xfs_buf_get+0x10/0x40 [xfs]"}
    assert snapshot.meta.pageblock_order == 9
    assert snapshot.report(by="module").column("module").to_pylist() == ["xfs"]


def test_3_19_a_page_in_a_foreign_block_keeps_its_own_type(read: Read) -> None:
    snapshot = read(
        b"Page allocated via order 0, mask 0x280da\n"
        b"PFN 524288 Block 1024 type 2          Flags              \n"
        b" [<ffffffff811682c4>] alloc_pages_vma+0x114/0x220\n\n"
        b"Page allocated via order 1, mask 0x800d0\n"
        b"PFN 524300 Block 1024 type 2 Fallback Flags   R    S C   \n"
        b" [<ffffffff811682c4>] alloc_slab_page+0x14/0x20\n\n")
    assert snapshot.table["migratetype"].to_pylist() == ["Movable", "Reclaimable"]
    assert snapshot.table["block_migratetype"].to_pylist() == ["Movable", "Movable"]


def test_4_4_type_one_is_movable(read: Read) -> None:
    # 4.4 swapped Movable and Reclaimable in enum migratetype.
    snapshot = read(b"Page allocated via order 0, mask 0x24280ca\n"
                    b"PFN 2048 Block 4 type 1          Flags    U LA      \n"
                    b" [<ffffffff811682c4>] alloc_pages_vma+0x114/0x220\n\n")
    row = only(snapshot)
    assert (row["migratetype"], row["block_migratetype"]) == ("Movable", "Movable")


@pytest.mark.parametrize(("masks", "kinds"), [
    (["0xd0", "0x800d0", "0xc0", "0x280da"], [None, None, "Unmovable", "Movable"]),
    # __GFP_KSWAPD_RECLAIM, so 4.4 or 4.5
    (["0x24000d0", "0x2080020", "0x10"], ["Reclaimable", "Unmovable", "Reclaimable"]),
    (["0x20280da", "0xd0"], ["Movable", None]),  # a vendor's __GFP_CMA
])
def test_an_excerpt_before_4_6_in_which_no_page_tells_what_a_mask_means(
        read: Read, masks: list[str], kinds: list[str | None]) -> None:
    snapshot = read("".join(
        f"Page allocated via order 0, mask {mask}\nPFN {pfn} Block 0 type 0 Fallback Flags U\n"
        " f+0x1/0x2\n\n" for pfn, mask in enumerate(masks, 1)).encode())
    assert snapshot.table["migratetype"].to_pylist() == kinds
    assert snapshot.table["block_migratetype"].to_pylist() == [
        "Unmovable" if masks[0] == "0x24000d0" else None] * len(masks)


def test_4_6_names_of_flags_and_types_are_read(read: Read) -> None:
    snapshot = read(
        b"Page allocated via order 0, mask 0x24201ca(GFP_HIGHUSER_MOVABLE|__GFP_COLD)\n"
        b"PFN 4096 type Movable Block 8 type CMA Flags 0xfffff8001006c(referenced|uptodate|lru|"
        b"active|mappedtodisk)\n"
        b" [<ffffffff811682c4>] post_alloc_hook+0x81/0xf0\n"
        b" [<ffffffff81176622>] get_page_from_freelist+0x592/0xb20\n"
        b"Page has been migrated, last migrate reason: compaction\n\n")
    row = only(snapshot)
    assert row["gfp_flags"] == "GFP_HIGHUSER_MOVABLE|__GFP_COLD"
    assert (row["migratetype"], row["block_migratetype"]) == ("Movable", "CMA")
    assert row["migrate_reason"] == "compaction"
    assert row["stack"].startswith("post_alloc_hook+0x81/0xf0\nget_page_from_freelist")
    assert snapshot.meta.counters["unknown_lines"] == 0


@pytest.mark.parametrize(("kernel", "tail", "expected"), [
    ("5.11", b", pid 1, ts 321 ns", {"pid": 1, "ts_ns": 321}),
    ("5.13", b", pid 1, ts 321 ns, free_ts 7 ns", {"pid": 1, "ts_ns": 321, "free_ts_ns": 7}),
    ("next before 5.18", b", pid 1 (a b), ts 321 ns, free_ts 7 ns",
     {"pid": 1, "comm": "a b", "ts_ns": 321, "free_ts_ns": 7}),
    ("5.18", b", pid 1, tgid 2 (a b), ts 321 ns, free_ts 0 ns",
     {"pid": 1, "tgid": 2, "comm": "a b", "ts_ns": 321, "free_ts_ns": 0}),
    ("6.12", b", pid 1, tgid 2 (), ts 321 ns", {"pid": 1, "tgid": 2, "comm": "", "ts_ns": 321}),
])
def test_first_lines_since_5_11_say_who_and_when(
        read: Read, kernel: str, tail: bytes, expected: dict[str, Any]) -> None:
    pfn = b"0x100" if kernel == "6.12" else b"256"
    text = (b"Page allocated via order 0, mask 0x100cca(GFP_HIGHUSER_MOVABLE)" + tail + b"\n"
            b"PFN " + pfn + b" type Movable Block 0 type Unmovable Flags 0x80(lru|zone=1)\n"
            b" post_alloc_hook+0x81/0xf0\n\n")
    row = only(read(text))
    said = {name: row[name] for name in row
            if name in ("pid", "tgid", "comm", "ts_ns", "free_ts_ns")}
    assert said == expected
    assert (row["pfn"], row["zone"]) == (256, "1")
    assert again(read(text)) == text


@pytest.mark.parametrize(("line", "memcg"), [
    (b"Charged to memcg user.slice", "user.slice"),
    (b"Charged (via objcg) to memcg a b", "a b"),
    (b"Charged to offline memcg gone", "gone"),
    (b"Charged (via objcg) to offline memcg /", "/"),
])
def test_the_cgroup_is_known_however_the_line_names_it(
        read: Read, line: bytes, memcg: str) -> None:
    text = CURRENT[:-1] + b"Slab cache page\n" + line + b"\n\n"
    snapshot = read(text)
    assert only(snapshot)["memcg"] == memcg
    assert snapshot.meta.counters["unknown_lines"] == 0
    assert again(snapshot) == text


def test_handles_stand_in_place_of_the_stack_or_after_it(read: Read) -> None:
    instead = CURRENT.split(b" post_alloc")[0] + b"handle: 1048577\n\n"
    row = only(read(instead))
    assert row["handle"] == 1048577
    assert "stack" not in row
    after = CURRENT[:-1] + b"handle: 4294967295\nCharged to memcg x\n\n"
    row = only(read(after))
    assert (row["handle"], row["memcg"]) == (4294967295, "x")
    assert row["stack"].count("\n") == 2
    assert again(read(instead)) == instead
    assert again(read(after)) == after


def test_a_handle_that_is_no_number_of_32_bits_is_kept_as_it_is(read: Read) -> None:
    snapshot = read(CURRENT[:-1] + b"handle: 4294967296\n\n")
    assert only(snapshot)["notes"] == "handle: 4294967296"
    assert snapshot.meta.counters["unknown_lines"] == 1


def test_lines_of_vendors_are_kept_aside_and_counted(read: Read) -> None:
    text = CURRENT[:-1] + b"SLAB_PAGE slab_name:kmalloc-64\n[detail] order:2\n\n" + CURRENT
    snapshot = read(text)
    assert snapshot.table.num_rows == 2
    assert snapshot.table["notes"].to_pylist() == [
        "SLAB_PAGE slab_name:kmalloc-64\n[detail] order:2", None]
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 1, "unterminated": 0}
    assert len(set(snapshot.table["stack"].to_pylist())) == 1
    assert again(snapshot) == text


def test_vendor_lines_before_the_pfn_line_do_not_hide_it(read: Read) -> None:
    head, rest = CURRENT.split(b"\n", 1)
    row = only(read(head + b"\n[detail] x\n" + rest))
    assert (row["pfn"], row["notes"]) == (0x1a2b4, "[detail] x")


def test_a_record_without_a_stack_is_a_record(read: Read) -> None:
    # stack_depot_snprint prints nothing for the handle 0
    text = CURRENT.split(b" post_alloc")[0] + b"\n"
    snapshot = read(text + CURRENT)
    assert snapshot.table["stack"].null_count == 1
    assert again(snapshot) == text + CURRENT


def test_dumps_without_pfn_lines_as_the_document_makes_them_are_read_whole(
        some_records: Path, tmp_path: Path) -> None:
    # Documentation/mm/page_owner.rst: grep -v ^PFN page_owner_full.txt > page_owner.txt
    path = tmp_path / "stripped.txt"
    path.write_bytes(b"".join(line for line in some_records.read_bytes().splitlines(keepends=True)
                              if not line.startswith(b"PFN ")))
    stripped, whole = pageowner.read(path), pageowner.read(some_records)
    assert stripped.meta.counters["damaged"] == 0
    assert stripped.table["pfn"].null_count == stripped.table.num_rows == whole.table.num_rows
    for name in ("order", "gfp_flags", "migratetype", "pid", "tgid", "comm", "ts_ns", "stack"):
        assert stripped.table[name].to_pylist() == whole.table[name].to_pylist()
    assert stripped.report(by="comm,stack")["pages"].equals(
        whole.report(by="comm,stack")["pages"])
    assert again(stripped) == path.read_bytes()


@pytest.mark.parametrize("change", [
    pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="crlf"),
    pytest.param(lambda text: text.replace(b"\n\n", b"\n\n\n"), id="two empty lines"),
    pytest.param(lambda text: text.replace(b"\n\n", b"\n\n\n\n\n"), id="four empty lines"),
    pytest.param(lambda text: b"\n\n\n" + text, id="empty lines first"),
    pytest.param(lambda text: text + b"\n\n\n\n", id="empty lines last"),
    pytest.param(lambda text: text.rstrip(b"\n") + b"\n\n", id="as it is"),
])
def test_empty_lines_and_line_ends_change_nothing(
        some_records: Path, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "changed.txt"
    path.write_bytes(change(some_records.read_bytes()))
    changed = pageowner.read(path)
    assert changed.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 0}
    assert changed.table.equals(pageowner.read(some_records).table)


def test_a_start_inside_a_record_costs_that_record_only(read: Read) -> None:
    for cut in (1, 30, CURRENT.index(b"PFN") + 2, CURRENT.index(b" nfs") + 3):
        snapshot = read(CURRENT[cut:] + CURRENT * 2)
        assert snapshot.table.num_rows == 2
        assert snapshot.meta.counters["damaged"] == 1
        assert snapshot.meta.extra["damage"][0][0] == 0


def test_an_end_inside_a_line_costs_that_record_only(read: Read) -> None:
    for size in (4, 20, 60, 115, 140, len(CURRENT) - 9):
        if not CURRENT[:size].endswith(b"\n"):
            snapshot = read(CURRENT * 2 + CURRENT[:size])
            assert snapshot.table.num_rows == 2
            assert snapshot.meta.counters["damaged"] == 1
            assert snapshot.meta.counters["unterminated"] == 0


def test_an_end_behind_a_whole_line_keeps_the_record_and_says_so(read: Read) -> None:
    snapshot = read(CURRENT * 2 + CURRENT[:-1])
    assert snapshot.table.num_rows == 3
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 1}
    assert len(set(snapshot.table["stack"].to_pylist())) == 1


def test_text_behind_the_last_record_does_not_cost_it(read: Read) -> None:
    snapshot = read(CURRENT * 2 + b"[root@host ~]# ")
    assert snapshot.table.num_rows == 2
    assert snapshot.meta.counters["damaged"] == 1


@pytest.mark.parametrize("node", [b"99999", b"616447786", b"9" * 5000])
def test_a_node_that_no_kernel_has_costs_its_record_alone(read: Read, node: bytes) -> None:
    spoilt = CURRENT.replace(b"node=0", b"node=" + node)
    assert spoilt != CURRENT
    snapshot = read(CURRENT + spoilt + CURRENT)
    assert snapshot.table.num_rows == 2
    assert snapshot.meta.counters["damaged"] == 1


def test_a_shell_prompt_before_the_first_record_does_not_cost_it(read: Read) -> None:
    snapshot = read(b"# cat /sys/kernel/debug/page_owner\n" + CURRENT * 2)
    assert snapshot.table.num_rows == 2
    assert snapshot.meta.counters["damaged"] == 0
    assert snapshot.meta.extra["undone"] == ["the command and prompts of a terminal"]
    snapshot = read(b"something else\n" + CURRENT * 2)
    assert snapshot.table.num_rows == 2
    assert snapshot.meta.counters["damaged"] == 1


def test_a_log_line_between_records_is_counted_and_costs_none(read: Read) -> None:
    for junk in (b"[  12.5] oops\n", b"[  12.5] oops\n\n", b"a\nb\n\n"):
        snapshot = read(CURRENT + junk + CURRENT + junk + CURRENT)
        assert snapshot.table.num_rows == 3
        assert snapshot.meta.counters["damaged"] == 2


def test_a_record_that_runs_into_the_next_costs_itself_alone(read: Read) -> None:
    torn = CURRENT[:CURRENT.index(b" nfs")]
    snapshot = read(CURRENT + torn + CURRENT + torn + torn + CURRENT)
    assert snapshot.table.num_rows == 3
    assert snapshot.meta.counters["damaged"] == 3
    assert [place for place, _ in snapshot.meta.extra["damage"]] == [
        len(CURRENT), len(CURRENT) * 2 + len(torn), len(CURRENT) * 2 + len(torn) * 2]


def test_a_dump_without_any_empty_line_is_counted_record_by_record(
        dump_text: Path, tmp_path: Path) -> None:
    text = dump_text.read_bytes()[:12 << 20]
    text = text[:text.rindex(b"\n\n") + 2].replace(b"\n\n", b"\n")
    path = tmp_path / "unspaced.txt"
    path.write_bytes(text)
    snapshot = pageowner.read(path)
    assert snapshot.table.num_rows == text.count(b"Page allocated via order ")
    assert snapshot.meta.extra["undone"] == ["missing empty lines between records"]
    # the last has no end that can be told from a tear
    assert snapshot.meta.counters == {"damaged": 0, "unknown_lines": 0, "unterminated": 1}


@pytest.mark.parametrize("line", [
    b"PFN 0x1a2b4 type Unmovable Block -209 type Movable Flags 0x0()",
    b"PFN 0x1a2b4 type Unmovable Block 2_09 type Movable Flags 0x0()",
    b"PFN 0x1_a2b4 type Unmovable Block 209 type Movable Flags 0x0()",
    b"PFN 0xfffffffffffffffff type Unmovable Block 209 type Movable Flags 0x0()",
    b"PFN 0x1a2b4 type Unmovable Block 99999999999999999999999 type Movable Flags 0x0()",
    b"PFN 0x1a2b4 tipe Unmovable Block 209 type Movable Flags 0x0()",
    b"PFN 0x1a2b4 type Unmovable Black 209 type Movable Flags 0x0()",
    b"PFN 0x1a2b4 type Unmovable Block 210 type Movable Flags 0x0()",
    b"PFN 0x type Unmovable Block 209 type Movable Flags 0x0()",
    b"PFN ",
])
def test_an_impossible_pfn_line_is_damage_and_its_neighbours_are_not(
        read: Read, line: bytes) -> None:
    head, good, rest = CURRENT.split(b"\n", 2)
    # known texts take another way than new ones: have both behind and before
    good = good[:good.index(b"Flags")] + b"Flags 0x0()"
    record = b"\n".join((head, good, rest))
    snapshot = read(record * 3 + b"\n".join((head, line, rest)) + record * 3)
    assert snapshot.table["pfn"].to_pylist() == [0x1a2b4] * 6
    assert snapshot.meta.counters["damaged"] == 1


@pytest.mark.parametrize(("old", "new"), [
    (b"order 2,", b"order 31,"), (b"order 2,", b"order -1,"), (b"order 2,", b"order ,"),
    (b"0x40dc0", b"0x140dc0000"), (b"pid 87", b"pid 87000000000"), (b"pid 87", b"pid 2147483648"),
    (b"5203445", b"9223372036854775808"), (b"5203445", b"5_203"), (b"5203445", b"-1"),
    (b"5203445", b"9" * 5000), (b"5203445 ns", b"5203445 ms"), (b"5203445", b""),
    (b"mask", b"mesk"), (b"(udevd)", b"udevd"),
])
def test_an_impossible_first_line_is_damage_and_its_neighbours_are_not(
        read: Read, old: bytes, new: bytes) -> None:
    bad = CURRENT.replace(old, new, 1)
    assert bad != CURRENT
    snapshot = read(CURRENT * 2 + bad + CURRENT)
    assert snapshot.table.num_rows == 3
    assert snapshot.meta.counters["damaged"] == 1


def test_a_record_without_any_of_its_numbers_is_damage(read: Read) -> None:
    # Its texts are known, and nothing stands where the numbers should: no step may be of 0 bytes.
    def too_long(*_: object) -> None:
        raise TimeoutError

    start, stop = CURRENT.index(b" 5203445 ns"), CURRENT.index(b" type Movable")
    spoilt = CURRENT[:start] + b" " + CURRENT[stop:]
    old = b"Page allocated via order 0, mask 0x280da\n f+0x1/0x2\n\n"  # leaves the quickest way
    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, 3)
    try:
        for text in (CURRENT * 3 + old + spoilt + CURRENT, CURRENT + spoilt * 2 + CURRENT,
                     CURRENT * 3 + old + spoilt):
            snapshot = read(text)
            assert snapshot.meta.counters["damaged"] == text.count(b", ts  type")
            assert snapshot.table.num_rows == text.count(b"PFN 0x") + text.count(b"0x280da")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_a_time_where_the_kernel_prints_none_is_damage_whatever_was_read_before(
        read: Read) -> None:
    sound = (b"Page allocated via order 0, mask 0x24201ca(GFP_HIGHUSER_MOVABLE)\n"
             b"PFN 4096 type Movable Block 8 type CMA Flags 0x1(locked)\n f+0x1/0x2\n\n")
    spoilt = sound.replace(b")\nPFN", b") 5 ns\nPFN")
    for text in (spoilt + sound, sound + spoilt + sound, sound + spoilt):
        snapshot = read(text)
        assert snapshot.table["ts_ns"].null_count == snapshot.table.num_rows
        assert snapshot.table.num_rows == text.count(b")\nPFN")
        assert snapshot.meta.counters["damaged"] == 1


def test_a_record_longer_than_any_page_is_damage(read: Read) -> None:
    long = CURRENT[:-1] + b" frame+0x1/0x2\n" * 5000 + b"\n"
    snapshot = read(CURRENT + long + CURRENT)
    assert snapshot.table.num_rows == 2
    assert snapshot.meta.counters["damaged"] == 1


@pytest.mark.parametrize("junk", [
    pytest.param(b"x" * (9 << 20), id="one line"),
    pytest.param(b"x" * 99 + b"\n" * 1 + b"y" * (9 << 20) + b"\n", id="two lines"),
    pytest.param(CURRENT[:-1] + b" frame+0x1/0x2\n" * (1 << 20), id="a record without end"),
])
@pytest.mark.parametrize("parallel", [1 << 20, 1 << 40])
def test_megabytes_of_no_record_are_one_damage_and_cost_no_neighbour(
        read: Read, junk: bytes, parallel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_owner, "PARALLEL", parallel)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    snapshot = read(CURRENT + junk + b"\n\n" + CURRENT + b"\n\n" + junk + b"\n" + CURRENT)
    assert snapshot.table.num_rows == 3
    assert snapshot.meta.counters["damaged"] == 2


def test_page_owner_stacks_files_of_every_kind_are_read() -> None:
    text = (b" a+0x1/0x2\n b+0x1/0x2 [m]\nnr_base_pages: 12\n\n"
            b"handle: 7\nnr_base_pages: 3\n\n"
            b" c+0x1/0x2\nhandle: 9\n\n\n")
    expected = [("a+0x1/0x2\nb+0x1/0x2 [m]", 12, None), (None, 3, 7), ("c+0x1/0x2", None, 9)]
    assert page_owner_stacks.parse(text) == expected
    assert page_owner_stacks.parse(text.replace(b"\n", b"\r\n")) == expected
    impossible = b" a+0x1/0x2\nnr_base_pages: " + b"9" * 5000 + b"\n\n"
    assert page_owner_stacks.parse(impossible) == [("a+0x1/0x2", None, None)]
    held = [page_owner_stacks.Held("a+0x1/0x2\nb+0x1/0x2 [m]", 12)]
    file = io.BytesIO()
    page_owner_stacks.write(held, file)
    assert file.getvalue() == text[:text.index(b"handle")]
