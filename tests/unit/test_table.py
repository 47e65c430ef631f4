"""Tables fit the paper, and show what a task calls itself to the letter."""

from __future__ import annotations

import io

import pytest
from kept_paper import KeptPaper
from rich.cells import cell_len

from pageowner.report import terminal
from pageowner.report.table import Column, draw_table, natural_width
from pageowner.report.terminal import PIPE_WIDTH, Paper


def drawn(width: int, *columns: Column, indent: int = 0) -> list[str]:
    paper = KeptPaper(width)
    draw_table(paper, columns, indent)
    return paper.lines


SIZES = Column("SIZE", ["4 KiB", "1,024 MiB"])
NAMES = Column("COMM", ["systemd-journald", "日本語のタスク名"], text=True)
USES = Column("WHAT", ["page tables", "anonymous memory"], text=True)


def test_numbers_are_at_the_right_and_texts_at_the_left() -> None:
    assert drawn(PIPE_WIDTH, SIZES, NAMES, indent=2) == [
        "       SIZE  COMM", "      4 KiB  systemd-journald", "  1,024 MiB  日本語のタスク名"]


@pytest.mark.parametrize("width", range(30, 46))
def test_texts_give_way_numbers_do_not(width: int) -> None:
    lines = drawn(width, SIZES, NAMES, USES, indent=1)
    assert max(map(cell_len, lines)) <= width
    assert all(number in line for number, line in zip(SIZES.cells, lines[1:], strict=True))
    assert "…" in "".join(lines)


def test_a_table_that_fits_is_not_cut() -> None:
    width = natural_width([SIZES, NAMES, USES])
    assert "…" not in "".join(drawn(width, SIZES, NAMES, USES))
    assert "…" in "".join(drawn(width - 1, SIZES, NAMES, USES))


def test_a_share_bounds_a_column_of_texts() -> None:
    long = Column("WHAT", ["x" * 90], text=True, share=1 / 4)
    _, line = drawn(100, long, Column("COMM", ["y"], text=True))
    assert line == "x" * 24 + "…  y"


def test_cells_are_made_anew_for_a_width_and_left_alone_in_a_pipe() -> None:
    column = Column("STACK", ["a ← b ← c ← d ← e"], text=True, refit=lambda width: [f"a…{width}"])
    assert drawn(12, column)[1] == "a…12"
    assert drawn(PIPE_WIDTH, column)[1] == "a ← b ← c ← d ← e"


def test_markup_in_a_name_is_shown_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich makes styles of words in brackets, pictures of words between colons."""
    names = ["[bold]x[/bold]", "[link=http://a]b", ":warning:", "[/]", r"\[red]", "192.168.0.1"]
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    paper = terminal.paper()
    assert type(paper) is not Paper
    draw_table(paper, [Column("COMM", names, text=True)])
    titles, *lines = screen.getvalue().splitlines()
    assert lines == names
    assert "\x1b[" in titles
