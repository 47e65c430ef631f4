"""The words of ``pageowner who``: frames, ranges as people and the kernel write them."""

from __future__ import annotations

import json
import mmap
import struct
from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner.api.who import frames_of
from pageowner.errors import PageownerError, UsageError
from pageowner.kernel.pagemap import frame_of
from pageowner.model.snapshot import Metadata, Snapshot
from pageowner.report.page_view import document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done


@pytest.fixture
def saved(sample61: Snapshot, tmp_path: Path) -> str:
    path = str(tmp_path / "s.parquet")
    sample61.save(path)
    return path


@pytest.mark.parametrize("word", ["{0}-{1}", "{0:#x}-{1:#x}", "[{0:x}, {2:x})", "[{0:x},{2:x})"])
def test_ranges(sample61: Snapshot, saved: str, cli: Callable[..., Done], word: str) -> None:
    pfns = sorted(sample61.table["pfn"].to_pylist())
    first, last = pfns[3], pfns[8]
    text = word.format(first, last, last + 1)
    (said,) = json.loads(cli("who", text, "-s", saved, "--json").out)
    assert (said["first"], said["last"]) == (first, last)
    assert sorted(block["pfn"] for block in said["blocks"]) == pfns[3:9]
    told = cli("who", text, "-s", saved).out.decode()
    assert f"pfn {first:#x} to {last:#x}, both included" in told
    assert f"{pfns[5]:#x} " in told
    assert "and 4 blocks more" in cli("who", text, "-s", saved, "--top", "2").out.decode()
    (said,) = json.loads(cli("who", text, "-s", saved, "--top", "2", "--json").out)
    assert [block["pfn"] for block in said["blocks"]] == pfns[3:5]


def test_a_capture_is_not_told_the_flags_that_pages_of_this_machine_have_now(
        tmp_path: Path) -> None:
    Snapshot.from_columns({"pfn": [9], "order": [0]}, Metadata(kind="tracker")).save(
        tmp_path / "capture.parquet")
    (found,) = pageowner.who(1, source=tmp_path / "capture.parquet")
    assert (found.blocks, found.page_flags) == ([], None)


@pytest.mark.parametrize(("words", "names"), [
    ([1 << 10 | 1 << 20], ["buddy", "nopage"]), ([0], []), ([], ["nopage"]), (None, None)])
def test_programs_are_told_what_a_page_without_an_owner_is(
        words: list[int] | None, names: list[str] | None) -> None:
    assert document(5, [], None, words) == {
        "pfn": 5, "blocks": [], "last_free": None, "page_flags": names}


@pytest.mark.parametrize(("words", "why"), [
    (["5-3"], "ends before it begins"), (["1-2-3"], "not a page frame number"),
    (["[10, 10)"], "ends before it begins"), (["[zz, 10)"], "not a page frame number"),
    (["-s", "x"], "name a page frame"), (["--virt", "1"], "not an address of a process"),
    (["--virt", "1:zz"], "not an address"), (["--phys", "-4"], "not an address"),
    (["--virt", "1:0x1000", "-s", "x"], "--virt asks this machine"),
    (["--virt", "4194305000:0x1000"], "there is no process")])
def test_what_cannot_be_is_told(cli: Callable[..., Done], words: list[str], why: str) -> None:
    done = cli("who", *words)
    assert done.status in (1, 2)
    assert why in done.err.decode()
    assert done.err.count(b"\n") == 1


def test_a_physical_address_of_a_dump(sample61: Snapshot, saved: str,
                                      cli: Callable[..., Done]) -> None:
    pfn = sample61.table["pfn"][7].as_py()
    (said,) = json.loads(cli("who", "--phys", hex(pfn * 4096 + 5), "-s", saved, "--json").out)
    assert said["pfn"] == pfn
    assert said["blocks"]


@pytest.mark.parametrize(("word", "found"), [
    (1 << 63 | 0x1234, 0x1234), (1 << 63 | 1 << 61 | 1 << 55 | 7, 7),
    (1 << 62 | 99, "swapped out"), (0, "no page is there"), (1 << 63, "only to root")])
def test_words_of_pagemap(tmp_path: Path, word: int, found: int | str) -> None:
    (tmp_path / "9").mkdir()
    (tmp_path / "9/pagemap").write_bytes(bytes(8 * 3) + struct.pack("<Q", word))
    address = 3 * mmap.PAGESIZE + 5
    if isinstance(found, int):
        assert frame_of(9, address, str(tmp_path)) == found
        return
    with pytest.raises(PageownerError, match=found):
        frame_of(9, address, str(tmp_path))


@pytest.mark.parametrize(("text", "frames"), [
    ("4096", (0x1000, 0x1000)), ("0x1000", (0x1000, 0x1000)), ("0x1000-0x1007", (0x1000, 0x1007)),
    ("[1000, 1008)", (0x1000, 0x1007)), ("[0x1000, 0x1008)", (0x1000, 0x1007))])
def test_frames_are_written_as_people_and_the_kernel_do(text: str, frames: tuple[int, int]) -> None:
    assert frames_of(text) == frames


def test_a_file_among_the_frames_is_told_how_to_name_it(some_records: Path) -> None:
    with pytest.raises(UsageError, match="a source is named with -s"):
        frames_of(str(some_records))
