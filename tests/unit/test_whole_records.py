"""Records of other programs by columns give what they give as text, whatever is damaged."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from damage import damaged

from pageowner.errors import PageownerError
from pageowner.sources import (
    page_owner,
    page_owner_count,
    page_owner_shares,
    restoring,
    whole_records,
)
from pageowner.sources.opening import Opened, open_source
from pageowner.sources.page_owner_parser import Parser, Raw

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import dumps


def crash(number: int) -> bytes:
    pfn, stack = 256 + number, b"  f%d+0x1\n  g+0x2\n" % (number % 7)
    return (b"PFN %d(0x%x) paddr %x page_owner ffff892c%08x\n"
            b"Page allocated via order %d, mask 0xcc0, pid %d, tgid 7 (a b), ts %d ns,"
            b" free_ts %d ns\n[alloc]\n%s\n" % (
                pfn, pfn, pfn << 12, pfn, number % 3, number % 5, 10**(number % 18), number, stack))


def gdb(number: int) -> bytes:
    return (b"%sPage allocated via order %d, gfp_mask: 0xcc0, pid: %d, tgid: 7 (a b), ts %d ns,"
            b" free_ts 0 ns\nPFN: %d, Flags: 0x%d00\n"
            b"   0xffff8000%08x <f%d+%d>:\tmov\tx0, x19\n" % (
                b"page_owner tracks the page as allocated\n" * (number % 9 == 0), number % 3,
                number % 5, number * 977, 300 + number, number % 2, number % 7, number % 7, number))


def minidump(number: int) -> bytes:
    handle = 600 + number % 11
    frames = [b"ffffffc0%08x\n" % (handle * 16 + place) for place in range(3)]
    return b"%d %d %d\n%s" % (10**(number % 9) + number, handle, 3 * (number < 11),
                              b"".join(frames[:3 * (number < 11)]))


FORMS = {"crash": crash, "gdb": gdb, "minidump": minidump}


def opened(text: bytes) -> Opened:
    return restoring.restored(dumps.as_opened(text))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "HEAD", 2048)
    monkeypatch.setattr(restoring, "_PIECE", 1500)


def read(text: bytes, monkeypatch: pytest.MonkeyPatch, quick: bool) -> tuple[Raw, int]:
    """The records, and how many of them came in columns."""
    number = 0
    add = whole_records._add

    def counting(parser: Parser, records: whole_records.Records) -> None:
        nonlocal number
        number += len(records.kind)
        add(parser, records)

    with monkeypatch.context() as patched:
        patched.setattr(whole_records, "_add", counting)
        if not quick:
            patched.setattr(whole_records, "_at_a_cut", lambda parser, lead: False)
        raw = page_owner.parse_stream(opened(text))
    return raw, number


def same(text: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    (raw, number), (plain, none) = (read(text, monkeypatch, quick) for quick in (True, False))
    assert none == 0
    assert dumps.rows(raw) == dumps.rows(plain), text
    assert (raw.damaged, raw.damage, raw.unterminated) == (
        plain.damaged, plain.damage, plain.unterminated), text
    summed = page_owner_count.tally(raw)
    raw.by_columns = False
    assert summed == page_owner_count.tally(raw)
    return number


@pytest.mark.parametrize("form", FORMS)
def test_whole_records_are_taken_by_columns(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"".join(map(FORMS[form], range(400)))
    assert same(text, monkeypatch) > 200
    assert same(text.replace(b"\n", b"\r\n"), monkeypatch) > 200  # for all of it is undone
    half = len(text) // 2
    assert 0 < same(text[:half] + text[half:].replace(b"\n", b"\r\n"), monkeypatch) < 200


@pytest.mark.parametrize("form", FORMS)
def test_damaged_texts_are_read_as_text(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, taken = b"".join(map(FORMS[form], range(250))), 0
    chance = random.Random(7)
    for _ in range(40):
        text = whole[:600] + damaged(whole[600:], chance, b"\n :0x(,)f")
        taken += same(text, monkeypatch)
    assert taken > 1000


def test_no_piece_is_cut_between_a_line_in_front_of_a_record_and_the_record() -> None:
    first, last = FORMS["crash"](1), FORMS["crash"](2)
    for at in range(1, last.index(b"\n") + 1):
        parts = list(restoring._cut(iter([first + last[:at], last[at:]]),
                                    restoring._behind_last_record))
        assert b"".join(parts) == first + last
        assert not any(part.startswith(b"Page") for part in parts)


def test_a_handle_that_is_listed_otherwise_is_so_from_there_on(
        monkeypatch: pytest.MonkeyPatch) -> None:
    records = [FORMS["minidump"](number) for number in range(600)]
    same(b"".join([*records[:300], b"8 600 1\nffffffc0bbbbbbbb\n", *records[300:]]), monkeypatch)


def each_way(path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch) -> list[list[object]]:
    """What one process reads and counts, and what several do."""
    path.write_bytes(text)
    found: list[list[object]] = []
    for parallel in (1 << 30, 1 << 8):
        monkeypatch.setattr(page_owner, "PARALLEL", parallel)
        try:
            with open_source(path) as source:
                counted = page_owner.count(restoring.restored(source))
            with open_source(path) as source:
                whole = page_owner.read(restoring.restored(source))
        except PageownerError as error:
            found.append([str(error)])
        else:
            found.append([counted, whole.table.to_pylist(), whole.meta])
    return found


@pytest.mark.parametrize("form", FORMS)
def test_several_processes_read_the_same(form: str, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    records = [FORMS[form](number) for number in range(300)]
    begin = page_owner_shares.begin_count
    used = []
    monkeypatch.setattr(page_owner_shares, "begin_count",
                        lambda *words: used.append(words) or begin(*words))
    whole, odd = b"".join(records), records[:200]
    again = [FORMS[form](number) for number in range(600)]
    if form == "minidump":  # a handle that is listed at the beginning, and otherwise behind it
        again.insert(200, b"8 600 1\nffffffc0bbbbbbbb\n")
        # handles that are listed late, again, and otherwise
        odd += [b"9 999 0\n", b"9 600 1\nffffffc0aaaaaaaa\n", b"9 600 0\n",
                b"8 999 1\nffffffc0bbbbbbbb\n"]
    chance = random.Random(9)
    for text in (whole, whole[:-5], whole.replace(b"\n", b"\r\n"), b"".join(odd + records[200:]),
                 b"".join(again),
                 whole + whole, b"".join(reversed(records)),
                 whole[:-9000] + b"x\n\n" + whole[-9000:],
                 whole[:-9000] + whole[-9000:].replace(b"\n", b"\r\n"),
                 *(whole[:600] + damaged(whole[600:], chance, b"\n :0x(,)f") for _ in range(5))):
        one, several = each_way(tmp_path / "text", text, monkeypatch)
        assert one == several
    assert len(used) > 9  # all but those whose line ends are others
