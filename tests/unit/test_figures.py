"""Figures in README and docs are those that the benchmarks and the guests printed.

A comment ``<!-- figures of benchmarks/results/fault.txt -->`` stands before a table or a paragraph;
each number there, but for labels (the first column, `code`), must be in one of the files it names,
where it may have more decimals.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.])\d+(?:\.\d+)?")
COMMENT = re.compile(r"<!-- figures of ([^>]+?) -->\n\s*((?:.+\n)+)")


def numbers(text: str) -> list[str]:
    return [found.replace(",", "") for found in NUMBER.findall(text)]


def figures(block: str) -> list[str]:
    """Those of a table but for its first two rows and its first column, or of a paragraph."""
    block = re.sub(r"`[^`]*`|\]\([^)]*\)", "", block)
    if block.startswith("|"):
        rows = block.splitlines()[2:]
        block = "\n".join(row.split("|", 2)[2] for row in rows)
    return numbers(block)


def claims() -> list[tuple[str, str, str]]:
    return [(page.name, files, block) for page in PAGES
            for files, block in COMMENT.findall(page.read_text())]


@pytest.mark.parametrize(("page", "files", "block"), claims())
def test_each_figure_was_printed(page: str, files: str, block: str) -> None:
    measured = numbers("\n".join((ROOT / name).read_text() for name in files.split()))
    told = figures(block)
    assert told, page
    for figure in told:
        decimals = len(figure.partition(".")[2])
        assert any(f"{float(one):.{decimals}f}" == figure for one in {figure} & set(measured)
                   or measured), f"{page}: {figure} is in none of {files}"


def test_every_table_of_benchmarks_names_its_source() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    tables = re.findall(r"(?:^|\n)((?:[^|\n].*)?)\n+((?:\|.*\n)+)", text)
    assert len(tables) > 5
    for before, table in tables:
        assert before.startswith("<!-- figures of "), f"of what file is {table.splitlines()[2]}?"


def test_a_figure_that_was_not_printed_is_found() -> None:
    assert figures("| | s |\n| --- | --- |\n| `on --depth 64` | 1,234.5 (12 to 13) |\n") == [
        "1234.5", "12", "13"]
    assert figures("It takes 0.27 s, a [tenth](10.md).\n") == ["0.27"]
