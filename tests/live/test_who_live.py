"""``pageowner who``: what it says of a frame is what a whole capture says."""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pageowner.analysis.lookup import covering
from pageowner.cli import main
from pageowner.kernel import few_symbols
from pageowner.kernel.pagemap import frame_of
from pageowner.model.schema import SAVED
from pageowner.model.snapshot import Snapshot
from pageowner.tracker import control
from pageowner.tracker.read import single
from pageowner.tracker.read.capture import capture, capture_near

pytestmark = pytest.mark.usefixtures("tracking")


def who(*words: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "pageowner", "who", *words, "--json"],
                          stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout)


@pytest.fixture
def held() -> Any:
    """Touched memory of this process, and its address."""
    import ctypes

    memory = mmap.mmap(-1, 64 * mmap.PAGESIZE)
    for place in range(0, len(memory), mmap.PAGESIZE):
        memory[place] = 1
    view = ctypes.c_char.from_buffer(memory)
    yield ctypes.addressof(view)
    del view
    memory.close()


def rows(snapshot: Snapshot, pfn: int) -> list[dict[str, Any]]:
    found = snapshot.table.take(covering(snapshot, pfn)).to_pylist()
    for row in found:
        del row["page_flags"], row["memcg"], row["block_migratetype"]  # may change meanwhile
    return found


def test_an_address_is_the_page_behind_it(held: int) -> None:
    address = held + 5 * mmap.PAGESIZE + 17
    (said,) = who("--virt", f"{os.getpid()}:{address:#x}")
    pfn = frame_of(os.getpid(), address)
    (block,) = said["blocks"]
    assert said["pfn"] == pfn
    assert (block["tgid"], block["state"]) == (os.getpid(), "owned")
    (same,) = who("--phys", hex(pfn * mmap.PAGESIZE + 99))
    assert (same["pfn"], same["blocks"][0]["ts_ns"]) == (pfn, block["ts_ns"])


def test_near_a_frame_is_what_a_whole_capture_has(held: int) -> None:
    before = capture()
    chance = np.random.default_rng(3)
    first = before.table["pfn"].to_numpy()
    some = [int(pfn) for pfn in chance.choice(first, 300, replace=False)]
    some += [frame_of(os.getpid(), held + place * mmap.PAGESIZE) for place in range(64)]
    asked = capture_near([(pfn, pfn + 1) for pfn in some])
    before, after = (near(whole, some) for whole in (before, capture()))
    same = [pfn for pfn in some if rows(before, pfn) == rows(after, pfn)]
    assert len(same) > 200
    assert [rows(asked, pfn) for pfn in same] == [rows(before, pfn) for pfn in same]
    assert asked.table.num_rows < 2 * len(some)
    assert {rows(asked, pfn)[0]["state"] for pfn in same} >= {"owned", "early"}


def test_a_range_has_its_blocks_and_what_lies_between(held: int) -> None:
    pfn = frame_of(os.getpid(), held)
    first, last = pfn >> 9 << 9, (pfn >> 9 << 9) + 511
    (said,) = who(f"{first:#x}-{last:#x}")
    assert (said["first"], said["last"]) == (first, last)
    assert any(block["pfn"] == pfn and block["tgid"] == os.getpid() for block in said["blocks"])
    assert all(block["pfn"] <= last and block["pfn"] + (1 << block["order"]) > first
               for block in said["blocks"])
    (kernels,) = who(f"[{first:x}, {last + 1:x})")
    assert (kernels["first"], kernels["last"]) == (first, last)


def at_once_or_attached(pfn: int) -> list[single.Answer] | None:
    """What `single` says; where a second program turns out to be needed, once that is attached."""
    answer = single.look([pfn], SAVED)
    return single.look([pfn], SAVED) if answer is None and control.attend() else answer


def test_one_frame_at_once_is_what_a_whole_capture_has(
        held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a capture, whatever `single` answers, for frames of all kinds."""
    symbols = few_symbols.read()
    monkeypatch.setattr(few_symbols, "read", lambda: symbols)  # once, not for each frame
    before = capture()
    chance = np.random.default_rng(5)
    first = before.table["pfn"].to_numpy()
    some = [int(pfn) for pfn in chance.choice(first, 150, replace=False)]
    some += [frame_of(os.getpid(), held + place * mmap.PAGESIZE) for place in range(64)]
    large = before.select(state=("owned",), order=tuple(range(1, 11))).table
    some += [row["pfn"] + (1 << row["order"]) - 1 for row in large.slice(0, 100).to_pylist()]
    some += chance.integers(0, int(first[-1]), 100).tolist()  # free ones among them, and holes
    answers = {pfn: answer for pfn in some if (answer := at_once_or_attached(pfn))}
    after = capture()
    both = [near(before, list(answers)), near(after, list(answers))]
    same = [pfn for pfn in answers if rows(both[0], pfn) == rows(both[1], pfn)]
    for pfn in same:
        said, known = at_once(answers[pfn]), rows(both[0], pfn)
        # free both times, it may have been taken meanwhile, and given back
        assert said == known or (not known and said[0]["ts_ns"] > before.meta.clock_ns)
    assert len(same) > 150
    assert any(answer.row and answer.row["order"] for pfn in same for answer in answers[pfn])
    states = {row["state"] for pfn in same for [answer] in [answers[pfn]] if (row := answer.row)}
    assert states == {"owned", "early"}
    assert any(answer.row is None for pfn in same for answer in answers[pfn])


def near(snapshot: Snapshot, pfns: list[int]) -> Snapshot:
    """The rows in whose neighbourhood these frames are, which are quick to look through."""
    first = snapshot.table["pfn"].to_numpy().astype(np.int64)
    last = first + (np.int64(1) << snapshot.table["order"].to_numpy().astype(np.int64))
    wanted = np.sort(np.array(pfns))
    inside = np.searchsorted(wanted, first) < np.searchsorted(wanted, last)
    return Snapshot(snapshot.table.take(np.flatnonzero(inside)), snapshot.meta)


def at_once(answers: list[single.Answer]) -> list[dict[str, Any]]:
    found = [dict(answer.row) for answer in answers if answer.row is not None]
    for row in found:
        del row["page_flags"], row["memcg"], row["block_migratetype"]
    return found


def test_what_is_said_does_not_depend_on_the_way(held: int, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of a table and of JSON."""
    pfn = frame_of(os.getpid(), held + 3 * mmap.PAGESIZE)
    said: list[str] = []
    for more in ([], ["--json"]):
        for way in (lambda pfns, columns: None, single.look):
            monkeypatch.setattr(single, "look", way)
            assert main(["who", str(pfn), *more]) == 0
            said.append(re.sub(r"[\d.]+ m?s ago", "ago", capsys.readouterr().out))
    assert said[0] == said[1]
    assert said[2] == said[3]
    assert f"pid {os.getpid()}" in said[0]
