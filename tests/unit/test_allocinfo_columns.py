"""Lines of /proc/allocinfo read together give what they give one by one, whatever is damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from damage import damaged

from pageowner.errors import PageownerError
from pageowner.sources import allocinfo, allocinfo_columns, page_owner
from pageowner.sources.allocinfo_lines import Lines
from pageowner.sources.opening import open_source
from pageowner.sources.page_owner_groups import to_snapshot

TEXTS = Path(__file__).parents[1] / "data" / "texts"
OLD, NEW = (
    # Without their first lines, behind which a text that holds both has another list.
    (TEXTS / f"allocinfo-{version}.txt").read_bytes().split(b"\n", 2)[2]
    for version in ("1.0", "2.0"))
HEAD = b"allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n"


def same(text: bytes) -> Lines:
    """The lines by columns, if one by one they give the same."""
    columns, lines = allocinfo.parse(text), Lines()
    lines.take(text, 0)
    lines.unterminated = lines.second is None and not text.endswith(b"\n")
    for name in ("second", "whole", "inaccurate", "rounded", "damaged", "damage", "version",
                 "unterminated", "total"):
        assert getattr(columns, name) == getattr(lines, name), name
    if not lines.line:
        assert not columns.line
        return columns
    ours, theirs = (to_snapshot(found, "x", "allocinfo") for found in (columns, lines))
    assert ours.table.equals(theirs.table)
    assert ours.meta == theirs.meta
    return columns


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocinfo, "_MANY", 0)
    monkeypatch.setattr(allocinfo_columns, "PIECE", 1000)


def test_lines_of_every_length_of_number() -> None:
    text = b"".join(
        b"%12d %8d mm/a.c:%d %sfunc:f%d%s \n" % (
            max(10**(number % 14 if number % 30 == 0 else number % 12) - number % 3, 0),
            10**(number * 5 % 8), number % 50,
            b"[m] " if number % 4 == 1 else b"", number % 10,
            b" accurate:no" if number % 11 == 0 else b"")
        for number in range(3000))
    found = same(text)
    assert found.total == sum(int(line[:14].split()[0]) for line in text.splitlines())
    assert len(found.bodies) < len(found.line)  # columns were used: one by one has a body for each


@pytest.mark.parametrize("front", [
    b" 12345678901        7 ", b"123456789012        7 ", b"   12 45678        7 ",
    b"          -1        7 ", b"           1       -7 ", b"           1\t       7 ",
    b"           1        7\t", b"                     7 ", b"           1          ",
    b"          1a        7 ", b"           1       7: ", b"           0        0 ",
    b"           !        7 ", b"           ?        7 ", b"           /        7 ",
    b"     1     1        7 ", b"0000 0000001        7 ", b"1    0000001        7 ",
    b"        +123        7 ", b"        2.8M        7 ", b"  5555555555 99999999 ",
    b"\x11          1        7 ", b"\xb1          1        7 ", b"           1 1234567890 ",
    b"           1        7  ", b"           1        7 \n"])
def test_a_line_that_is_nearly_right(front: bytes) -> None:
    line = front + b"mm/filemap.c:1951 func:__filemap_get_folio \n"
    whole = OLD * 8
    same(whole + line + whole + line)


@pytest.mark.parametrize("place", [
    b"", b"\n", b"mm/a.c:1", b"mm/a.c:1 func:", b"mm/a.c func:f", b"a:1 [m func:f",
    b"a:1  func:f", b"a:1 [m] func:f accurate:yes", b"a:1 func:f accurate:no\r",
    b"a:1 func:f\0", b"\xff:1 func:\xff", b"a:1234567890 func:f", b" a:1 func:f",
    b"a:1 func:f g"])
@pytest.mark.parametrize("front", [b"           0        0 ", b"          16        1 "])
def test_a_place_that_is_nearly_right(place: bytes, front: bytes) -> None:
    same(OLD * 8 + front + place + b"\n" + NEW * 8)


def test_more_bytes_than_a_machine_can_have() -> None:
    line = b"999999999999        1 a:1 func:f \n"
    assert same(line * 9000).damaged > 4000


def test_texts_of_other_forms_and_without_an_end() -> None:
    same(b"        2.8M    22648 fs/kernfs/dir.c:615 func:__kernfs_new_node \n" * 99)
    for text in (OLD * 2, NEW + OLD):
        for cut in range(1, 99):
            same(text[:-cut])
    same(b"x" * 5000)
    same(b"\n" * 5000)


@pytest.mark.parametrize("first", [HEAD + OLD * 8, OLD * 8 + HEAD + OLD, HEAD + NEW * 3 + b"x\n"])
def test_a_second_list_is_left_out_wherever_it_begins(first: bytes) -> None:
    found = same(first + HEAD + NEW * 8)
    assert found.second == len(first)
    assert found.total == same(first).total
    # The heads of two lists that were sorted together stand side by side.
    assert same(OLD + HEAD[:25] + HEAD + OLD * 8).second is None


def test_damaged_texts() -> None:
    chance = random.Random(8)
    assert sum(same(damaged(HEAD + (OLD + NEW) * 2, chance, b"\n :0func\t-.")).damaged
               for _ in range(300)) > 400


@pytest.mark.parametrize("text", [
    OLD * 8, HEAD + OLD * 8, OLD * 8 + HEAD, OLD * 8 + HEAD + NEW, HEAD + OLD * 4 + HEAD + NEW * 8,
    HEAD + NEW * 4 + b"x\n" + OLD * 9, HEAD * 3 + b"x\n" * 900,
    b"> " + OLD.replace(b"\n", b"\n> "),
    b"       16        1 a:1 func:f \n" * 99 + OLD * 2, HEAD + NEW * 5 + b"           1        7",
    b"%12d        1 a:1 func:f \n" % ((1 << 39) - 1) * 9000])
def test_several_processes_read_the_same(text: bytes, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_bytes(text)
    found: list[object] = []
    for parallel in (1 << 30, 1 << 8):
        monkeypatch.setattr(page_owner, "PARALLEL", parallel)
        with open_source(tmp_path / "text") as opened:
            try:
                snapshot = allocinfo.read(opened)
                found.append((snapshot.table.to_pylist(), snapshot.meta, opened.undone))
            except PageownerError as error:
                found.append(str(error))
    assert found[0] == found[1]
