"""What CONTRIBUTING.md promises of adding things, tried: in a copy of the package to which only
that is added."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from one_record import CURRENT

import pageowner
from pageowner.cli.group import EPILOG
from pageowner.model.source_kinds import KINDS, READERS

HOUSE = Path(pageowner.__file__).parent


class Copy:
    """A copy of the package in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.house = folder / "pageowner"
        shutil.copytree(HOUSE, self.house, ignore=shutil.ignore_patterns("__pycache__"))

    def add_line(self, file: str, before: str, line: str) -> None:
        """Add a line to a file, in front of the one that begins so."""
        text = (self.house / file).read_text()
        assert text.count(f"\n{before}") == 1
        (self.house / file).write_text(text.replace(f"\n{before}", f"\n{line}\n{before}"))

    def run(self, *words: str, python: str = "-m pageowner") -> str:
        done = subprocess.run(
            [sys.executable, *python.split(" ", 1), *words], capture_output=True, text=True,
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(self.folder)}, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_every_module_that_recognises_a_text_is_a_reader_of_a_kind() -> None:
    offering = {path.stem for path in (HOUSE / "sources").glob("*.py")
                if "\ndef recognises(" in path.read_text()}
    assert offering == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_offers_what_reads_a_text_and_the_help_names_it(name: str) -> None:
    assert callable(import_module(f"pageowner.sources.{name}").read)
    names = [kind.named for kind in KINDS.values() if kind.reader == name and kind.named]
    assert names
    assert all(named in EPILOG for named in names)


READER = '''
"""Lines such as ``7 pages of ext4``."""

from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.page_owner_body import Body


def recognises(head):
    return b" pages of " in head


def read(opened):
    from pageowner.sources.page_owner_groups import to_snapshot

    groups = Groups()
    for line in opened.stream.read().splitlines():
        number, name = line.split(b" pages of ")
        groups.put(Line(), len(groups.bodies), 0, int(number), -1, 0)
        groups.bodies.append(Body(f"f+0x1/0x2 [{name.decode()}]"))
    return to_snapshot(groups, opened.name, "by_module")
'''


def test_a_source_is_a_module_and_a_line(copy: Copy) -> None:
    (copy.house / "sources/by_module.py").write_text(READER)
    copy.add_line("model/source_kinds.py", '    "allocinfo": SourceKind(', (
        '    "by_module": SourceKind("pages by module", False, "a dump", "", reader="by_module",'
        ' named="pages by module"),'))
    (copy.folder / "text").write_text("7 pages of ext4\n9 pages of xfs\n")
    copy.run("save", "saved.parquet", "text")
    for source in ("text", "saved.parquet"):
        rows = json.loads(copy.run("report", source, "--by", "module", "--json"))["owners"]
        assert [(row["module"], row["pages"]) for row in rows] == [("xfs", 9), ("ext4", 7)]
    assert "pages by module" in copy.run("--help").replace("\n  ", " ")


def test_a_column_of_a_line_of_dumps_is_one_entry(copy: Copy) -> None:
    copy.add_line("model/schema.py", '    Column("handle", ', (
        '    Column("pins", "uint16", "how often it is pinned", Key("pins", 23),'
        ' line=Line(r"Pinned (\\d+) times", "Pinned %s times", 3)),'))
    text = CURRENT[:-1] + b"Pinned 12 times\n\n" + CURRENT[:-1] + b"Pinned 70000 times\n\n"
    (copy.folder / "dump.txt").write_bytes(text)
    report = json.loads(copy.run("report", "dump.txt", "--by", "pins", "--json"))
    assert [row["pins"] for row in report["owners"]] == [12, None]
    assert report["counters"]["unknown_lines"] == 0
    assert "how often it is pinned" in copy.run("query", "--columns")
    copy.run("save", "saved.parquet", "dump.txt")
    assert "  pins 12\n" in copy.run("who", "0x1a2b4", "--source", "dump.txt")
    assert copy.run("query", "SELECT max(pins) AS most FROM pages", "saved.parquet", "--csv") == (
        "most\n12\n")
    assert copy.run("dump", "saved.parquet").encode() == text


CALL = '''
"""How large a source is."""

from dataclasses import dataclass

import pageowner

__all__ = ["Size", "size"]


@dataclass(frozen=True)
class Size:
    """Base pages."""

    pages: int


def size(source: str) -> Size:
    """Count all pages."""
    return Size(pageowner.read(source).pages)
'''

VERB = '''"""``pageowner size``: How large a source is."""

import click

from pageowner.cli.verb import verb


@verb("size")
@click.argument("source")
def command(source: str) -> None:
    """How large a source is.

    Examples:
        pageowner size dump.txt  in pages
    """
    from pageowner.api.size import size

    print(size(source).pages)
'''


def test_a_verb_is_two_modules(copy: Copy) -> None:
    (copy.house / "api/size.py").write_text(CALL)
    (copy.house / "cli/size.py").write_text(VERB)
    (copy.folder / "dump.txt").write_bytes(CURRENT)
    assert copy.run("size", "dump.txt") == "4\n"
    assert "  size        How large a source is.\n" in copy.run("--help")
    assert copy.run(python="-c import pageowner; print(pageowner.size('dump.txt'),"
                    " pageowner.Size.__name__, *dir(pageowner))").startswith("Size(pages=4) Size ")
    copy.run(python="-c import pathlib, pageowner.cli.manual as manual;"
             " manual.write(pathlib.Path('man'))")
    assert "in pages" in (copy.folder / "man/pageowner-size.1").read_text()
