"""A dump summed up by kind answers every question as its table of records does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner.analysis import owners, owners_from_counts
from pageowner.analysis.filters import KEYS, SORTS
from pageowner.model.counts import Counted
from pageowner.sources import page_owner, source

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done
    from pageowner import Snapshot

OLD = b"""\
Page allocated via order 0, mask 0x280da
PFN 524288 Block 1024 type 2          Flags    UDLA     
 [<ffffffff811682c4>] alloc_pages_vma+0x114/0x220

Page allocated via order 1, mask 0xd0
PFN 524800 Block 1025 type 0 Fallback Flags    UDLA     
 [<ffffffff811682c4>] alloc_pages_vma+0x114/0x220
 [<ffffffffa02b1c30>] xfs_buf_get+0x10/0x40 [xfs]

"""  # noqa: W291 - twelve places for letters
MIXED = OLD + b"""\
Page allocated via order 3, mask 0xcc0(GFP_KERNEL), pid 7, tgid 7 (a), ts 9 ns, free_ts 5 ns
PFN 524288 type Unmovable Block 1024 type Movable Flags 0x1(locked)
 post_alloc_hook+0x81/0xf0
Charged to memcg x

junk

Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 7, tgid 7 (a), ts 11 ns
handle: 1048577

"""

NUMBERED = b"""\
Page allocated via order 0, mask 0x%x
PFN %d Block 1025 type %d          Flags    UDLA     
 f+0x1/0x2

"""  # noqa: W291
MISLEADING = NUMBERED % (0x280da, 524288, 2) + b"".join(
    NUMBERED % (0xd0, pfn, kind) for pfn in (524800, 524801, 524802) for kind in (0, 1))
"""The record that would tell what the numbers mean contradicts itself."""


def same(path: Path, snapshot: Snapshot) -> None:
    counted = source.count(path)
    assert isinstance(counted, Counted)
    assert counted.meta == snapshot.meta
    chance = random.Random(1)
    sorts = [sort for sort in SORTS if sort != "age" or any(counted.oldest_ns)]
    for by in [*([key] for key in KEYS), *(chance.sample(KEYS, 3) for _ in range(10))]:
        for sort in (*sorts, by[-1]):
            for reverse in (False, True):
                expected = owners.owners(snapshot, by, sort=sort, reverse=reverse).to_pydict()
                found = owners_from_counts.owners(counted, by, sort=sort, reverse=reverse)
                assert found == expected


@pytest.mark.parametrize("fixture", ["some_records", "text61"])
def test_of_real_dumps(fixture: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(fixture)
    same(path, pageowner.read(path))


def test_of_the_big_dump_read_by_several_processes(dump_text: Path, big: Snapshot) -> None:
    counted = source.count(dump_text)
    assert isinstance(counted, Counted)
    assert sum(counted.blocks) == big.table.num_rows
    assert counted.meta == big.meta
    expected = owners.owners(big, ["stack", "comm", "pid"]).to_pydict()
    assert owners_from_counts.owners(counted, ["stack", "comm", "pid"]) == expected


@pytest.mark.parametrize("text", [OLD, MIXED, MIXED + OLD, OLD[:-60], MISLEADING,
                                  NUMBERED % (0xd0, 1025 * 3, 1)])
def test_of_old_mixed_and_damaged_ones(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dump.txt"
    path.write_bytes(text)
    same(path, pageowner.read(path))


def test_pfns_outside_their_pageblock_are_damaged_here_too(
        some_records: Path, tmp_path: Path) -> None:
    text = some_records.read_bytes()
    at = text.index(b"PFN 0x", len(text) // 2)
    path = tmp_path / "dump.txt"
    path.write_bytes(text[:at] + text[at:].replace(b" Block ", b" Block 1", 1))
    snapshot = pageowner.read(path)
    assert snapshot.meta.counters["damaged"] == 1
    same(path, snapshot)


def test_parts_that_contradict_each_other_are_read_in_full(
        some_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two machines' dumps in one file: pageblocks of 2 MiB, then of 64 KiB.
    one = b"Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 7, tgid 7 (a), ts 9 ns\n" \
          b"PFN 0x%x type Unmovable Block %d type Movable Flags 0x1(locked)\n f+0x1/0x2\n\n"
    path = tmp_path / "dump.txt"
    path.write_bytes(b"".join(one % (pfn, pfn >> 9) for pfn in range(1 << 16, (1 << 16) + 500))
                     + b"".join(one % (pfn, pfn >> 4) for pfn in range(1 << 17, (1 << 17) + 500)))
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    found = source.count(path)
    assert isinstance(found, pageowner.Snapshot)
    assert found.table.equals(pageowner.read(path).table)
    assert found.table.num_rows + found.meta.counters["damaged"] == 1000


@pytest.mark.parametrize("small", [0, 1, 2])
def test_a_stream_is_summed_up_by_the_pageblocks_that_its_end_has(
        small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = ("Page allocated via order 0, mask 0x1(GFP), pid {0}, tgid 7 (a), ts {1} ns{3}\n"
              "PFN 0x{1:x} type Movable Block {2} type Movable Flags 0x1(locked)\n f+0x1/0x2\n\n")
    pfns = [*range(200, 260), *range(600, 4600, 50)]
    # the first two thirds as of a machine with other pageblocks, or of two with others each
    orders = {0: (9, 9), 1: (8, 8), 2: (7, 10)}[small]
    text = "".join(
        record.format(number % 3, pfn, pfn >> (orders[number % 2] if number < 90 else 9),
                      ", free_ts 5 ns" if number in (70, 120) else "")
        for number, pfn in enumerate(pfns)) + "Page allocated via order 0"
    path = tmp_path / "dump.txt"
    path.write_text(text)
    monkeypatch.setattr("pageowner.sources.page_owner_count._SAMPLE", 20)
    expected = source.count(path)
    monkeypatch.setattr(page_owner, "FOLD", 4)
    monkeypatch.setattr(page_owner, "CHUNK", 2000)
    found = source.count(path)
    assert isinstance(expected, Counted)
    assert isinstance(found, Counted)
    assert found.meta == expected.meta
    assert sum(found.blocks) == sum(expected.blocks)
    assert (expected.meta.counters["damaged"] > 30) == (small > 0)
    assert sorted(map(repr, zip(found.blocks, found.oldest_ns, found.newest_ns,
                                *found.columns.values(), strict=True))) == sorted(
        map(repr, zip(expected.blocks, expected.oldest_ns, expected.newest_ns,
                      *expected.columns.values(), strict=True)))


@pytest.mark.parametrize("words", [
    ["frag", "DUMP"], ["frag", "--order=4", "DUMP", "--json"], ["map", "DUMP", "--json"],
    ["save", "OUT", "DUMP", "--order", "0"]])
def test_what_is_read_ahead_is_the_file_too(
        words: list[str], some_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        cli: Callable[..., Done]) -> None:
    from pageowner.sources import readahead

    saved = tmp_path / "saved.parquet"
    words = [{"DUMP": str(some_records), "OUT": str(saved)}.get(word, word) for word in words]
    plain, before = cli(*words), saved.read_bytes() if saved.exists() else b""
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)
    taken: list[object] = []
    monkeypatch.setattr(readahead, "taken_whole", lambda source: (
        taken.append(begun := readahead._begun_whole.pop(source, None)), begun)[1])
    # now there is a file to be written over, which is none to be read
    assert cli(*words) == plain
    assert taken.pop() is not None
    assert (saved.read_bytes() if saved.exists() else b"") == before
    # of two dumps none is begun
    readahead.begin(["map", str(some_records), "--beside", str(some_records)])
    assert not readahead._begun_whole


def test_a_report_begun_ahead_is_that_of_the_file(
        some_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        cli: Callable[..., Done]) -> None:
    from pageowner.sources import readahead

    dump = str(some_records)
    plain = cli("report", dump, "--by", "comm")
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)
    taken: list[object] = []
    monkeypatch.setattr(readahead, "taken", lambda source: (
        taken.append(begun := readahead._begun.pop(source, None)), begun)[1])
    for words in (["--by", "comm"], ["--by=comm", "--top", "20"]):
        assert cli("report", *words, dump) == plain
        assert taken.pop() is not None
    # filters, other verbs and two files are not for it; nor what is no dump
    begun = []
    monkeypatch.setattr(page_owner, "begin_count", begun.append)
    for words in (["report", dump, "--comm", "x"], ["report", "--older=1s", dump], ["stacks", dump],
                  ["report", dump, dump], ["report", "--", dump], ["report", __file__], ["report"],
                  [dump], []):
        readahead.begin(words)
        assert not begun
        assert not readahead._begun
    readahead.begin(["report", dump])
    assert len(begun) == 1
    monkeypatch.undo()
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 12)
    # what a wrong command line began is not given to the next
    assert cli("report", dump, "--top", "x").status == 2
    other = tmp_path / "other.txt"
    other.write_bytes(OLD)
    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 30)
    assert b"2 blocks" in cli("report", str(other)).out
    assert not readahead._begun


def test_a_key_that_a_source_does_not_know_is_unknown_of_all() -> None:
    counted = Counted({"order": [0, 1], "comm": ["a", "b"]}, [3, 1], [None, None], [None, None],
                      pageowner.Metadata())
    assert owners_from_counts.owners(counted, "memcg") == {
        "memcg": [None], "pages": [5], "blocks": [4], "share": [1.0], "oldest_ns": [None],
        "newest_ns": [None]}


@pytest.mark.parametrize("head", [b"PAR1", b"\x7fELF\2\1\1" + bytes(9) + b"\4\0", b"KDUMP   "])
def test_what_is_no_text_is_not_begun_to_be_read_as_one(
        head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pageowner.sources import readahead, restoring

    monkeypatch.setattr(page_owner, "PARALLEL", 1 << 8)
    monkeypatch.setattr(restoring, "restored", lambda opened: pytest.fail("looked at as text"))
    (tmp_path / "file").write_bytes(head + bytes(1 << 10))
    readahead.begin(["report", str(tmp_path / "file")])
