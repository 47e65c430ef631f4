"""`top` on the running tracker: it counts what a capture counts, and ends as it should."""

from __future__ import annotations

import fcntl
import mmap
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from machine import Frees

from pageowner.analysis.filters import Filter
from pageowner.analysis.live import Live, question
from pageowner.analysis.owners import owners
from pageowner.errors import PageownerError
from pageowner.kernel import pageflags
from pageowner.model.hook_states import is_whole
from pageowner.model.live import Look
from pageowner.tracker import control
from pageowner.tracker.read.capture import capture
from pageowner.tracker.read.live import LiveReader
from pageowner.tracker.read.maps import open_store

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.fixture
def reader(tracking: None) -> Iterator[LiveReader]:
    with open_store() as store:
        yield LiveReader(store)


def mapped(size: int = SIZE) -> mmap.mmap:
    """Memory of this process alone, page by page in use."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    return memory


@contextmanager
def holder(name: bytes = b"holder") -> Iterator[int]:
    """A process that holds such memory and does nothing; its pid. (This one takes more while it
    looks.)"""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        with open("/proc/self/comm", "wb") as file:
            file.write(name)
        memory = mapped()
        os.write(tell, b"1")
        signal.pause()
        os._exit(len(memory) & 1)
    try:
        os.read(ready, 1)
        time.sleep(0.5)  # until it sleeps
        yield child
    finally:
        os.close(ready)
        os.close(tell)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def pages_of(look: Look, text: str, by: str) -> dict[object, int]:
    live = Live(by, question(text))
    live.add(look)
    return {row.label: row.pages for row in live.rows()[0]}


def test_what_a_process_takes_and_gives_back_is_seen(reader: LiveReader) -> None:
    live = Live("pid", question(f"pid={os.getpid()} subsystem='anonymous memory'"))
    live.add(reader.counts(live.needs()))
    memory = mapped()
    live.add(reader.counts(live.needs()))
    (row,) = live.rows()[0]
    pages = SIZE // mmap.PAGESIZE
    assert row.label == os.getpid()
    assert pages <= row.change < pages + 512
    # The count, back from its rate: dividing and multiplying may lose the last bit.
    assert round(row.allocs * live.seconds) >= pages
    memory.close()
    live.add(reader.counts(live.needs()))
    rows = live.rows("change")[0]
    assert not rows or abs(rows[0].change) < 512


def test_it_counts_what_a_capture_counts(reader: LiveReader) -> None:
    fields = {"order", "gfp", "migratetype", "zone", "node"}
    with holder() as child:
        chosen = f"pid={child} subsystem='anonymous memory'"
        found = reader.counts({"stack", "task", *fields})
        mine = capture().select(pid=child, subsystem="anonymous memory")
    for by in ("stack", "comm", "pid", *fields):
        seen = pages_of(found, chosen, by)
        expected = {row[by]: row["pages"] for row in owners(mine, by).to_pylist()}
        assert seen == expected, by
        assert sum(seen.values()) >= SIZE // mmap.PAGESIZE


def test_ages_are_filters_of_a_look(reader: LiveReader) -> None:
    with holder() as child:
        time.sleep(1.1)
        young = reader.counts({"stack", "task"}, *Filter(newer="1s").ages_ns())
        old = reader.counts({"stack", "task"}, *Filter(older="1s").ages_ns())
    chosen = f"pid={child} subsystem='anonymous memory'"
    assert pages_of(old, chosen, "pid")[child] >= SIZE // mmap.PAGESIZE
    assert pages_of(young, chosen, "pid") == {}


def test_charges_are_those_of_kpagecgroup(reader: LiveReader) -> None:
    if not os.path.exists(pageflags.KPAGECGROUP):
        pytest.skip("this kernel has no memory cgroups")
    fields = {"stack", "task", "memcg"}
    reader.counts(fields)
    with holder() as child:
        reader.counts(fields)
        time.sleep(2)
        again = reader.counts(fields)  # from what was kept
        mine = capture().select(pid=child, subsystem="anonymous memory")
    seen = pages_of(again, f"pid={child} subsystem='anonymous memory'", "memcg")
    assert seen == {row["memcg"]: row["pages"] for row in owners(mine, "memcg").to_pylist()}
    assert sum(seen.values()) >= SIZE // mmap.PAGESIZE


def test_memory_that_was_added_since_is_looked_at(reader: LiveReader) -> None:
    reader.counts({"stack", "task"})
    ranges, spans = reader.store.facts["ranges"], reader.store.spans
    # As if the first range had been covered since.
    assert reader.store._spans_known
    reader.store._spans_known = (ranges[1:], *reader.store._spans_known[1:])
    reader._health._attended_ns -= 60 * 10**9
    reader.counts({"stack", "task"})
    assert reader.store.facts["ranges"] == ranges
    assert reader.store.spans is not spans


def test_the_header_accounts_for_all_memory(reader: LiveReader) -> None:
    reader.counts({"stack", "task"})
    time.sleep(0.3)
    reader.counts({"stack", "task"})
    health = reader.health
    managed = sum(zone.managed for zone in reader.zones.zones)
    assert sum(health.pages.values()) == pytest.approx(managed, rel=0.01)
    status = control.status()
    assert health.hooks == sum(map(is_whole, status.hooks.values()))
    assert health.memory == status.memory_bytes
    assert health.allocs > 0
    for _ in range(20):
        reader.counts({"stack", "task"})
    assert 0 < health.checked < managed  # none of them twice
    try:
        freed_unseen = Frees().unseen()
    except PageownerError:  # the kernel does not count the pages that are freed
        return
    assert health.stale <= freed_unseen


class Terminal:
    """`pageowner top` on a terminal of its own."""

    def __init__(self, *words: str, errors_to: str | None = None) -> None:
        self.pid, self.file = pty.fork()
        if not self.pid:
            os.environ["TERM"] = "xterm-256color"
            if errors_to:
                os.dup2(os.open(errors_to, os.O_WRONLY | os.O_CREAT), 2)
            os.execv(sys.executable, [sys.executable, "-m", "pageowner", "top", *words])
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = b""

    def until(self, text: bytes, seconds: float = 60) -> bool:
        """Whether it is shown in time."""
        end = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < end:
            if select.select([self.file], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.file, 1 << 16)
                except OSError:
                    break
        return text in self.shown

    def press(self, keys: bytes) -> None:
        os.write(self.file, keys)

    def ended(self) -> int:
        """Exit status, once it has ended."""
        self.until(b"\0never", 60)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


RESTORED = b"\x1b[?1049l"


def test_q_quits_and_puts_the_terminal_back(tracking: None) -> None:
    terminal = Terminal("--every", "0.5")
    assert terminal.until(b"frees/s")
    assert terminal.until(b"MiB")
    terminal.press(b"t")
    assert terminal.until(b"task name")
    terminal.press(b"q")
    assert terminal.ended() == 0
    assert RESTORED in terminal.shown
    assert b"Traceback" not in terminal.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back(tracking: None, number: int) -> None:
    terminal = Terminal()
    assert terminal.until(b"owned")
    os.kill(terminal.pid, number)
    assert terminal.ended() == 128 + number
    assert RESTORED in terminal.shown
    assert b"Traceback" not in terminal.shown


def test_what_a_task_calls_itself_does_not_reach_the_terminal(tracking: None) -> None:
    with holder(b"\x1b[2J[bold]x") as child:
        terminal = Terminal("--by", "comm", "--pid", str(child), "--every", "0.5")
        assert terminal.until(b"[bold]")
        assert b"\\x1b[2J[bold]x" in terminal.shown
        terminal.press(b"q")
        assert terminal.ended() == 0
        assert b"\x1b[2J[bold]" not in terminal.shown


def test_the_screen_needs_all_of_the_terminal(tracking: None, tmp_path: object) -> None:
    terminal = Terminal(errors_to=f"{tmp_path}/errors")
    assert terminal.ended() == 2
    with open(f"{tmp_path}/errors") as file:
        assert "pageowner report" in file.read()


def test_off_while_it_runs_is_told_and_no_more(tracking: None) -> None:
    terminal = Terminal("--every", "0.3")
    assert terminal.until(b"owned")
    control.off()
    try:
        assert terminal.ended() == 1
    finally:
        control.on()
    told = terminal.shown.partition(RESTORED)[2]
    # broken between words where the terminal ends
    assert b" ".join(told.split()).endswith(
        b"pageowner: tracking was turned off while it was being read; start it with: sudo pageowner"
        b" on")
    assert b"Traceback" not in terminal.shown
