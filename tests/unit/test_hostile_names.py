"""What tasks call themselves: exact in the data, harmless on a terminal and in a table."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

import pageowner
from pageowner.kernel.task_names import to_bytes, to_text
from pageowner.report.text import printable
from pageowner.sources.page_owner_text import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., Any]

NAMES = [
    b"plain", b"evil), ts 1 ns", b"x), ts 1 ns\n", b"x), ts 1 ns\nab", b"), ts 1 ns\nPFN",
    b"a\nb", b"\n", b"\n\n", b"a\n\nb", b"\n\nPage allocat", b"Page allocated ", b"x, pid 7, tgid ",
    b"a,b,,c", b"a\tb", b"a\rb", b"a\x08\x08\x08b", b"\x1b[2J\x1b[31mred", b"\x1b]0;title\x07",
    b"\x9b31mcsi", b"\xff\xfe", b"\xc3", b"\\x41", b"\\xff", b"\\", b"\\\\x41\xff", b"<b>&amp;</b>",
    b"[bold]rich[/]", b"a;b|c", b" lead", b"trail ", b"", "naïve".encode(), "漢字".encode(),
    "a\u202eb\u202c".encode(), "\u2066x\u2069".encode(), "\u200d\ufeffz".encode(),
    "\u0301up".encode(), "\u3164".encode(), "\u2028\u2029".encode(), b"\x7f\x80\x9f",
    b"%s%n", b"$(reboot)", b"nfs, order 9, ", b"-", b"'\"`",
]
STACK = b" post_alloc_hook+0x61/0xb5\n alloc_skb_with_frags+0x1/0x90\n"


def record(name: bytes, number: int) -> bytes:
    return (b"Page allocated via order %d, mask 0xcc0(GFP_KERNEL), pid %d, tgid %d (%s), ts %d ns\n"
            b"PFN 0x%x type Unmovable Block %d type Unmovable Flags 0x0(node=0|zone=1)\n%s\n"
            % (number % 4, number, number, name, 10**9 + number, number << 4, number >> 5, STACK))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump in which every name owns one block; pid and pfn say which."""
    path = tmp_path_factory.mktemp("hostile") / "dump.txt"
    path.write_bytes(b"".join(record(name, place) for place, name in enumerate(NAMES, 1)))
    return path


def harmless(text: bytes) -> bool:
    """Nothing in it that a terminal acts on, or hides, but line breaks and spaces."""
    decoded = text.decode("utf-8", "strict")
    return all(c in "\n " or unicodedata.category(c)[0] not in "CZ" for c in decoded)


def test_every_name_is_read_exactly_and_written_back_exactly(hostile: Path) -> None:
    snapshot = pageowner.read(hostile)
    assert snapshot.meta.counters["damaged"] == 0
    assert [to_bytes(name) for name in snapshot.table["comm"].to_pylist()] == NAMES
    assert snapshot.table["pid"].to_pylist() == list(range(1, len(NAMES) + 1))
    assert snapshot.table["ts_ns"].to_pylist() == [
        10**9 + place for place in range(1, len(NAMES) + 1)]
    assert set(snapshot.table["stack"].to_pylist()) == {STACK.decode()[1:-1].replace("\n ", "\n")}
    file = io.BytesIO()
    write(snapshot, file)
    assert file.getvalue() == hostile.read_bytes()


def test_every_name_survives_a_saved_snapshot(hostile: Path, tmp_path: Path) -> None:
    pageowner.read(hostile).save(tmp_path / "saved.parquet")
    file = io.BytesIO()
    write(pageowner.read(tmp_path / "saved.parquet"), file)
    assert file.getvalue() == hostile.read_bytes()


def test_names_at_the_border_of_two_reads_stay_whole(
        hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pageowner.sources import page_owner
    from pageowner.sources.page_owner_parser import Parser

    text = hostile.read_bytes()
    expected = page_owner.parse(hostile)
    for size in range(1, 60):
        parser = Parser()
        for at in range(0, len(text), size):
            parser.feed(text[at:at + size])
        assert [parser.close(final=True)] == expected


@pytest.mark.parametrize("words", [
    ["report", "--by", "comm", "--all"], ["report", "--by", "comm,stack", "--full", "--all"],
    ["report", "--by", "comm,order,pid", "--all"],
    ["report", "--by", "comm", "--all", "--json"], ["stacks"],
])
def test_no_name_reaches_the_output_raw(cli: Cli, hostile: Path, words: list[str]) -> None:
    done = cli(*words, hostile)
    assert done.status == 0
    assert done.out.count(b"\n") > 3
    assert harmless(done.out)


def test_no_name_reaches_the_output_raw_when_asked_for_a_page(cli: Cli, hostile: Path) -> None:
    pfns = [str(place << 4) for place in range(1, len(NAMES) + 1)]
    for more in ([], ["--json"]):
        out = cli("who", *pfns, "--source", hostile, *more).out
        assert harmless(out)
    rows = [row for one in json.loads(out) for row in one["blocks"]]
    assert [to_bytes(row["comm"]) for row in rows] == NAMES


@pytest.mark.parametrize("width", [80, 160])
def test_no_name_moves_a_neighbouring_column(hostile: Path, width: int) -> None:
    out = on_terminal(["report", str(hostile), "--by", "comm,order", "--all"], width)
    lines = out.replace("\r\n", "\n").split("\n")
    start = next(at for at, line in enumerate(lines) if "COMM" in line)
    header, rows = lines[start], lines[start + 1:start + 1 + len(NAMES)]
    assert len(rows) == len(NAMES)
    for row in rows:
        # the order is the last column, on the right: every row ends in the same cell
        assert cell_len(row) == cell_len(header)
        assert row[-1] in "0123"
        assert row[-3:-1] == "  "


@pytest.mark.parametrize("words", [
    ["report", "--by", "comm", "--all"], ["report", "--by", "comm,stack", "--full", "--all"],
    ["dump"], ["stacks"], ["who", "16", "--source"],
])
def test_a_terminal_gets_no_escape_sequence_of_a_name(hostile: Path, words: list[str]) -> None:
    out = on_terminal([*words, str(hostile)], 100)
    assert harmless(out.replace("\r\n", "\n").encode())
    if words == ["dump"]:
        assert "(\\x1b[2J\\x1b[31mred)" in out


def on_terminal(words: list[str], width: int) -> str:
    """What the command writes to a terminal, without the colours that are its own."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-m", "pageowner", *words], stdout=slave,
                          stderr=subprocess.PIPE, env=environment) as process:
        os.close(slave)
        out = b""
        while True:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:  # the terminal has no other side any more
                break
            out += piece
        assert process.wait() == 0
    os.close(master)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.decode())


def test_hostile_frames_cgroups_and_notes_reach_no_terminal(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m\nname.txt"
    path.write_bytes(
        b"Page allocated via order 0, mask 0xcc0(GFP_\x1b[1m), pid 1, tgid 1 (x), ts 5 ns\n"
        b"PFN 0x10 type Un\x1b[2Jmovable Block 0 type M\xff Flags 0x0(\x1b[3m|zone=1)\n"
        b" bad\x1b[2Jframe\xff+0x1/0x2 [mod\x1b[2J]\n \n"
        b"Charged to memcg /\x1b]0;x\x07\n[vendor\x1b[2J]\n"
        b"Page has been migrated, last migrate reason: \x1b[5m\n\n")
    for words in (["report", "--by", "stack,memcg,gfp,migratetype,block,module,frame,subsystem"],
                  ["report", "--full"], ["report", "--json"], ["who", "16", "-s"],
                  ["map", "--by", "stack"], ["map", "--by", "memcg"]):
        done = cli(*words, path)
        assert done.status == 0
        assert harmless(done.out)
    for words in (["dump"], ["stacks"], ["who", "16", "-s"]):
        assert harmless(on_terminal([*words, str(path)], 80).replace("\r\n", "\n").encode())


def test_a_picture_of_a_file_with_any_name_is_drawn(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"d\xff\x1b.txt")
    path.write_bytes(b"Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 1, tgid 1 (x), ts 5"
                     b" ns\nPFN 16 type Unmovable Block 0 type Movable Flags 0x0()\n f+0x1/0x2\n\n")
    assert cli("map", path, "--png", tmp_path / "m.png").status == 0
    assert b"d\\udcff\\x1b.txt" in (tmp_path / "m.png").read_bytes()


def test_no_word_of_a_snapshots_metadata_reaches_the_output_raw(
        cli: Cli, hostile: Path, tmp_path: Path) -> None:
    evil, path = "\x1b[2J\r", tmp_path / "evil.parquet"
    table = pageowner.read(hostile).table
    for kind in ("tracker", "page_owner", evil):
        pageowner.Snapshot(table, pageowner.Metadata(
            source=evil, kind=kind, host=evil, kernel=evil)).save(path)
        for words in (["report"], ["report", "--full"], ["report", "--json"], ["who", "0x7ffff"]):
            done = cli(*words, *(["-s"] if words[0] == "who" else []), path)
            assert harmless(done.out)
            assert harmless(done.err)
            # of a capture `who` names the file that it was read from
            assert (words[0] == "who" and kind == "tracker") or (
                b"x1b[2J" in done.out or b"u001b[2J" in done.out)


def test_error_messages_are_one_harmless_line_whatever_the_words_are(cli: Cli) -> None:
    for words in (["report", "/no/\x1b[31m\n\u202efile"],
                  ["report", os.devnull, "--by", "a\nb\x1b[31m"],
                  ["report", "--order", "\x1b[31m\n"], ["\x1b[31m\n"], ["report", "--\x1b[31m\n"],
                  ["report", "--older", "\x1b[31m\n", os.devnull], ["who", "\x1b[31m\n"]):
        done = cli(*words)
        assert done.status in (1, 2)
        assert done.out == b""
        assert done.err.count(b"\n") == 1
        assert harmless(done.err)


SAME = settings(derandomize=True, database=None, deadline=None)
"""The same cases in each run: chance is for scripts/fuzz."""


@SAME
@given(st.binary(max_size=15))
def test_any_bytes_of_a_name_come_back(raw: bytes) -> None:
    text = to_text(raw)
    assert to_bytes(text) == raw
    text.encode("utf-8")


@SAME
@given(st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([b"\\", b"x", b"5c", b"\\x41"])),
                max_size=6).map(b"".join), st.binary(max_size=15))
def test_two_names_never_look_the_same(one: bytes, other: bytes) -> None:
    assert (to_text(one) == to_text(other)) == (one == other)


@SAME
@given(st.text())
def test_printable_text_holds_nothing_a_terminal_acts_on(text: str) -> None:
    shown = printable(text)
    assert all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in shown)
    assert printable(shown) == shown


def test_the_filter_finds_every_name_by_itself(hostile: Path) -> None:
    snapshot = pageowner.read(hostile)
    for place, name in enumerate(NAMES, 1):
        pids = snapshot.select(comm=to_text(name)).table["pid"].to_pylist()
        assert place in pids
