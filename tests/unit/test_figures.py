"""Figures in README and docs are those that the benchmarks and the guests printed.

A comment ``<!-- figures of benchmarks/results/fault.txt -->`` stands before a table or a paragraph;
each number there, but for labels (the first column, `code`), must be in one of the files it names,
where it may have more decimals. Those of a row of a table must stand there together: in one line,
or where a run prints what a row holds in several, within `NEAR` lines.
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


NEAR = 12
"""Lines of one run in benchmarks/results/capture.txt, the longest that a row is made of."""


def rows_of(block: str) -> list[list[str]]:
    """The figures of each row of a table but for the first two and for its first column; those of a
    paragraph, which may be of several runs, one by one."""
    block = re.sub(r"`[^`]*`|\]\([^)]*\)", "", block)
    if block.startswith("|"):
        rows = [numbers(row.split("|", 2)[2]) for row in block.splitlines()[2:]]
        return [row for row in rows if row]
    return [[figure] for figure in numbers(block)]


def is_printed(figure: str, printed: list[str]) -> bool:
    decimals = len(figure.partition(".")[2])
    return any(f"{float(number):.{decimals}f}" == figure for number in printed)


def missing(figures: list[str], lines: list[str]) -> list[str]:
    """Those that are not printed where most of them are: in a line or in `NEAR` lines."""
    printed = [numbers(line) for line in lines]
    least = figures
    for length in (1, NEAR):
        for start in range(len(printed)):
            near = [number for line in printed[start:start + length] for number in line]
            left = [figure for figure in figures if not is_printed(figure, near)]
            if len(left) < len(least):
                least = left
            if not least:
                return []
    return least


def claims() -> list[tuple[str, str, str]]:
    return [(page.name, files, block) for page in PAGES
            for files, block in COMMENT.findall(page.read_text())]


@pytest.mark.parametrize(("page", "files", "block"), claims())
def test_each_figure_was_printed(page: str, files: str, block: str) -> None:
    lines = [line for name in files.split() for line in (ROOT / name).read_text().splitlines()]
    rows = rows_of(block)
    assert rows, page
    for row in rows:
        assert not missing(row, lines), f"{page}: of {row} {missing(row, lines)} not in {files}"


def test_every_table_of_benchmarks_names_its_source() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    tables = re.findall(r"(?:^|\n)((?:[^|\n].*)?)\n+((?:\|.*\n)+)", text)
    assert len(tables) > 5
    for before, table in tables:
        assert before.startswith("<!-- figures of "), f"of what file is {table.splitlines()[2]}?"


def test_a_figure_that_was_not_printed_is_found() -> None:
    assert rows_of("| | s |\n| --- | --- |\n| `on --depth 64` | 1,234.5 (12 to 13) |\n") == [
        ["1234.5", "12", "13"]]
    assert rows_of("It takes 0.27 s, a [tenth](10.md).\n") == [["0.27"]]
    assert missing(["0.3", "5"], ["a 0.27 s, 5 rounds", "b 0.4 s, 6 rounds"]) == []


def test_a_figure_of_another_row_is_found() -> None:
    far = [f"line {number}" for number in range(100, 100 + NEAR)]
    assert missing(["0.3", "6"], ["a 0.27 s, 5 rounds", *far, "b 0.4 s, 6 rounds"]) == ["6"]
