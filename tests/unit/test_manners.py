"""How the command behaves towards people: help, near misses, narrow and plain terminals."""

from __future__ import annotations

import ast
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import pageowner.report
from pageowner.cli.group import VERBS, program
from pageowner.cli.verb import Verb
from pageowner.report import ascii, palette

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., Any]

OWN = [verb for verb in VERBS if verb != "sort"]  # that one's words are the kernel's tool's
HELP = ["-h", "--help"]  # click keeps those of the first context that asks


def command(verb: str) -> Verb:
    found = program.get_command(click.Context(program), verb)
    assert isinstance(found, Verb)
    return found


def on_a_terminal(words: list[str], width: int, **env: str) -> tuple[int, str]:
    """Runs pageowner on a terminal so wide; its exit status and what stood there, uncoloured."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    kept = {name: value for name, value in os.environ.items()
            if name not in ("COLUMNS", "LINES", "LC_ALL", "LC_CTYPE", "LANG")}
    with subprocess.Popen([sys.executable, "-m", "pageowner", *words], stdin=theirs, stdout=theirs,
                          stderr=theirs, env={**kept, "TERM": "xterm-256color", **env}) as child:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 1 << 16):
                seen += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return child.returncode, re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())


@pytest.mark.parametrize("verb", OWN)
def test_help_ends_with_examples_whose_words_exist(verb: str) -> None:
    examples = command(verb).examples
    assert len(examples) >= (1 if verb == "off" else 2)
    help_text = command(verb).get_help(
        click.Context(command(verb), info_name=verb, help_option_names=HELP))
    assert "Examples:" in help_text
    assert "Options:" not in help_text[help_text.index("Examples:"):]
    for line, _ in examples:
        assert line in help_text
        words = shlex.split(re.sub(r"( >|\|).*", "", line.removeprefix("sudo ")))
        assert words[0] == "pageowner"
        command(words[1]).make_context(words[1], words[2:])  # raises for what is no option


@pytest.mark.parametrize("verb", ["", *OWN])
def test_help_is_plain_and_fits_narrow_terminals_but_for_what_is_to_be_copied(verb: str) -> None:
    found = command(verb) if verb else program
    for width in (40, 80):
        text = found.get_help(click.Context(
            found, info_name=f"pageowner {verb}".strip(), terminal_width=width,
            max_content_width=width, help_option_names=HELP))
        assert text.isascii()
        copied = text.index("Examples:") if verb else len(text)
        for line in text[:copied].splitlines():
            # click puts no fewer than 10 characters beside an option's name
            assert len(line) <= max(width, 53)


@pytest.mark.parametrize(("words", "meant"), [
    (["repot", "x"], "there is no verb 'repot'; did you mean 'report'?"),
    (["statsu"], "there is no verb 'statsu'; did you mean 'status'?"),
    (["report", "--tpo", "5"], "there is no option --tpo; did you mean '--top'?"),
    (["on", "--min-ordre", "5"], "there is no option --min-ordre; did you mean '--min-order'?"),
    (["report", "--by", "sybsystem"], "cannot group by 'sybsystem'; did you mean 'subsystem'?"),
    (["report", "--sort", "pags"], "cannot sort by 'pags'; did you mean 'pages'?"),
    (["diff", "a", "b", "--sort", "chnge"], "cannot sort by 'chnge'; did you mean 'change'?"),
    (["map", "--by", "Modul"], "cannot colour by 'Modul'; did you mean 'module'?"),
    (["top", "--by", "subsytem"], "cannot group by 'subsytem'; did you mean 'subsystem'?"),
])
def test_a_near_miss_is_told_what_was_meant(cli: Cli, words: list[str], meant: str) -> None:
    done = cli(*words)
    assert (done.status, done.out) == (2, b"")
    assert meant in done.err.decode()


def test_a_far_miss_is_told_all_there_is(cli: Cli) -> None:
    assert f"choose from {', '.join(VERBS)}" in cli("zzz").err.decode()


@pytest.mark.parametrize("words", [
    ["report", "DUMP", "--by", "comm,order", "--full", "--top=2"], ["frag", "DUMP", "--order", "9"],
    ["map", "DUMP"], ["query", "SELECT comm, '←…' FROM pages LIMIT 3", "DUMP"],
    ["who", "0x100", "-s", "DUMP"],
])
def test_a_narrow_terminal_in_the_locale_c_gets_plain_readable_text(
        some_records: Path, words: list[str]) -> None:
    status, seen = on_a_terminal([str(some_records) if word == "DUMP" else word for word in words],
                                 40, LC_ALL="C")
    assert status == 0
    assert seen.isascii()
    assert "Traceback" not in seen
    assert "\\u" not in seen
    assert seen.strip()


@pytest.mark.parametrize("words", [["report"], ["map"]])
def test_an_encoding_without_arrows_keeps_the_columns_where_they_are(
        some_records: Path, words: list[str]) -> None:
    def run(encoding: str) -> bytes:
        done = subprocess.run([sys.executable, "-m", "pageowner", *words, some_records],
                              capture_output=True, check=True,
                              env={**os.environ, "PYTHONIOENCODING": encoding})
        return done.stdout

    ascii_text, text = run("ascii").decode("ascii"), run("utf-8").decode()
    assert [len(line) for line in ascii_text.splitlines()] == [
        len(line) for line in text.splitlines()]
    assert ascii.ascii_only(text) == ascii_text


def test_every_sign_that_views_draw_has_one_of_ascii() -> None:
    # not what is read, or written about: docstrings are no output
    for path in Path(pageowner.report.__file__).parent.glob("*.py"):
        if path.name == "plain.py":
            continue
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if (isinstance(node, ast.Constant) and isinstance(node.value, str)
                    and id(node) not in docs):
                assert set(filter(lambda sign: not sign.isascii(), node.value)) <= set(
                    ascii.SIGNS) | set("\u115f\u1160\u3164\uffa0\u2800"), path


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, False), ({"LANG": "C"}, True), ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, True),
    ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),  # as Python leaves it
    ({"LANG": "C.UTF-8"}, False), ({"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, False),
    ({"LANG": "en_US.UTF-8", "LC_CTYPE": "C.UTF-8"}, False), ({"LC_CTYPE": "C.UTF-8"}, False),
])
def test_only_a_locale_chosen_to_be_c_is_plain(environment: dict[str, str], expected: bool) -> None:
    assert ascii.wants_ascii(environment) is expected


def test_colours_are_named_in_one_place_alone() -> None:
    colour = re.compile(
        r"""["'#](?:bold |dim |on )*(?:red|green|yellow|blue|magenta|cyan)\b|#[0-9a-f]{6}""")
    for path in Path(pageowner.report.__file__).parent.glob("*.py"):
        if path.name not in ("palette.py", "flame_svg.py"):  # black and white are no colours
            assert not colour.search(path.read_text()), path


# Severity 1.0 of Machado, Oliveira, Fernandes (2009): what protanopes and deuteranopes see,
# from linear RGB.
SEEN_BY = {
    "protanopes": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
                   (-0.003882, -0.048116, 1.051998)),
    "deuteranopes": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
                     (-0.011820, 0.042940, 0.968881)),
}
XTERM = {"red": (205, 0, 0), "green": (0, 205, 0), "yellow": (205, 205, 0), "cyan": (0, 205, 205)}


@pytest.mark.parametrize("who", SEEN_BY)
@pytest.mark.parametrize("pair", [("good", "warn"), ("good", "bad"), ("warn", "bad"),
                                  ("grows", "shrinks"), ("more", "fewer")])
def test_colours_that_differ_in_meaning_differ_to_colour_blind_eyes(
        who: str, pair: tuple[str, str]) -> None:
    def seen(style: str) -> list[float]:
        if style in ("more", "fewer"):
            text = palette.MORE if style == "more" else palette.FEWER
            rgb = tuple(int(text[at:at + 2], 16) for at in (1, 3, 5))
        else:
            rgb = XTERM[palette.STYLES[style].split()[-1]]
        linear = [(part / 255) ** 2.2 for part in rgb]
        return [255 * max(sum(a * b for a, b in zip(row, linear, strict=True)), 0) ** (1 / 2.2)
                for row in SEEN_BY[who]]

    apart = sum((a - b) ** 2 for a, b in zip(*map(seen, pair), strict=True)) ** 0.5
    assert apart > 80  # green and yellow, or green and red, of equal lightness are below it


def test_the_measure_of_colours_refuses_red_beside_green() -> None:
    def seen(rgb: tuple[int, int, int]) -> list[float]:
        linear = [(part / 255) ** 2.2 for part in rgb]
        return [255 * max(sum(a * b for a, b in zip(row, linear, strict=True)), 0) ** (1 / 2.2)
                for row in SEEN_BY["deuteranopes"]]

    apart = sum((a - b) ** 2 for a, b in zip(
        seen(XTERM["green"]), seen(XTERM["yellow"]), strict=True)) ** 0.5
    assert apart < 80
