"""/proc/allocinfo as a source: bytes by line of the kernel's code."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest
from asking import pages_by as bytes_by
from asking import run
from damage import opened_damaged

import pageowner
from pageowner.errors import PageownerError
from pageowner.sources.allocinfo import read
from pageowner.sources.allocinfo_restoring import restored
from pageowner.sources.restoring import note

TEXTS = Path(__file__).parents[1] / "data" / "texts"
OLD, NEW = TEXTS / "allocinfo-1.0.txt", TEXTS / "allocinfo-2.0.txt"
WHOLE = 70_747_000  # bytes in OLD, added up by awk


def test_each_line_of_code_has_its_bytes_and_calls() -> None:
    found = json.loads(run("report", OLD, "--json")[1])
    assert (found["bytes"], found["pages"], found["blocks"]) == (WHOLE, None, 38_231)
    first = found["owners"][0]
    assert first["stack"] == ["mm/filemap.c:1951", "__filemap_get_folio"]
    assert (first["bytes"], first["blocks"], first["pages"]) == (39_497_728, 9643, None)
    assert len(found["owners"]) == 10  # two lines hold nothing
    assert bytes_by(OLD, "module") == {
        "vmlinux": WHOLE - (1 << 20) - 376, "e1000e": 1 << 20, "xfs": 376}
    assert bytes_by(OLD, "subsystem")["page cache"] == 39_497_728


def test_two_lines_of_one_function_are_two_owners() -> None:
    lines = {stack.split("\n")[0]: size for stack, size in bytes_by(OLD).items()}
    assert lines["fs/xfs/xfs_log_cil.c:1775 [xfs]"] == 40
    assert lines["fs/xfs/xfs_log_cil.c:1801 [xfs]"] == 320


def test_the_table_says_bytes_and_calls() -> None:
    status, text, _ = run("report", OLD)
    assert status == 0
    assert "67.5 MiB in 38,231 calls; 10 owners" in text
    assert "CALLS" in text
    assert "PAGES" not in text
    assert "Objects of slabs count twice" in text


def test_what_the_kernel_marks_as_inaccurate_is_said() -> None:
    status, out, error = run("report", NEW, "--json")
    assert status == 0
    assert json.loads(out)["counters"]["inaccurate"] == 3
    assert "3 lines of code counted too low" in error


def test_a_diff_is_in_bytes() -> None:
    status, out, _ = run("diff", OLD, NEW, "--fail-over", "1MiB", "--json")
    assert status == 3
    found = json.loads(out)
    (row,) = found["changes"]
    assert (row["bytes_before"], row["bytes_after"], row["bytes"]) == (
        39_497_728, 60_469_248, 20 << 20)
    assert (row["pages_before"], row["gained"], row["blocks_after"]) == (None, None, 14_763)
    assert (found["bytes_gained"], found["before"]["bytes"]) == (20 << 20, WHOLE)
    assert "+20 MiB" in run("diff", OLD, NEW)[1]
    with pytest.raises(PageownerError, match="cannot be compared with pages"):
        pageowner.diff(OLD, TEXTS / "show-stacks.txt")


def test_the_other_verbs_give_the_same_sum(tmp_path: Path) -> None:
    (row,) = pageowner.query("SELECT sum(bytes), sum(pages), sum(blocks) FROM pages", OLD).rows()
    assert row == (WHOLE, None, 38_231)
    folded = run("export", OLD, "--format", "folded")[1]
    assert sum(int(line.rsplit(" ", 1)[1]) for line in folded.splitlines()) == WHOLE
    assert "xlog_cil_init [xfs];fs/xfs/xfs_log_cil.c:1801 [xfs] 320" in folded.splitlines()
    scope = tmp_path / "scope.json"
    pageowner.export(OLD, scope, "speedscope")
    names = [one["name"].split()[0] for one in json.loads(scope.read_text())["profiles"]]
    assert names == ["bytes", "blocks"]
    pageowner.flame(OLD).save_svg(tmp_path / "lines.svg")
    drawn = (tmp_path / "lines.svg").read_text()
    assert "mm/filemap.c:1951: 37.7 MiB, 55.8 %" in drawn
    saved = tmp_path / "lines.parquet"
    pageowner.read(OLD).save(saved)
    assert bytes_by(saved) == bytes_by(OLD)
    for words in (("map",), ("frag",), ("dump",), ("stacks",)):
        status, out, error = run(*words, saved)
        assert (status, out, error.count("\n")) == (1, "", 1), words
    with pytest.raises(PageownerError, match="counts bytes, not pages"):
        pageowner.read(OLD, page_size=1 << 16)


def test_lines_that_grow_leak(tmp_path: Path) -> None:
    made = []
    for number in range(5):
        path = tmp_path / f"allocinfo.{number}"
        path.write_text(OLD.read_text().replace("    2936832    22944",
                                                f"{2936832 + (number << 21):12} {22944:8}"))
        os.utime(path, (10**9 + 3600 * number,) * 2)
        made.append(path)
    (leak,) = pageowner.leaks(*made).owners.to_pylist()
    assert leak["stack"].endswith("__kernfs_new_node")
    assert (leak["kind"], leak["gained"], round(leak["rate"])) == ("leak", 8 << 20, 2 << 20)


def test_sorted_and_rounded_lines_are_read_and_said(tmp_path: Path) -> None:
    """As the kernel's documentation shows them: sort -g /proc/allocinfo | tail | numfmt --to=iec"""
    made = tmp_path / "tail"
    made.write_text("        2.8M    22648 fs/kernfs/dir.c:615 func:__kernfs_new_node \n"
                    "         55M     4887 mm/slub.c:2259 func:alloc_slab_page \n")
    found = pageowner.read(made)
    assert found.pages == int(2.8 * (1 << 20)) + (55 << 20)
    assert found.meta.counters["rounded"] == 2
    assert "2 lines of code were rounded" in run("report", made)[2]


def test_an_unknown_version_is_said(tmp_path: Path) -> None:
    made = tmp_path / "new"
    made.write_text(OLD.read_text().replace("version: 1.0", "version: 3.0"))
    status, _, error = run("report", made)
    assert status == 0
    assert "version 3.0 of the format, which is not known" in error
    made.write_text("allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n")
    assert run("report", made)[0] == 1


def test_lines_and_damage_are_all_that_was_there(tmp_path: Path) -> None:
    lost = 0
    line = re.compile(rb"^ *(\d{1,15}) +(\d{1,15}) +[^\s:]+:\d+ (\[\S+\] )?func:\S+"
                      rb"( accurate:no)? *$", re.MULTILINE)
    for text, opened in opened_damaged(NEW.read_bytes(), random.Random(3), b"\n :0func",
                                       tmp_path / "damaged"):
        try:
            found = read(opened)
        except PageownerError:
            continue
        note(found.meta, opened)
        # A line that is broken in two as mail breaks it is read, and that is said.
        if "lines wrapped" in found.meta.extra.get("undone", []):
            text = restored(text)[0]
        there = line.findall(text)
        assert found.pages == sum(int(size) for size, *_ in there)
        others = [one for one in text.split(b"\n") if one.strip() and not line.match(one)
                  and not re.match(rb"allocinfo - version: [12]\.0\s*$|#     <size>  <calls> <tag "
                                   rb"info>\s*$", one)]
        assert found.meta.counters["damaged"] == len(others), text
        lost += len(others)
    assert lost > 300
