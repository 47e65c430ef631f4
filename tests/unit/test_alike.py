"""Different stacks look different as far as there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from kept_paper import KeptPaper

from pageowner.analysis.subsystems import short_stack
from pageowner.report.cells import cell_len, cut
from pageowner.report.key_columns import key_columns
from pageowner.report.stack_lines import one_line_each
from pageowner.report.table import draw_table
from pageowner.sources import source

DUMP = Path(__file__).parent.parent / "data/6.12-fragmented/page_owner.txt.xz"


def lines(width, *stacks):
    return one_line_each([None if stack is None else stack.replace(" ", "\n") for stack in stacks],
                         "(none)", width)


READ = "alloc_one+0x1/0x9 grow+0x5/0x9 reader+0x2/0x9 do_syscall_64+0x3/0x9"
WRITE = "alloc_one+0x1/0x9 grow+0x5/0x9 writer+0x2/0x9 do_syscall_64+0x3/0x9"
LATER = "alloc_one+0x1/0x9 grow+0x5/0x9 writer+0x6/0x9 do_syscall_64+0x3/0x9"


def test_what_differs_beyond_the_edge_is_shown_within_it():
    assert lines(20, READ, WRITE) == ["alloc_one … reader", "alloc_one … writer"]


def test_with_room_nothing_is_changed():
    assert lines(60, READ, WRITE) == lines(60, READ) + lines(60, WRITE)


def test_offsets_tell_apart_what_functions_do_not():
    assert lines(60, WRITE, LATER) == ["alloc_one ← grow ← writer+0x2",
                                       "alloc_one ← grow ← writer+0x6"]


def test_the_same_stack_twice_stays_alike_and_none_is_itself():
    assert lines(20, READ, READ, None, None) == lines(20, READ) * 2 + ["(none)"] * 2


def test_stacks_without_a_frame_stay_as_they_are():
    assert lines(20, "", "", None) == ["", "", "(none)"]
    assert one_line_each([None, "", "\n"], "", 20) == ["", "", ""]


def test_frames_stand_where_they_were_called():
    """What the shown ones called comes before them, what called them behind."""
    slab, pages = (f"{one}+0x1/0x9 pipe_write+0x1/0x9 vfs_write+0x5/0x9" for one in (
        "__kmalloc_noprof", "__alloc_pages_noprof"))
    first, second = lines(60, slab, pages)
    assert first.endswith(" ← pipe_write ← vfs_write")
    assert first.startswith("__kmalloc")
    assert second.startswith("__alloc_pages")


@pytest.mark.parametrize("times", [1, 40])
def test_how_often_a_stack_comes_hides_no_difference(times):
    four = [f"alloc_one+0x1/0x9 grow+0x5/0x9 {a}+0x1/0x9 same+0x1/0x9 {b}+0x1/0x9"
            for a in ("x", "y") for b in ("v", "w")]
    assert len(set(lines(30, *four * times))) == 4


@pytest.mark.parametrize("width", range(12))
def test_nothing_is_wider_than_the_paper(width):
    for line in lines(width, READ, WRITE, LATER, READ.replace("reader", "読者")):
        assert cell_len(line) <= width


def test_tables_tell_them_apart():
    paper = KeptPaper(40)
    table = {"stack": [stack.replace(" ", "\n") for stack in (READ, WRITE)]}
    draw_table(paper, key_columns(table, ["stack"], "tracker"))
    _, first, second = paper.lines
    assert first != second
    assert max(map(len, paper.lines)) <= 40


def test_a_hostile_name_stays_printable():
    for line in lines(30, "a\x1b[2J+0x1/0x2 same+0x1/0x2", "a\x1b[2J+0x2/0x3 same+0x1/0x2"):
        assert "\x1b" not in line


@pytest.fixture(scope="module")
def stacks():
    table = source.read(DUMP).table
    return table.column("stack").combine_chunks().dictionary.to_pylist()


@pytest.mark.parametrize("width", [30, 40, 60, 100])
def test_of_a_real_dump_few_stacks_look_the_same(stacks, width):
    shown = one_line_each(stacks, "", width)
    assert max(map(cell_len, shown)) <= width
    plainly_cut = {cut(short_stack(stack, 6), width) for stack in stacks}
    assert len(set(shown)) > 0.75 * len(stacks)
    assert len(stacks) - len(set(shown)) < (len(stacks) - len(plainly_cut)) / 3
