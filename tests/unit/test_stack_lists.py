"""page_owner_stacks as a source, and the stacks of handles."""

from __future__ import annotations

import json
import lzma
import random
import re
import shutil
from pathlib import Path

import pytest
from asking import pages_by, run
from damage import opened_damaged

import pageowner
from pageowner.errors import PageownerError
from pageowner.sources.handles import using
from pageowner.sources.page_owner_stack_lists import read

TEXTS = Path(__file__).parents[1] / "data" / "texts"
DUMP = TEXTS.parent / "6.12-fragmented"
LIST, HANDLES = TEXTS / "show-stacks.txt", TEXTS / "show-handles.txt"
NAMES = TEXTS / "show-stacks-handles.txt"


def test_a_list_of_stacks_has_the_pages_of_each() -> None:
    assert pages_by(LIST, "subsystem") == {"page cache": 9643, "slab: sockets": 16}
    assert pages_by(HANDLES) == {"handle 27000838": 9643, "handle 8388619": 16}
    listed = pageowner.read(DUMP / "show_stacks.txt.xz")
    text = lzma.decompress((DUMP / "show_stacks.txt.xz").read_bytes()).decode()
    assert listed.pages == sum(map(int, re.findall(r"nr_base_pages: (\d+)", text)))
    assert listed.table.num_rows == text.count("nr_base_pages") == 431


def test_a_list_agrees_with_the_dump_of_the_same_time() -> None:
    dump = pageowner.read(DUMP / "page_owner.txt.xz").select(state="owned")
    changes = pageowner.diff(DUMP / "show_stacks.txt.xz", dump).changes
    # Other processes were at work, says the README of the data: of 195,705 pages 825.
    assert sum(changes["gained"].to_pylist() + changes["lost"].to_pylist()) <= 825


@pytest.mark.parametrize("front", ["$ sudo cat show_stacks\n", "Top stacks:\nof today\n"])
def test_a_prompt_or_heading_above_a_stack_is_no_frame(tmp_path: Path, front: str) -> None:
    path = tmp_path / "list.txt"
    for text in (LIST.read_text(), LIST.read_text()[1:]):  # of which the first blank was lost, too
        path.write_text(front + text)
        assert sorted(pageowner.read(path).table["stack"].to_pylist()) == sorted(
            pageowner.read(LIST).table["stack"].to_pylist())
        number = front.count("\n")
        assert (f"{number} line{'s' * (number > 1)} above stacks left out: no frames"
                in run("report", path)[2])
    path.write_text("f\ng+0x1/0x2\nnr_base_pages: 1\n\n")  # trimmed
    assert pageowner.read(path).table["stack"].to_pylist() == ["f\ng+0x1/0x2"]


def test_how_many_allocations_is_not_made_up() -> None:
    status, text, _ = run("report", LIST)
    assert status == 0
    assert "37.7 MiB in 9,659 pages; 2 owners" in text
    assert "BLOCKS" not in text
    found = json.loads(run("report", LIST, "--json")[1])
    assert found["blocks"] is found["owners"][0]["blocks"] is None
    (sums,) = pageowner.query("SELECT sum(pages), sum(blocks) FROM pages", LIST).rows()
    assert sums == (9659, None)
    status, _, error = run("export", LIST, "--format", "folded", "--unit", "blocks")
    assert status == 1
    assert "does not count blocks" in error
    (row,) = json.loads(run("diff", HANDLES, LIST, "--json")[1])["changes"][:1]
    assert row["blocks_before"] is None


def test_early_lists_count_allocations(tmp_path: Path) -> None:
    made = tmp_path / "show_stacks"
    made.write_text(" f+0x1/0x2\n g+0x1/0x2\nstack_count: 5\n\n h+0x1/0x2\nstack_count: 6"
                    " curr_nr_base_pages: 60\n\n")
    with pytest.raises(PageownerError, match="list of stacks"):
        pageowner.map(made)
    found = pageowner.read(made)
    assert (found.pages, found.blocks) == (65, 11)
    made.write_text(" f+0x1/0x2\nstack_count: 5\n\n")
    assert "sizes are the least they can be" in run("report", made)[2]
    assert pageowner.read(made).meta.counters["sizes_unknown"] == 1


def test_the_folder_is_a_source(tmp_path: Path) -> None:
    shutil.copy(LIST, tmp_path / "show_stacks")
    shutil.copy(HANDLES, tmp_path / "show_handles")
    shutil.copy(NAMES, tmp_path / "show_stacks_handles")
    assert pages_by(tmp_path) == pages_by(LIST)
    (tmp_path / "show_stacks").unlink()
    assert pages_by(tmp_path, "frame") == {"page_cache_ra_unbounded": 9643, "do_sys_openat2": 16}
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(PageownerError, match="without captures"):
        pageowner.read(tmp_path)


def test_the_list_of_handles_alone_has_no_pages() -> None:
    status, out, error = run("report", NAMES)
    assert status == 1
    assert not out
    assert "--handles" in error
    assert error.count("\n") == 1


def test_records_with_handles_stay_apart(tmp_path: Path) -> None:
    two = TEXTS / "two-handles.txt"
    assert pages_by(two) == {"handle 27000838": 4, "handle 27000999": 1}
    assert pageowner.read(two).report(by="stack")["pages"].to_pylist() == [4, 1]
    assert pages_by(two, "subsystem") == {None: 5}
    status, out, error = run("report", two, "--json")
    assert status == 0
    assert "2 stacks known only by handle" in error
    assert "--handles FILE" in error
    assert json.loads(out)["counters"]["unknown_handles"] == 2
    assert int(pageowner.flame(two).chains.after.sum()) == 5
    assert "handle 27000838" in pageowner.flame(two).chains.names
    saved = tmp_path / "two.parquet"
    pageowner.read(two).save(saved)
    assert pages_by(saved) == pages_by(two)
    assert pageowner.diff(two, saved).changes.num_rows == 0
    assert run("stacks", two)[1].splitlines()[:2] == ["handle: 27000838", "nr_base_pages: 4"]
    assert "handle 27000838, of an unknown stack" in run("report", two, "--full")[1]
    assert run("dump", two)[1] == two.read_text()


@pytest.mark.parametrize("where", ["page_owner_stacks/show_stacks_handles", "show_stacks_handles",
                                   "given"])
def test_handles_are_joined_with_their_stacks(tmp_path: Path, where: str) -> None:
    dump = tmp_path / "page_owner"
    shutil.copy(TEXTS / "two-handles.txt", dump)
    (tmp_path / where).parent.mkdir(exist_ok=True)
    shutil.copy(NAMES, tmp_path / where)
    given = str(tmp_path / where) if where == "given" else None
    with using(given):
        assert pages_by(dump, "subsystem") == {"page cache": 4, None: 1}
        assert pages_by(pageowner.read(dump), "subsystem") == {"page cache": 4, None: 1}
    status, out, error = run("report", dump, "--json", *(["--handles", given] if given else []))
    assert status == 0
    counters = json.loads(out)["counters"]
    assert (counters["joined_handles"], counters["unknown_handles"]) == (1, 1)
    assert "1 handle replaced by the stacks in show_stacks_handles" in error


def test_a_list_for_handles_that_cannot_be_read_is_an_error() -> None:
    status, _, error = run("report", TEXTS / "two-handles.txt", "--handles", "/nonexistent")
    assert status == 1
    assert "/nonexistent" in error


def test_through_handles_is_the_same_as_through_stacks(tmp_path: Path) -> None:
    """A real dump with its stacks replaced by handles, joined again, and its own words."""
    text = lzma.decompress((TEXTS.parent / "6.1-sample" / "page_owner.txt.xz").read_bytes())
    numbers: dict[bytes, int] = {}

    def handle(found: re.Match[bytes]) -> bytes:
        return b"handle: %d\n" % numbers.setdefault(found[0], 1000 + len(numbers))

    (tmp_path / "dump").write_bytes(re.sub(rb"(?m)(?:^ .*\n)+", handle, text))
    (tmp_path / "show_stacks_handles").write_bytes(
        b"".join(b"%shandle: %d\n\n" % pair for pair in numbers.items()))
    (tmp_path / "whole").write_bytes(text)
    for key in ("stack", "subsystem", "state", "comm"):
        assert pages_by(tmp_path / "dump", key) == pages_by(tmp_path / "whole", key)


def test_stacks_and_damage_are_all_that_was_there(tmp_path: Path) -> None:
    whole = lzma.decompress((DUMP / "show_stacks.txt.xz").read_bytes())
    whole = whole[:whole.index(b"\n\n", 20_000) + 2]
    lost = 0
    for text, opened in opened_damaged(whole, random.Random(5), b"\n :0nr_base",
                                       tmp_path / "damaged"):
        snapshot = read(opened)
        there = len(re.findall(rb"^nr_base_pages: \d{1,15}\s*$", text, re.MULTILINE))
        skipped = snapshot.meta.counters["damaged"]
        assert snapshot.table.num_rows + skipped >= there
        counts = sum(map(int, re.findall(rb"^nr_base_pages: (\d{1,15})\s*$", text, re.MULTILINE)))
        assert snapshot.pages == counts or skipped, text
        lost += skipped
    assert lost > 20
