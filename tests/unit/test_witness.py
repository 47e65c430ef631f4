"""`record --on`: what happens is captured once, before memory is gone where that can be, and found
again by its name."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import pageowner
from pageowner.analysis.look_sums import grown, sums_by_stack, sums_of_look
from pageowner.errors import PageownerError, UsageError
from pageowner.model.live import Look
from pageowner.storage import witnessed
from pageowner.storage.recording import owned_folder
from pageowner.tracker.load.libbpf import BpfError
from pageowner.witness.conditions import Conditions, parse
from pageowner.witness.limits import Limits
from pageowner.witness.process import LiveLook, Witness, file_look
from pageowner.witness.signs import KernelLog, Memory, Pressure, Standing, sign_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
KILLED = (b"Out of memory: Killed process %d (%s) total-vm:1600000kB, anon-rss:163200kB,"
          b" file-rss:800kB, shmem-rss:0kB, UID:1000 pgtables:772kB oom_score_adj:0\n")


def test_events_are_read_from_words() -> None:
    assert parse("oom,psi,low=5%,order=4,growth=200MiB/10m") == Conditions(
        True, (150_000, 2_000_000), 0.05, 4, (200 * MIB, 600.0))
    assert parse("psi=1s/10s, low=512M") == Conditions(psi=(1_000_000, 10_000_000), low=512 * MIB)
    for wrong, why in (("", "no event ''"), ("loom", "did you mean 'oom'"), ("oom,oom", "twice"),
                       ("oom=1", "write oom"), ("low", "low=5%"), ("low=0%", "low=5%"),
                       ("low=100%", "low=5%"), ("low=x%", "low=5%"), ("psi=3s/2s", "psi=150ms/2s"),
                       ("psi=1s/1m", "psi=150ms/2s"), ("order=x", "order=4"), ("order=99", "4"),
                       ("growth=1M", "growth=200MiB/10m"), ("growth=1M/1s", "growth=200MiB/10m")):
        with pytest.raises(UsageError, match=re.escape(why)):
            parse(wrong)


def test_what_lasts_is_captured_ever_less_often() -> None:
    limits = Limits()
    taken = [now for now in range(3600) if limits.may("low", float(now))]
    assert taken[:6] == [0, 5, 15, 35, 75, 155]
    assert len(taken) <= 14
    assert limits.passed_over["low"] == 3600 - len(taken)
    assert limits.may("oom", 3600.0)  # another event
    assert limits.may("low", 3600.0 + 700)
    assert not limits.may("low", 3600.0 + 704)


def test_what_is_looked_for_rarely_is_captured_ever_less_often_too() -> None:
    limits = Limits()
    taken = [now for now in range(0, 6000, 100) if limits.may("growth", float(now), 100.0)]
    assert taken[:7] == [0, 100, 300, 700, 1300, 1900, 2500]
    assert limits.may("growth", 7400.0, 100.0)
    assert not limits.may("growth", 7499.0, 100.0)
    rare = [now for now in range(0, 60_000, 4000) if limits.may("low", float(now), 4000.0)]
    assert rare == list(range(0, 60_000, 4000))


@pytest.mark.parametrize(("record", "text"), [
    (b"3,881,5021106554,-;" + KILLED % (917, b"firefox bin"),
     "the kernel killed firefox bin (pid 917) to get memory"),
    (b"3,1,2,-;Memory cgroup out of memory: Killed process 9 (java) total-vm:6kB, anon-rss:4kB\n",
     "the kernel killed java (pid 9) of a cgroup at its limit to get memory"),
    (b"3,1,2,-;Killed process 812 (mysqld) total-vm:1200000kB, anon-rss:7000kB\n",
     "the kernel killed mysqld (pid 812) to get memory"),
    (b"3,1,2,-;" + KILLED % (5, b"a) total-vm:1kB (\\x1b[2J"),
     "the kernel killed a) total-vm:1kB (\\x1b[2J (pid 5) to get memory"),
    (b"4,7,8,-;kworker/u8:3: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)\n",
     "kworker/u8:3: an allocation of order 4 failed"),
    (b"11,1,2,-;" + KILLED % (1, b"said by a program"), None),
    (b"6,1,2,-;usb 1-1: Killed process\n", None), (b"", None), (b";", None), (b"x,1;y", None),
    (b"99999999999999999999,1;" + KILLED % (1, b"x"), None)])
def test_kills_and_failures_are_read_from_the_kernel_alone(record: bytes, text: str | None) -> None:
    found = sign_of(record)
    assert (found and found.text) == text
    if found:
        assert (found.event, found.order) == (("order", 4) if "order" in found.text else ("oom", 0))


def test_memory_that_will_be_gone_in_seconds_is_near(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"

    def standing(available: int, now: float) -> Standing:
        path.write_text(f"MemTotal:       1000000 kB\nMemFree:  5 kB\n"
                        f"MemAvailable:   {available} kB\nBuffers: 1 kB\n")
        return memory.standing(now)

    path.write_text("")
    memory = Memory(str(path))
    assert not standing(600_000, 0).is_near
    assert not standing(300_000, 1).is_near  # in a second, but there is much yet
    assert standing(200_000, 2).is_near  # 100 MB a second: two more
    assert standing(200_000, 3).left_s is None
    assert not standing(199_000, 4).is_near
    assert standing(20_000, 100).is_near  # hardly any
    assert standing(900_000, 101).next_s(0) == pytest.approx(900_000 * 1024 / (4 << 30), abs=0.1)
    assert standing(10, 102).next_s(50_000 << 10) == 0.05
    memory.close()


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "page_owner_stacks"
    folder.mkdir()
    (folder / "show_stacks").write_text(
        " hog+0x1/0x2\n vfs_write+0x1/0x2\nnr_base_pages: 9000\n\n"
        " still+0x1/0x2\nnr_base_pages: 50\n\n")
    return folder


class Case:
    """A witness of a folder, whose kernel log is a socket."""

    def __init__(self, folder: Path, lists: Path, conditions: Conditions) -> None:
        self.folder = folder
        self.said: list[str] = []
        self._owned = owned_folder(folder)
        self.handle = self._owned.__enter__()
        self.witness = Witness(conditions, self.handle, 3600, file_look(str(lists)),
                               self.said.append)
        self.kernel, reads = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        reads.setblocking(False)
        if self.witness.log.fd is not None:
            self.witness._poll.unregister(self.witness.log.fd)
            os.close(self.witness.log.fd)
        self.witness.log.fd = reads.detach()
        self.witness._poll.register(self.witness.log.fd, 1)

    def close(self) -> None:
        self.kernel.close()
        os.close(self.witness.log.fd or 0)
        self.witness.memory.close()
        if self.witness.pressure:
            os.close(self.witness.pressure.fd)
        self._owned.__exit__(None, None, None)

    def events(self) -> list[str]:
        return [event.event for event in witnessed.events(self.folder)]


@pytest.fixture
def case(tmp_path: Path, lists: Path) -> Iterator[Callable[..., Case]]:
    there: list[Case] = []

    def begin(**conditions: Any) -> Case:
        there.append(Case(tmp_path / "recorded", lists, Conditions(**conditions)))
        return there[-1]

    if os.access("/dev/kmsg", os.R_OK):
        yield begin
    else:
        pytest.skip("/dev/kmsg is for root to read")
    for one in there:
        one.close()


def test_low_memory_is_captured_once_and_found_by_its_name(
        case: Callable[..., Case], cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    here = case(low=0.999999)
    for _ in range(5):
        here.witness.step(0.01)
    assert here.events() == ["low"]
    assert len(here.said) == 1
    assert re.match(r"low: .* available \(\d+\.\d %\); \d{8}T.*Z\.low\.parquet$", here.said[0])
    status, out, err = cli("report", here.folder, "--at", "low")
    assert status == 0
    assert b"hog" in out
    assert b"available" in err
    found = json.loads(cli("report", here.folder, "--at", "low", "--json")[1])
    assert [row["pages"] for row in found["owners"]] == [9000, 50]
    status, _, err = cli("report", here.folder, "--at", "oom")
    assert status == 1
    assert b"no capture of 'oom'; there are some of low" in err
    # captures of events are none of the series
    status, _, err = cli("report", here.folder)
    assert status == 1


def test_of_a_kill_the_capture_from_before_is_kept(case: Callable[..., Case]) -> None:
    here = case(oom=True, low=0.999999)
    here.witness.step(0.01)
    here.kernel.send(b"3,881,5021106554,-;" + KILLED % (917, b"hog"))
    here.witness.step(0.01)
    assert here.events() == ["low", "oom"]
    last = witnessed.events(here.folder)[-1]
    assert re.search(r"the kernel killed hog \(pid 917\).*captured .* before", last.text)
    path, text = witnessed.capture_of(here.folder, "oom")
    assert text == last.text
    assert path.stat().st_ino == witnessed.capture_of(here.folder, "low")[0].stat().st_ino
    assert pageowner.read(path).pages == 9050


def test_a_capture_that_a_kill_fell_into_is_none_from_before(case: Callable[..., Case]) -> None:
    here = case(oom=True, low=0.999999)
    look = here.witness.look

    def killed_meanwhile(pid: int) -> None:
        def looked() -> Any:
            found = look()
            here.kernel.send(b"3,881,5021106554,-;" + KILLED % (pid, b"hog"))
            return found

        here.witness.look = looked
        here.witness.limits = Limits()
        here.witness.step(0.01)

    killed_meanwhile(917)  # nothing was captured before
    assert [event.event for event in witnessed.events(here.folder)] == ["low", "oom"]
    first, low = (witnessed.capture_of(here.folder, event) for event in ("oom", "low"))
    assert "(pid 917) to get memory; captured while it happened" in first[1]
    assert first[0].stat().st_ino == low[0].stat().st_ino
    killed_meanwhile(918)
    again, text = witnessed.capture_of(here.folder, "oom")
    assert re.search(r"\(pid 918\) to get memory; captured .* before$", text)
    assert again.stat().st_ino == low[0].stat().st_ino
    newest = witnessed.capture_of(here.folder, "low")[0]
    assert newest.stat().st_ino != low[0].stat().st_ino


def test_memory_that_goes_fast_is_captured_before_it_is_gone(
        case: Callable[..., Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes a twentieth of memory a second, from when half of it is available."""
    here, meminfo, clock = case(oom=True), tmp_path / "meminfo", [50.0]
    monkeypatch.setattr("pageowner.witness.process.time.monotonic", lambda: clock[0])

    def step(percent: float) -> None:
        clock[0] += 1
        meminfo.write_text(f"MemTotal: 1000000 kB\nMemAvailable: {percent * 10000:.0f} kB\n")
        here.witness.step(0.0)

    meminfo.write_text("")
    here.witness.memory.close()
    here.witness.memory = Memory(str(meminfo))
    left = 50.0
    while not here.events():
        step(left)
        left -= 5
        assert left > 0
    assert here.events() == ["near"]
    assert left >= 5  # there was time
    here.kernel.send(b"3,881,5021106554,-;" + KILLED % (917, b"hog"))
    step(left)
    assert here.events()[-1] == "oom"
    assert re.search(r"captured \d.* before", witnessed.capture_of(here.folder, "oom")[1])


def test_kills_soon_after_another_are_told_without_a_capture(case: Callable[..., Case]) -> None:
    here = case(oom=True)
    for pid in (7, 8, 9):
        here.kernel.send(b"3,1,2,-;" + KILLED % (pid, b"x"))
    here.witness.step(0.01)
    events = [event for event in witnessed.events(here.folder) if event.event == "oom"]
    assert [f"(pid {pid})" in event.text for pid, event in zip((7, 8, 9), events, strict=True)] == [
        True] * 3
    assert [bool(event.capture) for event in events] == [True, False, False]
    assert "oom: the kernel killed x (pid 9) to get memory; not captured, so soon after" in (
        here.said[-1])


def test_a_kill_without_warning_is_captured_after_it_and_says_so(case: Callable[..., Case]) -> None:
    here = case(oom=True)
    here.kernel.send(b"3,1,2,-;Memory cgroup out of memory: Killed process 9 (x) total-vm:6kB, \n")
    here.kernel.send(b"11,1,2,-;" + KILLED % (1, b"faked"))
    here.witness.step(0.01)
    (event,) = [one for one in witnessed.events(here.folder) if one.event == "oom"]
    assert "captured after it" in event.text
    assert "faked" not in "".join(here.said)


def test_failed_allocations_count_from_the_order_that_is_asked_for(
        case: Callable[..., Case]) -> None:
    here = case(order=3)
    for order in (0, 2, 3):
        here.kernel.send(b"4,7,8,-;x: page allocation failure: order:%d, mode:0x0\n" % order)
    here.witness.step(0.01)
    assert [event.text for event in witnessed.events(here.folder)] == [
        "x: an allocation of order 3 failed"]


def test_growth_of_one_owner_is_captured(case: Callable[..., Case], lists: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    here = case(growth=(8 * MIB, 10.0))
    clock = [100.0]
    monkeypatch.setattr("pageowner.witness.process.time.monotonic", lambda: clock[0])
    here.witness.step(0.0)
    (lists / "show_stacks").write_text("".join(
        f" {stack}+0x1/0x2\nnr_base_pages: {pages}\n\n" for stack, pages in (
            ("hog+0x1/0x2\n vfs_write", 12000), ("second", 2600), ("fourth", 2100),
            ("third", 2200), ("small", 100), ("fifth", 2050))))
    here.witness.step(0.0)
    assert here.events() == []  # it is not looked at so often
    clock[0] += 2
    here.witness.step(0.0)
    (event,) = witnessed.events(here.folder)
    assert event.text == ("hog ← vfs_write: 11.7 MiB more; second: 10.2 MiB more;"
                          " third: 8.6 MiB more; 2 others within 10.0 s")


def test_growth_is_told_only_of_the_time_that_is_asked_for(
        case: Callable[..., Case], lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = case(growth=(8 * MIB, 60.0))
    clock = [100.0]
    monkeypatch.setattr("pageowner.witness.process.time.monotonic", lambda: clock[0])

    def later(seconds: float, pages: int) -> list[str]:
        clock[0] += seconds
        path = lists / "show_stacks"
        path.write_text(f" hog+0x1/0x2\nnr_base_pages: {pages}\n\n") if pages else path.unlink()
        here.witness.step(0.0)
        return here.events()

    assert later(0, 9000) == []
    assert later(600, 12000) == []  # nobody looked for ten minutes
    assert later(10, 0) == []  # it is off
    assert later(10, 15000) == []  # and on again, where all is new
    assert later(60, 18000) == ["growth"]


def test_a_full_disk_loses_the_capture_and_says_so(case: Callable[..., Case],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise PageownerError("cannot write: No space left on device")

    here = case(low=0.999999)
    monkeypatch.setattr("pageowner.storage.witnessed.add", full)
    here.witness.step(0.01)
    assert "this capture is lost: cannot write: No space left" in here.said[0]
    assert os.listdir(here.folder) == [witnessed.LOG]


def test_damaged_lines_of_the_log_are_passed_over(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    event = witnessed.Event(1.5, "low", "text", "")
    witnessed.log(handle, event)
    with (tmp_path / witnessed.LOG).open("ab") as file:
        file.write(b'\n{"at": 1, "event"\n[]\nnull\n{"at":"x","event":"low","text":"y"}\n'
                   b'{"at":1,"event":"low","text":"y","capture":"../../etc/passwd"}')
    witnessed.log(handle, event)
    os.close(handle)
    assert witnessed.events(tmp_path) == [event, event]


@pytest.mark.parametrize("error", [PageownerError, BpfError, MemoryError])
def test_a_tracker_that_was_turned_off_is_keep_up_and_the_next_one_looked_at(
        error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here trackers are made up: two, the first of which is turned off, then none."""
    events: list[str] = []
    on = ["first"]
    words = (9, "no such map") if error is BpfError else ("tracking is off",)

    class Reader:
        health = SimpleNamespace(pages={"owned": 1})

        def __init__(self) -> None:
            if not on:
                raise error(*words)
            self.name = on[0]
            self.store = SimpleNamespace(facts={}, check_on=self.check_on)

        def check_on(self) -> None:
            if self.name not in on:
                raise error(*words)

        def counts(self, fields: object) -> Look:
            self.check_on()
            events.append(f"looked at {self.name}")
            return Look(7, {"stack": (np.zeros(1, np.int32), ["f+0x1/0x2"]),
                            "task": (np.zeros(1, np.int32), [None])},
                        np.ones(1, np.int64), np.ones(1, np.int64), np.zeros(1, np.int64))

    @contextmanager
    def opened() -> Iterator[Reader]:
        reader = Reader()
        yield reader
        events.append(f"closed {reader.name}")

    monkeypatch.setattr("pageowner.api.watch.live_reader", opened)
    with ExitStack() as stack:
        look = LiveLook(stack)
        assert look()[1] == {"f+0x1/0x2": 1}
        look.keep_up()
        on[0] = "second"
        look()
        assert events == ["looked at first", "closed first", "looked at second"]
        on[0] = "third"
        look.keep_up()
        look.keep_up()
        look.keep_up()
        assert events[3:] == ["closed second", "looked at third"]
        on.clear()
        look.keep_up()
        look.keep_up()
        assert events[5:] == ["closed third"]
        with pytest.raises(error):
            look()


def test_a_look_is_kept_as_sums_the_hog_first() -> None:
    look = Look(7, {"stack": (np.array([0, 1, 0], np.int32), ["hog+0x1/0x2", None]),
                    "task": (np.array([1, 0, 0], np.int32), [None, ("evil\x1b", 9, 10)])},
                np.array([5000, 3, 20]), np.array([100, 3, 1]), np.zeros(3, np.int64))
    found = sums_of_look(look, {"owned": 5023, "early": 40, "untracked": 7, "free": 99,
                                "filtered": 500, "in_motion": 2},
                         {"host": "here", "page_size": 4096})
    assert (found.pages, found.meta.frames) == (
        5070, {"free": 99, "filtered": 500, "in_motion": 2})
    rows = found.report("comm,pid").to_pylist()
    assert (rows[0]["comm"], rows[0]["pid"], rows[0]["pages"], rows[0]["blocks"]) == (
        "evil\x1b", 9, 5000, 100)
    states = {row["state"]: row["pages"] for row in found.report("state").to_pylist()}
    assert states == {"owned": 5023, "early": 40, "untracked": 7}
    assert sums_by_stack(look) == {"hog+0x1/0x2": 5020, None: 3}
    assert grown({"hog+0x1/0x2": 20}, sums_by_stack(look), 5000) == [("hog+0x1/0x2", 5000)]
    with pytest.raises(PageownerError, match="groups of allocations"):
        pageowner.frag(found)


def test_pressure_is_a_trigger_of_the_kernel() -> None:
    if not os.access("/proc/pressure/memory", os.W_OK) or os.geteuid():
        pytest.skip("triggers of /proc/pressure/memory are for root here")
    there = Pressure(150_000, 2_000_000)
    os.close(there.fd)
    with pytest.raises(PageownerError, match="no trigger for memory pressure"):
        Pressure(150_000, 1)
    with pytest.raises(PageownerError, match="without it: --on low"):
        Pressure(1, 2, "/nonexistent")


def test_without_the_kernels_log_kills_cannot_be_watched_for() -> None:
    log = KernelLog("/nonexistent")
    assert (log.fd, log.signs()) == (None, [])


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_record_watches_beside_its_captures(tmp_path: Path, lists: Path, end: int,
                                            cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    folder = tmp_path / "recorded"
    process = subprocess.Popen(
        [sys.executable, "-m", "pageowner", "record", str(folder), "--source", str(lists),
         "--every", "1h", "--on", "low=99.9999%"], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (folder / witnessed.LOG).exists() or not witnessed.events(folder):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        assert process.stderr
        err = ""
        while "low: " not in err:
            line = process.stderr.readline()
            assert line, err
            err += line
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        about = Path(f"/proc/{child}/status").read_text()
        adjusted = Path(f"/proc/{child}/oom_score_adj").read_text() == "-999\n"
        locked = re.search(r"VmLck:\s+(\d+)", about)
        assert locked
        resident = re.search(r"VmRSS:\s+(\d+)", about)
        assert resident
        assert int(resident[1]) < 150 << 10
    finally:
        process.send_signal(end)
        process.communicate(timeout=30)
    # what the kernel refuses is said
    assert adjusted or "the OOM killer may take it" in err
    assert int(locked[1]) > 0 or "its memory is not locked" in err
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/cmdline").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert b"hog" in cli("report", folder, "--at", "low")[1]
    assert b"hog" in cli("report", folder)[1]
    changed = json.loads(cli("diff", folder, folder, "--at", "low", "--at", "0s", "--json")[1])
    assert changed["before"]["pages"] == changed["after"]["pages"] == 9050


def test_what_cannot_be_watched_for_ends_record_with_a_line(
        tmp_path: Path, lists: Path, cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    for words, status, why in ((["--on", "loom"], 2, b"did you mean 'oom'"),
                               (["--on", "low=7"], 0, b"")):
        found = cli("record", tmp_path / "r", "--source", lists, "--count", "1", *words)
        assert found[0] == status, found
        assert why in found[2]
