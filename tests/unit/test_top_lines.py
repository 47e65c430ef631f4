"""Lines of the live view fit their width, and nothing in them acts on a terminal."""

from __future__ import annotations

import pytest
from looks import HOSTILE, PIPE, series
from rich.cells import cell_len

from pageowner.analysis.live import Live, Row
from pageowner.model.live import Health
from pageowner.report import top_lines

HEALTH = Health({"owned": 123456, "early": 999999, "untracked": 7, "free": 3 << 20}, 5, 13, 3, 4,
                1, 55800, 176 << 20, 16800.0, 17800.4, 10**9)


def text(line: top_lines.Line) -> str:
    return "".join(part for part, _ in line)


def model(by: str) -> Live:
    live = Live(by)
    for one in series():
        live.add(one)
    return live


@pytest.mark.parametrize("width", [40, 80, 110, 120, 150, 160, 300])
@pytest.mark.parametrize("by", ["stack", "comm", "subsystem", "memcg"])
def test_every_line_fits_and_is_inert(width: int, by: str) -> None:
    live = model(by)
    rows, number = live.rows()
    lines = [*top_lines.header(HEALTH, "a\x1bhost" * 20, 4 * 10**9, 0.0, 2.0, True, width, 4096),
             top_lines.state_line(live.total(), number, by, "comm=[b]\x1b", 3.0, width, 4096)]
    for row in rows:
        lines += top_lines.details(row, by, *live.parts(row.label, 3), width, 4096)
    if width >= 80:
        lines.append(top_lines.titles(by, "size", width))
        lines += [top_lines.owner(row, by, width, 4096) for row in rows]
        assert {cell_len(text(line)) for line in lines[-len(rows) - 1:]} == {width}
    for line in lines:
        assert cell_len(text(line)) <= width
        assert text(line).isprintable()


def test_nothing_of_the_header_is_cut_at_80_columns() -> None:
    for line in top_lines.header(HEALTH, "a-host-name", 10**15, 0.0, 2.0, True, 80, 4096):
        assert "…" not in text(line)


def test_a_task_that_calls_itself_markup_is_shown_as_it_calls_itself() -> None:
    row = Row(HOSTILE, 1, 1, 0, 0.0, 0.0, 0.0, [1])
    assert "[bold]x[/] \\x1b[2J\\x0a\\u202e" in text(top_lines.owner(row, "comm", 120, 4096))


def test_wide_letters_are_cut_by_their_cells() -> None:
    row = Row("漢字" * 40, 1, 1, 0, 0.0, 0.0, 0.0, [1])
    for by in ("comm", "memcg"):
        assert cell_len(text(top_lines.owner(row, by, 81, 4096))) == 81


def test_of_a_cgroup_the_end_is_shown() -> None:
    row = Row("/a" * 60 + "/ssh.service", 1, 1, 0, 0.0, 0.0, 0.0, [1])
    assert text(top_lines.owner(row, "memcg", 80, 4096)).rstrip().endswith("/ssh.service")


def test_growth_is_marked_apart_from_shrinking() -> None:
    marks = [top_lines.owner(Row("x", 9, 9, change, change, 0, 0, [9]), "comm", 80, 4096)[1]
             for change in (5, -5, 0)]
    assert [(part.strip(), style) for part, style in marks] == [
        ("+20 KiB", "grows"), ("-20 KiB", "shrinks"), ("0", "dim")]


@pytest.mark.parametrize(("number", "said"), [
    (0, "0"), (0.25, "0.2"), (7, "7"), (999, "999"), (999.6, "1.0k"), (13200, "13.2k"),
    (131999, "132k"), (4.1e6, "4.1M"), (2.5e9, "2.5G"), (10**13, "10T")])
def test_numbers_in_five_characters(number: float, said: str) -> None:
    assert top_lines.short(number) == said
    assert len(said) <= 5


@pytest.mark.parametrize(("series", "drawn"), [
    ([], "        "), ([0, 0, 0], "        "), ([5, 5], "      ▄▄"),
    ([1000, 1001], "      ▄▄"), ([0, 7], "      ▁█"),
    (list(range(100)), "▁▂▃▄▅▆▇█"), ([0, 10, 5], "     ▁█▅")])
def test_sparklines(series: list[int], drawn: str) -> None:
    assert top_lines.sparkline(series, 8) == drawn


def test_an_owner_without_a_stack_unfolds() -> None:
    row = Row(None, 3, 3, 0, 0.0, 0.0, 0.0, [3])
    assert [text(line).strip() for line in top_lines.details(row, "stack", [], 0, 80, 4096)] == [
        "3 pages in 3 blocks"]
    row = Row(PIPE, 1, 1, 0, 0.0, 0.0, 0.0, [1])
    assert [text(line).strip() for line in top_lines.details(row, "stack", [], 0, 80, 4096)] == [
        "pipes: 1 page in 1 block", *PIPE.split("\n")]
