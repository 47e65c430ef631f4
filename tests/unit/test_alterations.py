"""Texts that were mailed, logged, pasted and converted before they came here."""

from __future__ import annotations

import io
import json
import lzma
import random
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import asking
import pytest
from one_record import CURRENT

import pageowner
from pageowner.sources import page_owner, source
from pageowner.sources.restoring import restored

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner import Snapshot

    Alter = Callable[[bytes], bytes]

TEXTS = Path(__file__).parents[1] / "data" / "texts"


def sample(records: int = 60) -> bytes:
    """The first records of real dumps of two kernels."""
    found = []
    for kernel in ("6.1-sample", "6.12-fragmented"):
        with lzma.open(TEXTS.parent / kernel / "page_owner.txt.xz") as file:
            found += [part for part in file.read(1 << 18).split(b"\n\n")[:records]
                      if b"\n" in part and b"(\n" not in part]
    return b"\n\n".join(found) + b"\n\n"


def in_front(prefix: str) -> Alter:
    """Each line with ``prefix`` in front, in which ``{n}`` is its number."""
    def alter(text: bytes) -> bytes:
        lines = text.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
        return "".join(prefix.format(n=number) + line + "\n" for number, line in enumerate(
            lines, 1)).encode("utf-8", "surrogateescape")
    return alter


def wrapped(width: int) -> Alter:
    def alter(text: bytes) -> bytes:
        return b"\n".join(
            b"\n".join(textwrap.fill(line.decode(), width, break_long_words=False,
                                     break_on_hyphens=False, drop_whitespace=True).encode()
                       .split(b"\n")) if not line.startswith(b" ") else line
            for line in text.split(b"\n"))
    return alter


def cut_at(width: int) -> Alter:
    """As a terminal of so many columns wraps."""
    def alter(text: bytes) -> bytes:
        return b"\n".join(re.sub(b"(.{%d})(?=.)" % width, b"\\1\n", line)
                          if not line.startswith(b" ") else line for line in text.split(b"\n"))
    return alter


def both(*alterations: Alter) -> Alter:
    def alter(text: bytes) -> bytes:
        for alteration in alterations:
            text = alteration(text)
        return text
    return alter


def replaced(old: bytes, new: bytes) -> Alter:
    return lambda text: text.replace(old, new)


def colour(text: bytes) -> bytes:
    return text.replace(b"Page allocated", b"\x1b[01;31m\x1b[KPage allocated\x1b[m\x1b[K")


def typescript(text: bytes) -> bytes:
    shell = b"\x1b[?2004h\x1b]0;root@vm: ~\x07root@vm:~# "
    return (b"Script started on 2026-11-02 10:00:00+00:00 [TERM=\"xterm\"]\n"
            + shell + b"cat /sys/kernel/debug/page_owner\r\n\x1b[?2004l\r"
            + text.replace(b"\n", b"\r\n") + shell + b"exit\r\n"
            + b"\nScript done on 2026-11-02 10:00:09+00:00 [COMMAND_EXIT_CODE=\"0\"]\n")


LINE_ENDS, LOG, QUOTE, NUMBERS, BLANKS = (
    "other line ends", "times of a log in front of lines",
    "marks of a quotation in front of lines", "line numbers in front of lines",
    "spaces in front of lines")

ALTERED: dict[str, tuple[Alter, list[str]]] = {
    "crlf": (replaced(b"\n", b"\r\n"), [LINE_ENDS]),
    "crcrlf": (replaced(b"\n", b"\r\r\n"), [LINE_ENDS]),
    "cr": (replaced(b"\n", b"\r"), [LINE_ENDS]),
    "utf-8 mark": (lambda text: b"\xef\xbb\xbf" + text, ["a byte order mark at the start"]),
    "utf-16": (lambda text: text.decode().encode("utf-16"), ["encoded in UTF-16"]),
    "utf-16 big": (lambda text: b"\xfe\xff" + text.decode().encode("utf-16-be"),
                   ["encoded in UTF-16"]),
    "utf-16 no mark": (lambda text: text.decode().encode("utf-16-le"), ["encoded in UTF-16"]),
    "powershell": (lambda text: text.replace(b"\n", b"\r\n").decode().encode("utf-16"),
                   ["encoded in UTF-16", LINE_ENDS]),
    "dmesg": (in_front("[ 1234.{n:06}] "), [LOG]),
    "dmesg, callers": (in_front("[    4.{n:06}][ T5385] "), [LOG]),
    "dmesg -r": (in_front("<6>[ 1234.{n:06}] "), [LOG]),
    "dmesg -T": (in_front("[Mon Nov  2 10:00:07 2026] "), [LOG]),
    "dmesg, cut": (both(in_front("[ 1234.{n:06}] "), replaced(b" \n", b"\n")), [LOG]),
    "syslog": (in_front("Nov  2 10:00:07 vm kernel: [ 1234.{n:06}] "), [LOG]),
    "journal": (in_front("Nov 02 10:00:07 vm kernel: "), [LOG]),
    "journal, iso": (in_front("2026-11-02T10:00:07+0000 vm kernel: "), [LOG]),
    "journal, monotonic": (in_front("[  123.{n:06}] vm kernel: "), [LOG]),
    "rsyslog": (in_front("2026-11-02T10:00:07.{n:06}+00:00 vm kernel: [ 4.{n:06}] "), [LOG]),
    "logger": (in_front("Nov  2 10:00:07 vm root[{n}]: "), [LOG]),
    "logcat": (in_front("11-02 10:00:07.123  900  901 I owner   : "), [LOG]),
    "mtk": (in_front("[  123.{n:06}] (2)[900:cat]"), [LOG]),
    "quoted": (in_front("> "), [QUOTE]),
    "quoted twice": (in_front(">> "), [QUOTE]),
    "quoted, cut": (both(in_front("> > "), replaced(b" \n", b"\n")), [QUOTE]),
    "indented": (in_front("    "), [BLANKS]),
    "tab": (in_front("\t"), [BLANKS]),
    "comment": (in_front("# "), ["'# ' in front of lines"]),
    "patch": (in_front("+"), ["'+' in front of lines"]),
    "grep -n": (in_front("{n}:"), [NUMBERS]),
    "cat -n": (in_front("{n:6}\t"), [NUMBERS]),
    "trailing blanks": (replaced(b"\n", b"  \n"), ["spaces at the end of lines"]),
    "blank line": (replaced(b"\n\n", b"\n \n"), ["spaces at the end of lines"]),
    "double spaced": (replaced(b"\n", b"\n\n"), ["empty lines between all lines"]),
    "no empty lines": (both(replaced(b"\n\n", b"\n"), lambda text: text + b"\n"),
                       ["missing empty lines between records"]),
    "wrapped": (wrapped(72), ["lines wrapped"]),
    "wrapped at 100": (wrapped(100), ["lines wrapped"]),
    "continued": (replaced(b"), pid", b"),\\\n pid"), ["lines wrapped"]),
    "cut at 80": (cut_at(80), ["spaces at the end of lines", "lines wrapped"]),
    "\\n": (lambda text: text.replace(b"\n", b"\\n") + b"\n", ["line ends as \\n"]),
    "no-break": (replaced(b"\n ", b"\n\xc2\xa0"), ["no-break spaces"]),
    "html": (both(replaced(b"&", b"&amp;"), replaced(b"<", b"&lt;"), replaced(b">", b"&gt;"),
                  replaced(b"\n ", b"\n&nbsp;")), ["entities of HTML"]),
    "grep colour": (colour, ["control sequences of a terminal"]),
    "typescript": (typescript, ["control sequences of a terminal", LINE_ENDS,
                                "the command and prompts of a terminal"]),
    "shell": (lambda text: b"root@phone:/ # cat /d/page_owner\n" + text + b"root@phone:/ # \n",
              ["the command and prompts of a terminal"]),
    "quoted log": (both(in_front("[ 1234.{n:06}] "), in_front("> ")), [QUOTE, LOG]),
    "quoted, wrapped": (both(wrapped(72), in_front("> ")), [QUOTE, "lines wrapped"]),
    "indented log, crlf": (both(in_front("  [ 1234.{n:06}] "), replaced(b"\n", b"\r\n")),
                           [LINE_ENDS, BLANKS, LOG]),
    "forwarded": (both(in_front("> "), in_front("> "), replaced(b"\n", b"\r\n")),
                  [LINE_ENDS, QUOTE]),
}


def opened_as(text: bytes) -> Snapshot:
    return source.read_opened(dumps.as_opened(text))


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_dump_gives_what_it_gave_and_says_what_was_undone(
        tmp_path: Path, how: str) -> None:
    alter, undone = ALTERED[how]
    text = sample()
    if "utf-16" in how or how == "powershell":
        text = text.decode("ascii", "ignore").encode()
    plain, altered = opened_as(text), alter(text)
    assert altered != text
    found = opened_as(altered)
    assert found.table.equals(plain.table)
    assert found.meta.extra["undone"] == undone
    assert found.meta.counters == plain.meta.counters == {
        "damaged": 0, "unknown_lines": 0, "unterminated": 0}
    # from a file, packed, and as sums
    for name, content in (("plain.txt", altered), ("packed.xz", lzma.compress(altered))):
        (tmp_path / name).write_bytes(content)
        assert pageowner.read(tmp_path / name).table.equals(plain.table)
        counted = source.count(tmp_path / name)
        assert counted.meta.extra["undone"] == undone
        assert sum(counted.blocks) == plain.table.num_rows  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [
    "separator-with-blank", "quoted", "indented-tab", "crlf", "crcrlf", "trimmed", "terminal-log",
    "dmesg-prefixed", "no-blank-lines", "double-blank", "utf16-powershell"])
def test_posted_texts_hold_the_same_two_records(name: str) -> None:
    plain, found = (pageowner.read(TEXTS / f"{one}.txt") for one in ("cma-pinned", name))
    assert plain.pages == found.pages == 513
    assert found.table.equals(plain.table)
    assert found.meta.counters["damaged"] == found.meta.counters["unknown_lines"] == 0
    assert found.report(by="subsystem")["subsystem"].to_pylist() == ["netfilter", "page cache"]


def test_a_dump_as_the_kernel_printed_it_is_left_alone(tmp_path: Path) -> None:
    for text in (sample(), b"".join(dumps.FORMATS), *(CURRENT * n for n in (1, 2)),
                 CURRENT.replace(b"udevd", b"a\r\n\r\nb"), CURRENT.replace(b"udevd", b"> \n> \n"),
                 CURRENT[40:] + CURRENT, CURRENT[:150] + CURRENT + CURRENT[:150], b"", b"x",
                 CURRENT[:-1]):
        (tmp_path / "dump.txt").write_bytes(text)
        with page_owner.open_source(tmp_path / "dump.txt") as opened:
            assert restored(opened) is opened or not text
        assert restored(dumps.as_opened(text)).undone == []
        assert restored(dumps.as_opened(text)).stream.read() == text


def test_a_record_cut_by_the_next_is_damaged_and_not_a_whole_one() -> None:
    for cut in (60, 150, CURRENT.index(b" nfs") + 3):
        found = opened_as(CURRENT[:cut] + b"\n" + CURRENT + CURRENT)
        assert (found.table.num_rows, found.meta.counters["damaged"]) == (2, 1)
        assert "undone" not in found.meta.extra


@pytest.mark.parametrize("parallel", [1 << 30, 1 << 16])
def test_line_ends_that_change_in_the_middle_are_seen(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int) -> None:
    monkeypatch.setattr(page_owner, "PARALLEL", parallel)
    text = sample() * 30
    (tmp_path / "half.txt").write_bytes(text + text.replace(b"\n", b"\r\n"))
    found = pageowner.read(tmp_path / "half.txt")
    assert found.table.num_rows == 2 * opened_as(text).table.num_rows
    assert found.meta.extra["undone"] == [LINE_ENDS]
    assert found.meta.counters["damaged"] == 0
    counted = source.count(tmp_path / "half.txt")
    assert counted.meta.extra["undone"] == [LINE_ENDS]
    assert counted.meta.counters["damaged"] == 0


@pytest.mark.parametrize("name", [b"a\r\n\r\nb", b"> \n> x", b"a\nb", b"Page alloc", b"\x1b[1mx"])
@pytest.mark.parametrize("how", ["dmesg", "quoted", "crlf", "indented", "wrapped", "grep -n"])
def test_a_hostile_name_costs_no_other_record_of_an_altered_dump(how: str, name: bytes) -> None:
    text = CURRENT * 3 + CURRENT.replace(b"udevd", name) + CURRENT * 3
    found = opened_as(ALTERED[how][0](text))
    assert found.meta.extra["undone"][0] == ALTERED[how][1][0]
    assert found.table["comm"].to_pylist().count("udevd") == 6
    assert found.table.num_rows + found.meta.counters["damaged"] >= 7


@pytest.mark.parametrize("how", [
    "crlf", "utf-16", "dmesg", "syslog", "quoted", "indented", "cat -n", "blank line", "wrapped",
    "typescript", "quoted, wrapped", "double spaced", "no empty lines"])
def test_of_a_damaged_altered_dump_every_piece_is_a_record_or_counted(how: str) -> None:
    pool = [record for record in (*dumps.records()[::97], *dumps.FORMATS[:3]) if b"\n" in record]
    seen = 0
    for seed in range(24):
        chance = random.Random(seed)
        text = b"".join(chance.choices(pool, k=4)) + dumps.mutated(chance, pool)
        if how == "utf-16":
            text = text.decode("ascii", "ignore").encode()
        try:
            altered = ALTERED[how][0](text)
        except UnicodeDecodeError:
            continue
        dumps.check_snapshot(altered)
        seen += bool(restored(dumps.as_opened(altered)).undone)
    assert seen > 12


def test_what_was_undone_is_said_on_stderr_and_in_json_and_kept(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[str, str]:
        status, out, error = asking.run(*words)
        assert status == 0, error
        return out, error

    dump = str(TEXTS / "dmesg-prefixed.txt")
    out, error = run("report", dump, "--json")
    assert error == (f"pageowner: {dump}: changed after the kernel printed it; undone: {LOG}\n")
    assert json.loads(out)["undone"] == [LOG]
    saved = str(tmp_path / "saved.parquet")
    run("save", saved, dump)
    out, error = run("report", saved, "--json")
    assert json.loads(out)["undone"] == [LOG]
    out, error = run("frag", saved, "--json")
    assert json.loads(out)["undone"] == [LOG]
    out, error = run("diff", dump, str(TEXTS / "cma-pinned.txt"), "--json")
    assert (json.loads(out)["before"]["undone"], json.loads(out)["after"]["undone"]) == ([LOG], [])
    out, _ = run("map", dump, "--json")
    assert json.loads(out)["undone"] == [LOG]


def test_a_mail_that_quotes_a_dump_costs_none_of_its_records() -> None:
    mail = (b"From: A <a@example.org>\nSubject: Re: leak\n\nOn Monday B wrote:\n> Hello,\n>\n"
            + ALTERED["quoted, cut"][0](CURRENT * 3).replace(b"> > ", b"> ").replace(b">>", b">")
            + b">\n> Regards\n\nThanks, which kernel is it?\n\nPage allocated by whom?\n")
    found = opened_as(mail)
    assert found.table.num_rows == 3
    plain = opened_as(CURRENT)
    assert found.table["stack"].unique().to_pylist() == plain.table["stack"].to_pylist()
    # what is no record: its head, the two greetings, the questions
    assert 3 <= found.meta.counters["damaged"] <= 6
    assert found.meta.extra["undone"] == [QUOTE]


def test_the_place_of_damage_is_said_to_be_of_the_restored_text() -> None:
    text = ALTERED["dmesg"][0](CURRENT + CURRENT.replace(b"order 2", b"order x") + CURRENT)
    found = opened_as(text)
    assert found.meta.counters["damaged"] == 1
    assert found.meta.extra["damage"][0][0] == len(CURRENT)


def test_a_stream_is_read_to_its_end_however_small_its_pieces_are() -> None:
    class Dribble(io.RawIOBase):
        def __init__(self, text: bytes) -> None:
            self._text = io.BytesIO(text)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            piece = self._text.read(min(len(buffer), 1000))
            buffer[:len(piece)] = piece
            return len(piece)

    text = sample() * 4
    altered = ALTERED["quoted log"][0](text)
    from pageowner.sources.opening import Opened

    stream = io.BufferedReader(Dribble(altered))
    assert restored(Opened("x", stream, None, altered[:64])).stream.read() == text
