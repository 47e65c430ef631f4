"""Series that do not say when they were taken: dumps of kernels before 5.11, lists of stacks."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_leaks import Machine, S

import pageowner
from pageowner.analysis.leaks import of_snapshots
from pageowner.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600
RECORD = """\
Page allocated via order 0, mask 0x280da
PFN {pfn} Block {block} type 2          Flags   RU LA
 [<ffffffff81000000>] __alloc_pages_nodemask+0x1de/0xb00
 [<ffffffffa0001000>] {function}

"""


def dumps(folder: Path, *, spacing: float = HOUR) -> list[Path]:
    """Of a driver that leaks 100 pages from each to the next, and of a cache that varies."""
    made = []
    for number in range(6):
        owners = [("leaky_populate+0x1/0x2 [drv]", 300 + 100 * number),
                  ("coming_and_going+0x1/0x2", 5000 + (-1) ** number * 900)]
        path = folder / f"old-{number}.txt"
        pfn, text = 4096, []
        for function, pages in owners:
            for _ in range(pages):
                text.append(RECORD.format(pfn=pfn, block=pfn >> 9, function=function))
                pfn += 1
        path.write_text("".join(text))
        os.utime(path, (10**9 + spacing * number,) * 2)
        made.append(path)
    return made


def test_the_times_of_files_are_taken(tmp_path: Path) -> None:
    found = pageowner.leaks(*dumps(tmp_path), least="1")
    assert found.watched.times_from == "the files"
    assert found.watched.seconds == 5 * HOUR
    (leak,) = [row for row in found.owners.to_pylist() if row["kind"] == "leak"]
    assert "leaky_populate" in leak["stack"]
    assert (leak["gained"], round(leak["rate"])) == (500, 100)
    assert leak["survival"] is None


def test_the_caller_says_how_far_apart_they_are(tmp_path: Path) -> None:
    found = pageowner.leaks(*dumps(tmp_path, spacing=0), every="30m", least="1")
    assert (found.watched.times_from, found.watched.seconds) == ("--every", 5 * HOUR / 2)
    assert [round(row["rate"]) for row in found.owners.to_pylist()
            if row["kind"] == "leak"] == [200]


@pytest.mark.parametrize("spacing", [0, 0.002, 0.9])
def test_files_of_one_time_are_refused_with_what_to_do(tmp_path: Path, spacing: float) -> None:
    """So are those that a copy has made within a second."""
    with pytest.raises(UsageError, match=r"old-1.txt: .* give the time between two: --every"):
        pageowner.leaks(*dumps(tmp_path, spacing=spacing))


def test_lists_of_stacks_are_a_series(tmp_path: Path) -> None:
    made = []
    for number in range(5):
        path = tmp_path / f"show_stacks.{number}"
        path.write_text(" leaky+0x1/0x2\n vfs_write+0x1/0x2\n"
                        f"nr_base_pages: {1000 + 300 * number}\n"
                        "\n still+0x1/0x2\nnr_base_pages: 5000\n\n")
        os.utime(path, (10**9 + HOUR * number,) * 2)
        made.append(path)
    found = pageowner.leaks(*made)
    assert [(row["kind"], row["gained"], round(row["rate"])) for row in found.owners.to_pylist()
            ] == [("leak", 1200, 300)]


def test_what_has_times_is_not_told_others(tmp_path: Path) -> None:
    made = []
    for number in range(4):
        path = tmp_path / f"new-{number}"
        path.write_text("Page allocated via order 0, mask 0x0(), pid 1, tgid 1 (a), ts "
                        f"{(number + 1) * 10**9} ns\n f+0x1/0x2\n\n")
        made.append(path)
    for every in (None, "10m"):
        watched = pageowner.leaks(*made, every=every).watched
        assert (watched.times_from, watched.seconds) == ("", 3)


def test_where_times_are_from_is_shown(tmp_path: Path, cli: object) -> None:
    made = dumps(tmp_path)
    assert b"times from the files" in cli("leaks", *made).out  # type: ignore[operator]
    found = json.loads(cli("leaks", *made, "--json").out)  # type: ignore[operator]
    assert found["times_from"] == "the files"


def test_a_file_of_the_kernel_is_recorded_as_a_series(tmp_path: Path) -> None:
    """Lists of stacks are small, and say neither machine nor time: a recording does."""
    lists, folder = tmp_path / "page_owner_stacks", tmp_path / "recorded"
    lists.mkdir()
    taken = pageowner.record(folder, every="1s", keep="1h", count=4, source=lists)
    for number in range(4):
        (lists / "show_stacks").write_text(
            f" leaky+0x1/0x2\n vfs_write+0x1/0x2\nnr_base_pages: {1000 + 300 * number}\n\n"
            " still+0x1/0x2\nnr_base_pages: 5000\n\n")
        assert next(taken).path is not None
    found = pageowner.leaks(folder)
    assert [(row["kind"], row["gained"]) for row in found.owners.to_pylist()] == [("leak", 900)]
    assert found.watched.times_from == ""
    assert found.watched.seconds > 2
    newest = pageowner.read(folder)
    assert newest.pages == 6900
    assert newest.meta.boot_id is not None
    assert newest.meta.host is not None


def test_pages_of_no_known_time_are_settled_from_the_first_look_on() -> None:
    """Also on a machine that has run for less than pages need to settle."""
    machine, day = Machine(), 86400
    machine.add(None, np.zeros(10_000), 1e9)
    machine.add(None, [day / 2], 1e9)
    looks = [machine.at(second) for second in range(0, day + 1, day // 12)]
    (found,) = of_snapshots(looks, "stack", day * S).leaks(1).to_pylist()
    assert found["settled_series"] == found["series"] == [10_000] * 6 + [10_001] * 7
