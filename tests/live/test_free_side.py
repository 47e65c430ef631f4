"""`on --free`: who freed a page last, in captures and in `who`."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from machine import mapped_frames

from pageowner.model.snapshot import Snapshot
from pageowner.tracker import control
from pageowner.tracker.read.capture import capture
from pageowner.tracker.read.last_free import last_frees
from pageowner.tracker.read.maps import open_store

PAGES = 1 << 16
TRIES = 20
"""Others take pages, and give them back, all the time, so that of pages that were freed a second
ago all may have had another owner since: then others are freed."""

HOLD = f"""
import mmap, sys, time
memory = mmap.mmap(-1, {PAGES} * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(15)  # MADV_NOHUGEPAGE
for at in range(0, len(memory), 4096):
    memory[at] = 1
import ctypes
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.readline()
import os
os._exit(0)
"""


@pytest.fixture
def tracking_frees() -> Iterator[None]:
    if control.is_on():
        pytest.skip("tracking is on on this machine; a test would have to turn it off")
    control.on(control.Options(free_side=True))
    try:
        yield
    finally:
        control.off()


def freed() -> tuple[int, list[int]]:
    """A process that has ended, and some page frames that it had until then, and that nobody had
    since when this was looked up."""
    for _ in range(TRIES):
        with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout
            start = int(holder.stdout.readline())
            pfns = mapped_frames(holder.pid, [(start, PAGES * mmap.PAGESIZE)])
            holder.communicate("\n")
        free = not_owned(capture(), np.sort(pfns))[::16].tolist()
        with open_store() as store:
            known = last_frees(store, free)
        his = [pfn for pfn, freed in known.items() if freed.tgid == holder.pid]
        if his and len(known) > 50:
            return holder.pid, his[::max(len(his) // 50, 1)]
    raise AssertionError("nothing is freed by whom it was freed")


def who(*pfns: int) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "pageowner", "who", *map(str, pfns), "--json"],
                          capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def not_owned(snapshot: Snapshot, pfns: np.ndarray) -> np.ndarray:
    first = snapshot.table["pfn"].to_numpy()
    pages = np.int64(1) << snapshot.table["order"].to_numpy().astype(np.int64)
    row = np.searchsorted(first, pfns, "right") - 1
    return pfns[(row < 0) | (pfns >= first[row] + pages[row].astype(np.uint64))]


@pytest.mark.usefixtures("bpf", "tracking_frees")
def test_a_free_page_says_who_freed_it() -> None:
    for _ in range(TRIES):
        pid, pfns = freed()
        status, said = who(*pfns)
        assert status == 0
        found = [page["last_free"] for page in json.loads(said)]
        his = [last for last in found if last and last["tgid"] == pid]
        for last in his:
            assert last["pid"] == pid
            assert last["comm"].startswith("python")
            assert any(frame.startswith("exit_mmap+") for frame in last["stack"]), last["stack"]
        table = subprocess.run([sys.executable, "-m", "pageowner", "who", *map(str, pfns)],
                               capture_output=True, text=True)
        assert table.returncode == 0
        # "before that": the command itself may have taken the page that was freed last
        if his and re.search(r"^  (last freed|freed before that)"
                             rf" at \d+\.\d+ s after boot, .* ago, by pid {pid}, tid {pid} "
                             r"\(python.*\)\n( .*\n)*    exit_mmap\+", table.stdout,
                             re.MULTILINE):
            return
    raise AssertionError(table.stdout)


@pytest.mark.usefixtures("bpf")
def test_an_owned_page_says_when_it_was_freed_before() -> None:
    if control.is_on():
        pytest.skip("tracking is on on this machine; a test would have to turn it off")
    allowed = os.sched_getaffinity(0)
    control.on(control.Options(free_side=True))
    try:
        # On one CPU, whose own list of free pages gives first what it got last.
        os.sched_setaffinity(0, {min(allowed)})
        for _ in range(TRIES):
            start, before = touched(200)
            pfns = mapped_frames(os.getpid(), [(start, len(before))])
            del start
            before.close()
            _, memory = touched(1000)
            mine = capture().select(pid=os.getpid(), state="owned").table
            again = mine.filter(np.isin(mine["pfn"].to_numpy(), pfns))
            if again.num_rows > 50:  # nobody else was given them
                check_freed_before(again)
                return
            memory.close()
        raise AssertionError("others take all that is freed here")
    finally:
        os.sched_setaffinity(0, allowed)
        control.off()


def touched(pages: int) -> tuple[int, mmap.mmap]:
    """Anonymous memory, every page there; and where it begins."""
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(15)
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    return ctypes.addressof(ctypes.c_char.from_buffer(memory)), memory


def check_freed_before(again: pa.Table) -> None:
    assert again["free_ts_ns"].null_count == 0
    assert (again["free_ts_ns"].to_numpy() < again["ts_ns"].to_numpy()).all()
    _, said = who(*again["pfn"].to_pylist()[:20])
    for one in json.loads(said):
        assert one["last_free"]["ts_ns"] == one["blocks"][0]["free_ts_ns"]
    assert any(one["last_free"]["tgid"] == os.getpid() for one in json.loads(said))


@pytest.mark.usefixtures("bpf", "tracking")
def test_without_the_free_side_nothing_is_made_up() -> None:
    snapshot = capture()
    assert snapshot.table["free_ts_ns"].null_count == snapshot.table.num_rows
    status, said = who(1, int(snapshot.table["pfn"][0].as_py()))
    assert status == 1
    assert [one["last_free"] for one in json.loads(said)] == [None, None]
