"""The commands that README.md and docs/ show, and a shell to run them in.

Blocks marked ``sh`` are commands, a line each; in blocks marked ``console`` those behind the
prompts ``$`` and ``#`` are, with what they print below them. A comment in the line before a block,
``<!-- not run: REASON -->``, leaves it out.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parents[1]
DOCUMENTS = [TREE / "README.md", *sorted(TREE.glob("docs/**/*.md"))]

_BLOCK = re.compile(r"^(?:<!-- (?P<said>[^\n]*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
                    re.MULTILINE | re.DOTALL)
_COLUMNS = 80


@dataclass
class Command:
    """One command as it is shown, where, and the lines shown below it."""

    text: str
    place: str
    shown: list[str] = field(default_factory=list)


def commands(document: Path) -> list[Command]:
    """Those that are to be run, in order."""
    found: list[Command] = []
    text = document.read_text()
    for block in _BLOCK.finditer(text):
        said = block["said"] or ""
        if said.startswith("not run:"):
            assert said.removeprefix("not run:").strip(), f"{document}: no reason is given"
            continue
        line = text.count("\n", 0, block.start("text")) + 1
        place = f"{document.relative_to(TREE)}:{line}"
        if block["kind"] == "sh":
            found += [Command(one, place) for one in _joined(block["text"].splitlines())]
        elif block["kind"] == "console":
            found += _session(block["text"], place)
    return found


def python_block(document: Path) -> str:
    """The first block of Python."""
    return next(block["text"] for block in _BLOCK.finditer(document.read_text())
                if block["kind"] == "python")


@dataclass(frozen=True)
class Example:
    """A block of Python as it is shown, where, and whether it asks the tracker of this machine."""

    text: str
    place: str
    of_this_machine: bool


def examples(document: Path) -> list[Example]:
    """All blocks of Python, in order; those behind ``<!-- of this machine -->`` need a tracker."""
    text = document.read_text()
    return [Example(block["text"], f"{document.relative_to(TREE)}:"
                    f"{text.count(chr(10), 0, block.start('text')) + 1}",
                    block["said"] == "of this machine")
            for block in _BLOCK.finditer(text)
            if block["kind"] == "python" and not (block["said"] or "").startswith("not run:")]


def run(example: Example, names: dict[str, object]) -> None:
    """Run a block, whose names are those of the blocks before it."""
    exec(compile(example.text, example.place, "exec"), names)


def inline(document: Path) -> list[list[str]]:
    """The words behind ``pageowner`` of commands that stand in a sentence, a table or a unit."""
    text = _BLOCK.sub(lambda block: block["text"] if block["kind"] == "ini" else "",
                      document.read_text())
    found = re.findall(r"`(?:sudo )?pageowner ([^`]+)`", text)
    found += re.findall(r"^Exec\w+=\S*/pageowner (.*)$", text, re.MULTILINE)
    return [shlex.split(" ".join(one.split()).replace("&", " ")) for one in found]


def _joined(lines: list[str]) -> list[str]:
    """Lines that belong together as one: after a backslash, and inside quotes."""
    found, open_line = [], ""
    for line in lines:
        whole = f"{open_line}\n{line}" if open_line else line
        if _is_open(whole):
            open_line = whole
        else:
            open_line = ""
            if whole.strip():
                found.append(whole)
    assert not open_line, open_line
    return found


def _is_open(text: str) -> bool:
    if text.endswith("\\"):
        return True
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _session(text: str, place: str) -> list[Command]:
    found: list[Command] = []
    for line in text.splitlines():
        if found and not found[-1].shown and _is_open(found[-1].text):
            found[-1].text += f"\n{line}"
        elif line.startswith(("$ ", "# ")):
            found.append(Command(line[2:], place))
        else:
            assert found, f"{place}: begins with no command"
            found[-1].shown.append(line)
    return found


def is_shown(shown: list[str], printed: list[str]) -> bool:
    """Whether these lines are what was printed; a line ``…`` stands for any lines."""
    if not shown:
        return True
    pattern = "".join(r"(?:[^\n]*\n)*?" if line == "…" else re.escape(line.rstrip()) + "\n"
                      for line in shown)
    text = "".join(line.rstrip() + "\n" for line in printed)
    return re.fullmatch(pattern + r"\n*", text) is not None


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Its socket, for SHOWN_SERVER, while it runs."""
    path = folder / "socket"
    process = subprocess.Popen([sys.executable, TREE / "tests/shown.py", "--serve", path])
    try:
        for _ in range(600):
            if path.exists():
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield str(path)
    finally:
        process.kill()
        process.wait()


class Shell:
    """bash on a terminal of 80 columns without colours, in a folder, that runs one command after
    another. ``sudo`` is nothing, and ``pageowner`` is tests/shown.py with ``settings``: of the
    server at SHOWN_SERVER, if that is among them."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._script = folder / ".command"
        master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        termios.tcsetwinsize(slave, (24, _COLUMNS))
        # The program that is tried comes first; what a document takes for granted is there.
        tools = folder / ".tools"
        tools.mkdir()
        shown = "-I -S" + f' "{TREE}/tests/shown_client.py"' if "SHOWN_SERVER" in settings else (
            f'"{TREE}/tests/shown.py"')
        for name, text in {
            "pageowner": f'exec "{sys.executable}" {shown} "$@"',
            "page_owner_sort": f'exec "{sys.executable}" -m pageowner.page_owner_sort.command "$@"',
            "sudo": 'exec "$@"',
            "kill": 'kill "$@"',  # the shell's own: a bare Debian has no other for sudo to run
            "run-the-tests": "exec true",
            "less": "exec cat",
        }.items():
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        keep = {name: value for name, value in os.environ.items()
                if name not in ("COLUMNS", "LINES", "FORCE_COLOR")}
        self._bash = subprocess.Popen(
            ["bash", "--norc"], stdin=subprocess.PIPE, stdout=slave, stderr=slave, cwd=folder,
            env=keep | settings | {"PATH": f"{tools}:{os.environ['PATH']}", "TERM": "dumb",
                                   "NO_COLOR": "1", "LC_ALL": "C.UTF-8",
                                   "XDG_STATE_HOME": str(folder / ".state")})
        os.close(slave)
        self._terminal = master

    def run(self, text: str, timeout: float = 120) -> tuple[int, list[str]]:
        """Exit status and the lines printed."""
        self._script.write_text(text + "\n")
        assert self._bash.stdin is not None
        self._bash.stdin.write(b". ./.command </dev/null; printf '\\n\\0%d\\0' $?\n")
        self._bash.stdin.flush()
        out, end = b"", time.monotonic() + timeout
        while not (found := re.search(rb"\n\0(\d+)\0", out)):
            ready, _, _ = select.select([self._terminal], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{text}: takes more than {timeout:g} s; so far {out.decode()}"
            out += os.read(self._terminal, 1 << 16)
        lines = out[:found.start()].decode(errors="replace").replace("\r", "").split("\n")
        return int(found[1]), lines[:-1] if lines[-1] == "" else lines

    def close(self) -> None:
        """End the shell."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(30)
        os.close(self._terminal)
