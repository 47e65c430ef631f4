"""What is said on stderr: whole for programs, between words on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

WORDS = (sys.executable, "-m", "pageowner")


def on_a_terminal(*words: str, columns: int = 40) -> str:
    """What a terminal that wide shows of stderr; standard output is none."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    subprocess.run([*WORDS, *words], stdout=subprocess.DEVNULL, stderr=theirs, check=False,
                   env={name: value for name, value in os.environ.items() if name != "COLUMNS"})
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:
        pass
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(("columns", "lines"), [(40, 2), (200, 1)])
def test_a_terminal_gets_it_broken_between_words(columns, lines):
    said = on_a_terminal("report", "a-file-that-is-not-there.txt", columns=columns)
    assert len(said.splitlines()) == lines
    assert all(len(line) <= columns for line in said.splitlines())
    assert " ".join(said.split()) == ("pageowner: a-file-that-is-not-there.txt: cannot read:"
                                      " No such file or directory")


def test_a_name_longer_than_the_terminal_stays_one_word():
    name = "x" * 60
    assert name in on_a_terminal("report", name)


def test_who_writes_a_file_is_told(tmp_path, cli, some_records):
    for words in (("export", some_records, "--format", "csv", "-o"),
                  ("flame", some_records, "--svg")):
        path = tmp_path / f"{words[0]}.out"
        done = cli(*words, path)
        assert done.err.startswith(f"{path}: ".encode())
        assert done.out == b""


def test_of_a_pipe_nothing_is_said(cli, some_records):
    assert cli("export", some_records, "--format", "csv", "-o", "/dev/null").err == b""


@pytest.mark.parametrize("stderr", ["/dev/full", "a pipe that nobody reads"])
def test_a_file_is_written_though_nobody_can_be_told(stderr, some_records, tmp_path):
    path = tmp_path / "a.csv"
    if stderr == "/dev/full":
        file = os.open(stderr, os.O_WRONLY)
    else:
        reader, file = os.pipe()
        os.close(reader)
    done = subprocess.run([*WORDS, "export", some_records, "--format", "csv", "-o", path],
                          stderr=file, check=False)
    os.close(file)
    assert done.returncode == 0
    assert path.stat().st_size > 0
