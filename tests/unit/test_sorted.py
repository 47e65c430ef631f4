"""The output of page_owner_sort as a source: groups with counts, without page frame numbers."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asking import run
from damage import opened_damaged

import pageowner
from pageowner.errors import PageownerError
from pageowner.page_owner_sort.command import main as sort
from pageowner.sources.opening import open_source
from pageowner.sources.page_owner_sorted import SortedGroups, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TEXTS = Path(__file__).parents[1] / "data" / "texts"
SAMPLE = TEXTS.parent / "6.1-sample" / "page_owner.txt.xz"
NEW, OLD = TEXTS / "sorted-old-times.txt", TEXTS / "sorted-before.txt"


def pages_by(source: object, *keys: str) -> dict[object, tuple[int, int]]:
    rows = pageowner.read(source).report(by=keys).to_pylist()  # type: ignore[arg-type]
    return {tuple(row[key] for key in keys): (row["pages"], row["blocks"]) for row in rows}


def sums(source: object) -> tuple[int, int]:
    found = pageowner.read(source)  # type: ignore[arg-type]
    return found.pages, found.blocks


def sorted_by(tmp_path: Path, *words: str) -> Path:
    made = tmp_path / "sorted.txt"
    assert sort([*words, str(SAMPLE), str(made)]) == 0
    return made


def test_groups_count_all_of_their_blocks_and_pages() -> None:
    assert sums(NEW) == (6_838_794, 890_908)
    assert pages_by(NEW, "subsystem") == {
        ("network buffers",): (6_797_584, 849_698), ("anonymous memory",): (41_210, 41_210)}
    assert pages_by(NEW, "order") == {(3,): (6_797_584, 849_698), (0,): (41_210, 41_210)}
    assert sums(TEXTS / "sorted-culled.txt") == (6_797_584, 849_698)
    assert pages_by(TEXTS / "sorted-culled.txt", "comm", "order") == {
        ("feeder", None): (6_797_584, 849_698)}
    assert pages_by(TEXTS / "sorted-2005.txt", "stack") == {
        ("generic_file_buffered_write+280",): (175_485, 175_485),
        ("pipe_writev+574\npipe_write+26",): (62_130, 62_130)}


def test_what_grew_between_two_sorted_texts_fails_a_diff() -> None:
    status, text, error = run("diff", OLD, NEW, "--fail-over", "1MiB")
    assert status == 3
    assert "+25.9 GiB" in text
    assert "gained more than 1MiB" in error
    (row,) = pageowner.diff(OLD, NEW).changes.to_pylist()
    assert row["gained"] == 6_789_584
    assert row["blocks_after"] - row["blocks_before"] == 848_698


@pytest.mark.parametrize("words", [
    (), ("-m",), ("-a",), ("-n",), ("--cull=st",), ("--cull=n",), ("--cull=n,st",),
    ("--cull=p,tg,n,mod,ator",), ("--cull=p,tg,n,mod,ator,st,f",), ("--pid", "1", "--cull=st"),
    ("--sort=-name,txt",)])
def test_what_was_sorted_is_in_the_groups(tmp_path: Path, words: Sequence[str]) -> None:
    """Of a real dump, whatever it was sorted and culled by."""
    made, dump = sorted_by(tmp_path, *words), pageowner.read(SAMPLE)
    if "--pid" in words:
        dump = dump.select(tid=1)
    found = pageowner.read(made)
    assert found.meta.counters == {"damaged": 0, "unknown_lines": 0}
    assert (found.pages, found.blocks) == (dump.pages, dump.table.num_rows)
    culled = words[-1].removeprefix("--cull=").split(",") if "cull" in "".join(words) else None
    for key, short in (("stack", "st"), ("comm", "n"), ("tid", "p"), ("order", ""), ("gfp", "")):
        if culled is None or short in culled:
            mine, other = (sorted(map(str, one.report(by=key).select([key, "pages", "blocks"])
                                      .to_pylist())) for one in (found, dump))
            assert mine == other, key


def test_a_line_that_is_of_one_of_several_blocks_is_not_said_of_all(tmp_path: Path) -> None:
    """5.16's -c prints the first of the blocks that have a stack: its task, its time and its order
    are not those of the others."""
    made = tmp_path / "sorted.txt"
    made.write_text("7 times, 21 pages:\nPage allocated via order 1, mask 0x1(A), pid 4, ts 9 ns\n"
                    "PFN 4096 type Movable Block 8 type Movable Flags 0x0(node=0|zone=1)\n"
                    " alloc_page+0x1/0x2\n\n"
                    "5 times, 5 pages:\nPage allocated via order 0, mask 0x1(A), pid 5, ts 9 ns\n"
                    " other+0x1/0x2\n\n"
                    "1 times, 2 pages:\nPage allocated via order 1, mask 0x1(A), pid 6, ts 9 ns\n"
                    " third+0x1/0x2\n\n")
    rows = pageowner.read(made).table.select(
        ["order", "gfp_mask", "pid", "ts_ns", "blocks", "amount", "node"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (None, None, None, None, 7, 21, None), (0, None, None, None, 5, None, None),
        (1, 1, 6, 9, 1, None, None)]


def test_names_of_tasks_are_no_groups(tmp_path: Path) -> None:
    made = tmp_path / "sorted.txt"
    made.write_text(
        "2 times, 2 pages, allocated by OTHERS :\nPage allocated via order 0, mask 0x1(A), pid 4,"
        " tgid 4 (a\n\n9 times:\nb), ts  ns\n f+0x1/0x2\n\n"
        "3 times, 3 pages, PID 1, TGID 1, task_comm_name: x), ts 1, module: y, allocated by SLAB "
        "VMALLOC :\n g+0x1/0x2\n\n")
    assert pages_by(made, "comm") == {
        ("a\n\n9 times:\nb",): (2, 2), ("x), ts 1",): (3, 3)}


def test_what_the_tool_prints_beside_its_output_is_no_damage(tmp_path: Path) -> None:
    made = tmp_path / "sorted.txt"
    made.write_text("loaded 2\nsorting ....\nculling\n" + NEW.read_text())
    assert sums(made) == (6_838_794, 890_908)
    assert pageowner.read(made).meta.counters["damaged"] == 0


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"), lambda text: "> " + text.replace("\n", "\n> "),
    lambda text: "    " + text.replace("\n", "\n    "),
    lambda text: "[   12.345678] " + text.replace("\n", "\n[   12.345679] ")])
@pytest.mark.parametrize("name", ["sorted-old-times.txt", "sorted-culled.txt"])
def test_sorted_text_that_was_mailed_or_logged_is_read(
        tmp_path: Path, name: str, change: Callable[[str], str]) -> None:
    made = tmp_path / "sorted.txt"
    made.write_bytes(change((TEXTS / name).read_text().rstrip("\n") + "\n").encode())
    assert sums(made) == sums(TEXTS / name)
    assert pageowner.read(made).meta.counters["damaged"] == 0


def pieces_of(text: bytes) -> int:
    """Titles, and records that have none in front of them."""
    kinds = [bool(title) for title in re.findall(
        rb"^(?:(\d+ times)(?:, \d+ pages|:\s?Page)|Page allocated via order )", text, re.MULTILINE)]
    return sum(title or not before for before, title in zip([False, *kinds], kinds, strict=False))


@pytest.mark.parametrize("words", [(), ("--cull=st",), ("--cull=n",)])
def test_groups_and_damage_are_all_that_was_there(tmp_path: Path, words: Sequence[str]) -> None:
    """However a text is cut, joined and overwritten, no group is lost without being counted."""
    whole = sorted_by(tmp_path, *words).read_bytes()
    whole = whole[:whole.rfind(b"\n", 0, 24_000) + 1]
    in_whole = len(parse_whole(whole, tmp_path / "whole.txt").line)
    seen = 0
    for text, opened in opened_damaged(whole, random.Random(7), b"\n :0times,",
                                       tmp_path / "damaged.txt"):
        groups = parse(opened)
        found, there = len(groups.line), pieces_of(text)
        assert found + groups.damaged >= there, text
        unknown = sum(groups.bodies[place].unknown for place in groups.body)
        if found != in_whole:
            seen += 1
            assert groups.damaged or unknown or there < pieces_of(whole)
    assert seen > 50


def parse_whole(text: bytes, path: Path) -> SortedGroups:
    path.write_bytes(text)
    with open_source(path) as opened:
        return parse(opened)


def test_damage_is_said_with_its_place(tmp_path: Path) -> None:
    made = tmp_path / "sorted.txt"
    text = NEW.read_text()
    made.write_text(text + "99999999999999999 times:\nPage allocated via order 0\n f+0x1/0x2\n\n")
    status, out, error = run("report", made, "--json")
    assert status == 0
    assert json.loads(out)["counters"]["damaged"] == 1
    assert f"1 damaged record skipped; the first at byte {len(text)}" in error
    made.write_text("0 times, 5 pages:\n f+0x1/0x2\n\n")
    status, out, error = run("report", made)
    assert status == 1
    assert not out
    assert "contains no complete group of page_owner_sort" in error


@pytest.mark.parametrize("words", [("map",), ("frag",), ("frag", "--order", "9"), ("dump",),
                                   ("who", "12", "--source"), ("sort",)])
def test_questions_about_pages_are_refused_in_one_line(words: Sequence[str]) -> None:
    status, out, error = run(*words, NEW, *(["-"] if words == ("sort",) else []))
    assert status == 1, words
    assert not out, words
    assert error.count("\n") == 1
    assert "page_owner_sort output" in error


def test_a_saved_snapshot_keeps_its_groups(tmp_path: Path) -> None:
    made = tmp_path / "groups.parquet"
    for source in (NEW, TEXTS / "sorted-culled.txt"):
        status, _, error = run("save", made, source)
        assert status == 0
        assert f"{pageowner.read(source).blocks:,} blocks" in error
        assert sums(made) == sums(source)
        assert pageowner.diff(source, made).changes.num_rows == 0
        with pytest.raises(PageownerError, match="page_owner_sort output"):
            pageowner.map(made)


def test_an_older_pageowner_refuses_groups_rather_than_to_misread_them(tmp_path: Path) -> None:
    from pageowner.model.metadata import Metadata
    from pageowner.model.saved_metadata import decode

    text = pageowner.read(NEW).meta.to_json()
    with pytest.raises(PageownerError, match="upgrade pageowner"):
        decode(text, 1)
    decode(Metadata(kind="page_owner").to_json(), 1)


def test_every_output_has_the_same_sums(tmp_path: Path) -> None:
    whole = 6_838_794
    assert json.loads(run("report", NEW, "--json")[1])["pages"] == whole
    (row,) = pageowner.query("SELECT sum(pages), sum(bytes), sum(blocks) FROM pages", NEW).rows()
    assert row == (whole, whole * 4096, 890_908)
    folded = run("export", NEW, "--format", "folded", "--unit", "pages", "-o", "-")[1]
    assert sum(int(line.rsplit(" ", 1)[1]) for line in folded.splitlines()) == whole
    stacks = run("stacks", NEW)[1]
    assert sum(map(int, re.findall(r"nr_base_pages: (\d+)", stacks))) == whole
    graph = pageowner.flame(NEW)
    assert int(graph.chains.after.sum()) == whole


def test_first_lines_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    made = tmp_path / "sorted.txt"
    record = ("1 times, 1 pages, allocated by OTHERS :\nPage allocated via order 0, mask 0x1(A),"
              " pid {0}, tgid {0} (a\n{1}), ts {2} ns\n f+0x1/0x2\n\n")
    made.write_text("".join(record.format(7, name, ts)
                            for name, ts in (("x", 5), ("y", 6), ("x", 7), ("b), ts 9 ns\n", 8))))
    rows = pageowner.read(made).table.select(["comm", "ts_ns"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("a\nx", 5), ("a\ny", 6), ("a\nx", 7), ("a\nb), ts 9 ns\n", 8)]


def test_numbers_that_no_task_has_are_damage(tmp_path: Path) -> None:
    made = tmp_path / "sorted.txt"
    made.write_text("3 times, 3 pages, PID 4294967296\n4 times, 4 pages, PID 5\n"
                    "1 times, 1 pages:\nPage allocated via order 99, mask 0x1(A)\n f+0x1/0x2\n\n")
    found = pageowner.read(made)
    assert (found.pages, found.meta.counters["damaged"]) == (4, 2)
