"""Command lines that nobody would type: refused in one line, or answered; never a traceback."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done

LINES = {"report": ("F",), "diff": ("F", "F"), "leaks": ("F", "F", "F"), "frag": ("F",),
         "map": ("F",), "query": ("SELECT 1", "F"), "flame": ("F",), "who": ("4096", "-s", "F"),
         "stacks": ("F",), "dump": ("F",), "save": ("kept.parquet", "F"),
         "export": ("F", "--format", "csv"), "sort": ("F", "sorted.txt")}
"""Verbs that only read, and where they find what."""

VALUES = ("", "-", "--", "-1", "0", "1", "9", "10", "999999999999", "1" * 5000, "1e400", "nan",
          "-0", "0x", "0x1000", "1s", "1s ago", "s", "10%", "x", "x" * 5000, "comm", "comm,stack",
          ",comm,", "stack,stack", "pid", "age", "*", "[", "!", "**/", "\n", "\x1b[2J", "\udcff",
          "漢字", "é", "%s%n{0}", "{}", "[bold]", "'", '"', ";", "$(x)", ".", "nowhere/x", "F",
          "1..2", "2026-01-01", "9999-99-99 99:99", "@0", "@" + "9" * 30, "KERNEL|x", "Normal",
          "json", "pprof", "hilbert")


def _options(verb: str) -> list[str]:
    command = importlib.import_module(f"pageowner.cli.{verb}").command
    return [word for option in command.params for word in (*option.opts, *option.secondary_opts)
            if word.startswith("-")]


def _line(chance: random.Random, verb: str, file: str) -> list[str]:
    words = list(LINES[verb])
    options = _options(verb)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        how = chance.random()
        if how < 0.75 and options:
            words.append(chance.choice(options))
            if chance.random() < 0.7:
                words.append(chance.choice(VALUES))
        elif how < 0.85 and options:
            words.append(f"{chance.choice(options)}={chance.choice(VALUES)}")
        elif how < 0.95:
            words.append(chance.choice(VALUES))
        else:
            del words[chance.randrange(1, len(words) + 1):]
            words += ["--" + chance.choice(VALUES), "F"]
    if "F" not in words:
        words.append("F")  # without a source it would be this machine
    return [file if word == "F" else word for word in words]


NOTES = ("pageowner: note: ", "pageowner: nothing of ")
"""What is said of an answer that was had; writing it may fail nevertheless."""


def _errors(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith(NOTES)]


@pytest.mark.parametrize("verb", LINES)
def test_odd_arguments_are_answered_or_refused_in_one_line(
        verb: str, cli: Callable[..., Done], some_records: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chance, seen = random.Random(verb), Counter[str]()
    whole = some_records.read_bytes()
    few = whole[:whole.index(b"\n\n", 100_000) + 2]
    for _ in range(150):
        Path("dump.txt").write_bytes(few)  # a line may write over it
        words = _line(chance, verb, "dump.txt")
        done = cli(verb, *words)
        text = done.err.decode(errors="replace")
        assert done.status in range(4), words
        assert "Traceback" not in text, words
        assert "\x1b" not in text, words
        if done.status:
            # of a page without a record --json says it on standard output
            assert len(_errors(text)) == (0 if done.out and verb == "who" else 1), (words, text)
            assert len(text) < 8000, words
        seen["refused" if done.status else "answered"] += 1
    assert seen["refused"] > 20


FULL = {"map": ("map", "F", "--png", "O"), "page of a map": ("map", "F", "--html", "O"),
        "flame": ("flame", "F", "--svg", "O"), "save": ("save", "O", "F"),
        "export": ("export", "F", "--format", "pprof", "-o", "O"), "dump": ("dump", "F", "-o", "O")}


@pytest.mark.parametrize("words", FULL.values(), ids=FULL)
def test_a_full_disk_is_told_in_one_line_by_every_verb_that_writes(
        words: tuple[str, ...], some_records: Path, tmp_path: Path) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("a small file system can be mounted by root only")
    script = ('mount -t tmpfs -o size=8k none "$1" || exit 77; head -c 8192 /dev/zero >"$1/full";'
              ' shift; "$@"; echo "status $?"')
    there = {"F": str(some_records), "O": str(tmp_path / "o.svg")}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", tmp_path, sys.executable, "-m", "pageowner",
         *(there.get(word, word) for word in words)], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is forbidden here")
    assert done.stdout == "status 1\n"
    error, = _errors(done.stderr)
    assert "No space left on device" in error
