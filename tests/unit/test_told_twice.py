"""Texts that tell of the same pages twice: nothing is counted double without a word."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest
from asking import run
from one_record import CURRENT

import pageowner
from pageowner.sources import page_owner
from pageowner.sources.told_twice import repeats, second_list

TEXTS = Path(__file__).parents[1] / "data" / "texts"
REAL = lzma.decompress((TEXTS.parent / "6.12-fragmented" / "show_stacks.txt.xz").read_bytes())
STACKS, HANDLES, NAMES = (
    (TEXTS / f"show-{name}.txt").read_bytes() for name in ("stacks", "handles", "stacks-handles"))
ALLOCINFO = (TEXTS / "allocinfo-1.0.txt").read_bytes()
RECORDS = (TEXTS / "two-handles.txt").read_bytes()
PAGES = 9659


def by_handle(text: bytes, more: int = 0) -> bytes:
    """show_handles of the same moment as this show_stacks, or with more pages of each."""
    return b"".join(
        b"handle: %d\nnr_base_pages: %d\n\n" % (7000 + place, int(block.split()[-1]) + more)
        for place, block in enumerate(text.split(b"\n\n")[:-1]))


def report(tmp_path: Path, text: bytes) -> tuple[int, int, str]:
    """Pages, how many stacks were left out, and what was said."""
    (tmp_path / "mail.txt").write_bytes(text)
    status, out, error = run("report", tmp_path / "mail.txt", "--json")
    assert status == 0
    found = json.loads(out)
    snapshot = pageowner.read(tmp_path / "mail.txt")
    assert snapshot.meta.counters.get("left_out", 0) == found["counters"].get("left_out", 0)
    return found["pages"], found["counters"].get("left_out", 0), error


def pages(text: bytes) -> int:
    return sum(int(line.split()[1]) for line in text.split(b"\n") if line.startswith(b"nr_base"))


@pytest.mark.parametrize("text", [STACKS, REAL], ids=["small", "real"])
def test_a_list_by_stack_and_by_handle_is_read_once(tmp_path: Path, text: bytes) -> None:
    number = text.count(b"nr_base_pages")
    for both in (text + by_handle(text), by_handle(text) + text):
        assert report(tmp_path, both) == (
            pages(text), number, f"pageowner: {tmp_path}/mail.txt: the same {number} stacks are"
            " there by handle too, as in show_handles: read once\n")


def test_of_two_lists_with_other_numbers_the_first_is_read(tmp_path: Path) -> None:
    later = by_handle(REAL, 1)
    found, left_out, error = report(tmp_path, REAL + later)
    assert (found, left_out) == (pages(REAL), 431)
    assert f"the list by handle (431 of them, {pages(REAL) + 431:,} pages) left out" in error
    found, left_out, error = report(tmp_path, later + REAL)
    assert (found, left_out) == (pages(REAL) + 431, 431)
    assert f"the list by stack (431 of them, {pages(REAL):,} pages) left out" in error


@pytest.mark.parametrize("text", [STACKS, HANDLES, REAL, by_handle(REAL)])
def test_a_list_that_comes_again_is_left_out(tmp_path: Path, text: bytes) -> None:
    number = text.count(b"nr_base_pages")
    found, left_out, error = report(tmp_path, text * 3)
    assert (found, left_out) == (pages(text), 2 * number)
    assert f"left out, from byte {len(text):,} on: only the first one is read" in error


def test_the_list_of_a_later_time_begins_with_what_is_new(tmp_path: Path) -> None:
    new = b"".join(b" new_%d+0x1/0x2\n do_new+0x1/0x2\nnr_base_pages: 5\n\n" % place
                   for place in range(20))
    found, left_out, error = report(tmp_path, REAL + new + REAL)
    assert (found, left_out) == (pages(REAL), 451)
    assert f"from byte {len(REAL):,} on" in error
    # Some lines of the same list, as an example, are no list of a later time.
    part = b"\n\n".join(REAL.split(b"\n\n")[:20]) + b"\n\n"
    assert report(tmp_path, REAL + part)[:2] == (pages(REAL), 20)


def test_a_few_stacks_that_look_alike_are_all_counted(tmp_path: Path) -> None:
    twin = REAL[:REAL.index(b"\n\n") + 2]
    assert report(tmp_path, twin + REAL)[:2] == (pages(REAL) + pages(twin), 0)


def test_handles_and_their_stacks_in_one_text_are_joined(tmp_path: Path) -> None:
    for text in (HANDLES + NAMES, NAMES + HANDLES):
        found, left_out, error = report(tmp_path, text)
        assert (found, left_out) == (PAGES, 0)
        assert "2 handles replaced" in error
        assert "damaged" not in error
        rows = pageowner.read(tmp_path / "mail.txt").report(by="frame").to_pylist()
        assert {row["frame"]: row["pages"] for row in rows} == {
            "page_cache_ra_unbounded": 9643, "do_sys_openat2": 16}
    assert report(tmp_path, STACKS + NAMES)[:2] == (PAGES, 2)


def test_records_take_the_stacks_that_stand_beside_them(tmp_path: Path) -> None:
    for text in (RECORDS + NAMES, NAMES + RECORDS):
        found, left_out, error = report(tmp_path, text)
        assert (found, left_out) == (5, 0)
        assert "1 handle replaced" in error
        assert "damaged" not in error
        rows = pageowner.read(tmp_path / "mail.txt").report(by="subsystem").to_pylist()
        assert {row["subsystem"]: row["pages"] for row in rows} == {"page cache": 4, None: 1}


def test_a_list_beside_records_is_left_out_and_said(tmp_path: Path) -> None:
    for text in (RECORDS + STACKS, STACKS + RECORDS, RECORDS + HANDLES):
        found, left_out, error = report(tmp_path, text)
        assert (found, left_out) == (5, 2)
        assert "2 stacks of a list left out" in error
        assert "damaged" not in error


def test_two_dumps_in_one_text_are_said(tmp_path: Path) -> None:
    found, _, error = report(tmp_path, RECORDS)
    assert "come again" not in error
    found, left_out, error = report(tmp_path, RECORDS * 2)
    assert (found, left_out) == (10, 0)
    assert "page frames come again (2): if these are several dumps in one text" in error
    sample = lzma.decompress((TEXTS.parent / "6.1-sample" / "page_owner.txt.xz").read_bytes())
    assert "come again" not in report(tmp_path, sample)[2]
    assert "page frames come again (" in report(tmp_path, sample * 2)[2]
    chance = random.Random(3)
    shuffled = sample.split(b"\n\n")[:-1]
    chance.shuffle(shuffled)
    assert "come again" not in report(tmp_path, b"\n\n".join([*shuffled, b""]))[2]


def test_of_a_stream_it_is_not_said_how_many_come_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_owner, "FOLD", 4)
    monkeypatch.setattr(page_owner, "CHUNK", 2000)
    (tmp_path / "once.txt").write_bytes(b"".join(CURRENT.replace(b"1a2b4", b"1a2%02x" % pfn)
                                                 for pfn in range(60)))
    assert "come again" not in run("report", tmp_path / "once.txt")[2]
    (tmp_path / "twice.txt").write_bytes(2 * (tmp_path / "once.txt").read_bytes())
    assert "page frames come again, or not in their order: if these are" in run(
        "report", tmp_path / "twice.txt")[2]


def test_two_texts_of_page_owner_sort_in_one_are_said(tmp_path: Path) -> None:
    one, other = ((TEXTS / f"sorted-{name}.txt").read_bytes() for name in ("before", "old-times"))
    for text in (one, other):
        assert "come again" not in report(tmp_path, text)[2]
    assert "groups come again (2)" in report(tmp_path, one * 2)[2]
    assert "groups come again (2)" in report(tmp_path, one + other)[2]


def test_two_copies_of_allocinfo_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "mail.txt").write_bytes(ALLOCINFO * 2)
    status, out, error = run("report", tmp_path / "mail.txt", "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["bytes"], found["counters"]["left_out"]) == (
        70_747_000, ALLOCINFO.count(b"\n"))
    assert f"from byte {len(ALLOCINFO)} on: only the first one is read" in error
    # Without their heads it cannot be told where the second begins.
    body = ALLOCINFO.split(b"\n", 2)[2]
    (tmp_path / "mail.txt").write_bytes(body * 2)
    status, out, error = run("report", tmp_path / "mail.txt", "--json")
    assert json.loads(out)["bytes"] == 2 * 70_747_000
    assert "if these are several lists, the bytes of all are counted" in error
    # As sort -n leaves it: the head behind the lines that hold nothing.
    lines = sorted(ALLOCINFO.splitlines(), key=lambda line: (
        int(line.split()[0]) if line.split()[0].isdigit() else 0, line))
    (tmp_path / "mail.txt").write_bytes(b"\n".join([*lines, b""]))
    status, out, error = run("report", tmp_path / "mail.txt", "--json")
    assert json.loads(out)["bytes"] == 70_747_000
    assert not error


def test_a_list_of_stacks_beside_allocinfo_takes_none_of_its_lines(tmp_path: Path) -> None:
    found, left_out, error = report(tmp_path, ALLOCINFO + STACKS)
    assert (found, left_out) == (PAGES, ALLOCINFO.count(b"\n"))
    assert "lines of /proc/allocinfo left out" in error
    stacks = pageowner.read(tmp_path / "mail.txt").table["stack"].to_pylist()
    assert not any("func:" in stack for stack in stacks)


def test_where_a_second_list_begins() -> None:
    assert second_list("abcd") is None
    assert second_list("abcdabcd") == 4
    assert second_list("abcdefghxabcdefgh") == 8
    assert second_list("abcdabcdabcd") == 4
    assert second_list("aabcdefgh") is None
    assert second_list("abcdefghabc") == 8
    assert second_list("") is None
    assert repeats("abcabc") == 3
    assert repeats("aabcdefgh") == 0
