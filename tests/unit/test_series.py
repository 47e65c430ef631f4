"""Series of captures: each comes back as it was, small where little changed, whatever ends the
writer."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pageowner.errors import PageownerError, UsageError
from pageowner.model.snapshot import SCHEMA, Metadata, Snapshot
from pageowner.model.times import moment
from pageowner.sources.source import Moment, read
from pageowner.storage import series
from pageowner.storage.recording import Recorder, owned_folder
from pageowner.storage.whole_file import whole_file

BEGAN = 1_790_000_000.0
PAGES = 20_000


class Machine:
    """Rows of a machine that changes a little from capture to capture."""

    def __init__(self, seed: int = 3) -> None:
        self.random = np.random.default_rng(seed)
        self.pfn = np.sort(self.random.choice(4 * PAGES, PAGES, replace=False)).astype(np.uint64)
        self.ts = self.random.integers(0, 10**12, PAGES).astype(np.uint64)
        self.stack = self.random.integers(0, 300, PAGES)
        self.flags = self.random.integers(0, 9, PAGES).astype(np.uint64)
        self.clock = 10**12
        self.boot = "one"

    def step(self, part: float) -> None:
        """A part of the pages is freed, others are taken, of more the flags change."""
        self.clock += 10**10
        stay = self.random.random(len(self.pfn)) > part
        number = int(PAGES * part)
        fresh = self.random.choice(4 * PAGES, number, replace=False).astype(np.uint64)
        fresh = fresh[~np.isin(fresh, self.pfn[stay])]
        pfn = np.concatenate([self.pfn[stay], fresh])
        order = np.argsort(pfn)
        self.pfn = pfn[order]
        self.ts = np.concatenate([self.ts[stay], self.clock - np.sort(self.random.integers(
            0, 10**9, len(fresh))).astype(np.uint64)])[order]
        self.stack = np.concatenate([self.stack[stay], self.random.integers(
            0, 320, len(fresh))])[order]
        self.flags = np.concatenate([self.flags[stay], np.zeros(len(fresh), np.uint64)])[order]
        other = self.random.random(len(self.pfn)) < part
        self.flags[other] ^= np.uint64(1 << 20)  # unevictable

    def now(self) -> Snapshot:
        early = self.stack % 7 == 0
        texts = [f"alloc_{number}+0x1/0x9\ncaller_{number % 9}+0x2/0x8" for number in range(320)]
        # The order of a dictionary's texts is nobody's promise.
        turn = self.random.permutation(320)
        place = np.argsort(turn)
        stack = pa.DictionaryArray.from_arrays(
            pa.array(place[self.stack].astype(np.int32), mask=early),
            pa.array([texts[number] for number in turn]))
        return Snapshot.from_columns({
            "pfn": self.pfn, "order": (self.stack % 3).astype(np.uint8),
            "ts_ns": pa.array(self.ts // np.uint64(1000) * np.uint64(1000), mask=early),
            "stack": stack,
            "state": ["early" if one else "owned" for one in early],
            "comm": [f"task{number % 5}" for number in self.stack],
            "page_flags": self.flags.copy()}, Metadata(kind="tracker", boot_id=self.boot,
                                                clock_ns=self.clock, counters={"at": self.clock}))


def same(one: Snapshot, other: Snapshot) -> None:
    assert one.meta == other.meta
    for name in SCHEMA.names:
        assert _plain(one.table[name]).equals(_plain(other.table[name])), name


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in place of a dictionary's numbers, whose order is nobody's promise."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, list[Snapshot]]:
    machine, made = Machine(), []
    recorder = Recorder(tmp_path, 600, 7 * 86400)
    for number in range(8):
        machine.step(0.02)
        if number == 5:
            machine.boot = "two"
        made.append(machine.now())
        recorder.add(made[-1], BEGAN + number * 600)
    return tmp_path, made


def test_every_capture_comes_back_as_it_was(recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, made = recorded
    paths = [one.path for one in series.captures(folder)]
    for path, snapshot in zip(paths, made, strict=True):
        same(series.read(path), snapshot)
    for got, snapshot in zip(series.each(paths), made, strict=True):
        same(got, snapshot)


def test_what_changed_little_takes_little(recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, _ = recorded
    sizes = [one.path.stat().st_size for one in series.captures(folder)]
    # the first, and the first of the second boot, are whole
    assert all(size < sizes[0] / 6 for number, size in enumerate(sizes) if number not in (0, 5))
    assert sizes[5] > sizes[0] / 2


def test_a_capture_that_is_all_new_is_whole(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 600, 86400)
    first, second = Machine(1), Machine(2)
    recorder.add(first.now(), BEGAN)
    path = recorder.add(second.now(), BEGAN + 1)
    assert read(path).table.num_rows == PAGES


def test_flags_of_a_moment_are_no_change(tmp_path: Path) -> None:
    recorder, machine = Recorder(tmp_path, 600, 86400), Machine()
    recorder.add(machine.now(), BEGAN)
    machine.flags ^= np.uint64(1 << 2 | 1 << 6 | 1 << 25)  # referenced, active, idle
    path = recorder.add(machine.now(), BEGAN + 1)
    assert path.stat().st_size < 5000
    machine.flags[7] ^= np.uint64(1 << 20)
    last = series.read(recorder.add(machine.now(), BEGAN + 2)).table["page_flags"]
    assert last[7].as_py() == machine.flags[7]


def test_at_gives_the_newest_capture_before(recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, made = recorded
    same(read(folder), made[-1])
    same(read(Moment(str(folder), BEGAN + 1799)), made[2])
    same(read(Moment(str(folder), BEGAN + 1800)), made[3])
    with pytest.raises(PageownerError, match="oldest capture is of"):
        read(Moment(str(folder), BEGAN - 1))


def test_every_verb_takes_the_folder_and_a_time(
        recorded: tuple[Path, list[Snapshot]], cli: Callable[..., tuple[int, bytes, bytes]],
        tmp_path: Path) -> None:
    folder, made = recorded
    when = datetime.fromtimestamp(BEGAN + 1300, UTC).isoformat()
    status, out, _ = cli("report", folder, "--at", when, "--json")
    assert status == 0
    assert f'"pages": {made[2].pages},'.encode() in out
    for words in (("stacks", folder), ("frag", folder), ("dump", folder),
                  ("who", str(int(made[2].table["pfn"][0].as_py())), "--source", folder),
                  ("report", folder, "--comm", "task1")):
        status, _, err = cli(*words, "--at", when)
        assert (status, err) == (0, b"")
    target = tmp_path / "saved" / "one.parquet"
    target.parent.mkdir()
    assert cli("save", target, folder, "--at", when)[0] == 0
    same(read(target), made[2])


def test_verbs_of_several_sources_take_a_time_for_each_folder(
        recorded: tuple[Path, list[Snapshot]], cli: Callable[..., tuple[int, bytes, bytes]],
        some_records: Path, tmp_path: Path) -> None:
    folder, made = recorded
    early, late = [datetime.fromtimestamp(BEGAN + 600 * number, UTC).isoformat()
                   for number in (1, 3)]

    def pages(*words: object) -> list[int]:
        status, out, _ = cli("diff", *words, "--json")
        assert status == 0
        said = json.loads(out)
        return [said["before"]["pages"], said["after"]["pages"]]

    one, two, last = made[1].pages, made[3].pages, made[-1].pages
    assert len({one, two, last}) == 3
    assert pages(folder, folder, "--at", early, "--at", late) == [one, two]
    assert pages(folder, folder, "--at", late, "--at", early) == [two, one]
    assert pages(folder, folder, "--at", early) == [one, last]
    # a file is no folder, and takes no time
    assert pages(some_records, folder, "--at", early)[1] == one
    status, out, _ = cli("query", "SELECT source, sum(pages) p FROM pages GROUP BY 1 ORDER BY 1",
                         folder, folder, "--at", early, "--at", late, "--json")
    assert status == 0
    assert [row["p"] for row in json.loads(out)] == [one, two]
    page = tmp_path.parent / "flame.html"
    assert cli("flame", folder, folder, "--at", early, "--at", late, "--html", page)[0] == 0
    about = json.loads(page.read_text().split('id="about">')[1].split("</script>")[0])
    assert [sum(about["before"]), sum(about["after"])] == [one, two]
    for words in (("diff", some_records, some_records, "--at", "2h"),
                  ("diff", folder, some_records, "--at", "2h", "--at", "1h"),
                  ("query", "SELECT 1", "--at", "2h"), ("flame", "--svg", "x", "--at", "2h"),
                  ("diff", folder, folder, "--at", "teatime")):
        status, _, err = cli(*words)
        assert status == 2
        assert err.count(b"\n") == 1


def test_a_capture_that_fails_ends_no_recording(
        tmp_path: Path, cli: Callable[..., tuple[int, bytes, bytes]],
        monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    # what the kernel and Python say when tracking is turned off, or memory is short, meanwhile
    happens: list[Snapshot | BaseException] = [
        machine.now(), OSError(errno.ENOENT, "the map is gone"), MemoryError(), machine.now()]

    def read_now() -> Snapshot:
        one = happens.pop(0)
        if isinstance(one, BaseException):
            raise one
        return one

    monkeypatch.setattr("pageowner.sources.source.read", read_now)
    folder = tmp_path / "kept"
    status, out, err = cli("record", folder, "--every", "1s", "--count", "4")
    assert (status, out) == (0, b"")
    assert err.count(b"this capture is lost: ") == err.count(b"\n") == 2
    assert b"the map is gone" in err
    assert b"out of memory" in err
    assert len(series.captures(folder)) == 2
    happens[:] = [OSError(errno.ENOENT, "the map is gone")]
    assert cli("record", folder, "--every", "1s", "--count", "2")[0] == 1


def test_what_cannot_be_removed_ends_no_recording(
        tmp_path: Path, cli: Callable[..., tuple[int, bytes, bytes]],
        monkeypatch: pytest.MonkeyPatch) -> None:
    machine, folder = Machine(), tmp_path / "kept"
    monkeypatch.setattr("pageowner.sources.source.read", machine.now)
    # no rights keep root from a file, but nobody unlinks a folder
    (folder / series.file_name(BEGAN - 30 * 86400)).mkdir(parents=True)
    status, out, err = cli("record", folder, "--every", "1s", "--keep", "7d", "--count", "2")
    assert (status, out) == (0, b"")
    assert err.count(b"old captures stay: ") == err.count(b"\n") == 2
    assert len(series.captures(folder)) == 3


def test_each_file_is_opened_once_to_forget_the_old(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, recorder = Machine(), Recorder(tmp_path, 600, 7 * 86400)
    opened: list[Path] = []
    monkeypatch.setattr("pageowner.storage.series.builds_on", _noting(opened))
    for number in range(5):
        machine.step(0.01)
        recorder.add(machine.now(), BEGAN + number * 600)
        recorder.forget(BEGAN + number * 600)
    assert opened == [one.path for one in series.captures(tmp_path)]


def _noting(opened: list[Path]) -> Callable[[Path], str | None]:
    builds_on = series.builds_on

    def noted(path: Path) -> str | None:
        opened.append(path)
        return builds_on(path)

    return noted


def test_a_time_that_is_none_is_said(recorded: tuple[Path, list[Snapshot]],
                                     cli: Callable[..., tuple[int, bytes, bytes]],
                                     some_records: Path) -> None:
    folder, _ = recorded
    for words in ((folder, "--at", "teatime"), ("--at", "2h")):
        status, _, err = cli("report", *words)
        assert status == 2
        assert err.count(b"\n") == 1
    status, _, err = cli("report", some_records, "--at", "2h")
    assert status == 1
    assert b"is no folder" in err


def test_leaks_reads_what_was_recorded_since_the_last_boot(
        tmp_path: Path, cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    machine = Machine()
    recorder = Recorder(tmp_path, 600, 86400)
    recorder.add(machine.now(), BEGAN)
    machine.boot = "two"
    for number in range(6):
        machine.step(0.01)
        recorder.add(machine.now(), BEGAN + 600 + number)
    status, out, err = cli("leaks", tmp_path)
    assert (status, err) == (0, b"")
    assert b"6 looks" in out


def test_a_file_of_changes_alone_says_what_it_is(
        recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, _ = recorded
    path = series.captures(folder)[1].path
    with pytest.raises(PageownerError, match="--at"):
        read(path)


def test_damage_is_said_in_a_line(recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, _ = recorded
    first, second, third = [one.path for one in series.captures(folder)][:3]
    text = second.read_bytes()
    for spoilt in (text[:len(text) // 2], text[:200] + b"\xff" * 50 + text[250:], b""):
        second.write_bytes(spoilt)
        with pytest.raises(PageownerError, match=second.name):
            series.read(third)
    second.unlink()
    with pytest.raises(PageownerError, match="gone from its folder"):
        series.read(third)
    same(series.read(first), series.read(first))


def test_old_groups_go_and_what_stays_can_be_read(tmp_path: Path) -> None:
    machine = Machine()
    recorder = Recorder(tmp_path, 600, 7 * 600)  # groups of one capture and its changes
    for number in range(30):
        machine.step(0.01)
        recorder.add(machine.now(), BEGAN + number * 600)
        recorder.forget(BEGAN + number * 600)
        there = series.captures(tmp_path)
        assert series.read(there[0].path).table.num_rows
        assert len(there) <= 9
    assert series.captures(tmp_path)[0].taken >= BEGAN + 21 * 600


def test_a_clock_that_is_set_back_makes_no_capture_unreadable(
        tmp_path: Path, cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    machine, recorder = Machine(), Recorder(tmp_path, 50, 1500)
    for moment_ in (0, 300, 600, -1000, -700, -400, -100, 200, 500):
        machine.step(0.01)
        recorder.add(machine.now(), BEGAN + moment_)
    builds_on = [series.builds_on(one.path) for one in series.captures(tmp_path)]
    # a whole one lies between another and what builds on that
    first, second = series.file_name(BEGAN), series.file_name(BEGAN + 200)
    assert builds_on[4:8] == [None, None, first, second]
    status, _, err = cli("leaks", tmp_path)
    assert (status, err) == (0, b"")
    for now in range(1000, 4000, 250):
        recorder.forget(BEGAN + now)
        there = series.captures(tmp_path)
        assert there
        for one in there:
            assert series.read(one.path).table.num_rows


def test_a_clock_that_runs_away_removes_nothing_at_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {"wall": BEGAN, "boot": 1000.0}
    monkeypatch.setattr("pageowner.storage.recording.time.time", lambda: clocks["wall"])
    monkeypatch.setattr("pageowner.storage.recording._since_boot", lambda: clocks["boot"])
    machine, recorder = Machine(), Recorder(tmp_path, 600, 6000)

    def capture(passed: float) -> list[Path]:
        clocks["wall"] += passed
        clocks["boot"] += passed
        machine.step(0.01)
        recorder.add(machine.now())
        return recorder.forget()

    assert not any(capture(600) for _ in range(4))
    clocks["wall"] += 365 * 86400
    assert capture(600) == []
    clocks["wall"] -= 365 * 86400
    assert capture(600) == []
    # what came from the future is the newest by its name until then; nothing else is lost
    assert len(series.captures(tmp_path)) == 6
    clocks["wall"] += 30 * 86400  # and now it stays so
    removed = [capture(600) for _ in range(12)]
    assert removed[0] == []
    assert any(removed)


@pytest.mark.parametrize(("spoil", "why"), [
    (lambda table, about: (table, b"[" * 100_000), "damaged"),
    (lambda table, about: (table.set_column(0, "pfn", table["pfn"].cast(pa.string())), about),
     "pfn"),
    (lambda table, about: (table.set_column(0, "pfn", pa.nulls(len(table), pa.uint64())), about),
     "pfn"),
    (lambda table, about: (pa.concat_tables([table, table]), about), "two rows"),
    (lambda table, about: (table.set_column(
        table.column_names.index("order"), "order", pa.array([200] * len(table), pa.uint8())),
        about), "no kernel has"),
    (lambda table, about: (table, json.dumps({**json.loads(about), "meta": base64.b64encode(
        zlib.compress(b" " * (300 << 20))).decode()}).encode()), "too large")])
def test_changes_that_nobody_wrote_so_are_refused(
        recorded: tuple[Path, list[Snapshot]], spoil: Any, why: str) -> None:
    folder, _ = recorded
    path = series.captures(folder)[1].path
    about = pq.read_metadata(path).metadata[b"pageowner.changes"]
    table, about = spoil(pq.read_table(path), about)
    pq.write_table(table.replace_schema_metadata({b"pageowner.changes": about}), path)
    with pytest.raises(PageownerError, match=f"{path.name}.*{why}"):
        series.read(path)


def test_two_do_not_record_into_one_folder(tmp_path: Path) -> None:
    with owned_folder(tmp_path), pytest.raises(PageownerError, match="already"), \
            owned_folder(tmp_path):
        pass


def test_what_a_killed_recorder_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / series.file_name(BEGAN)
    with whole_file(path):
        [left] = tmp_path.iterdir()
    path.rename(left)
    foreign = {tmp_path / ".pageowner.conf", tmp_path / ".pageowner.mine.parquet.abcdefgh"}
    for one in foreign:
        one.write_bytes(b"mine")
    with owned_folder(tmp_path):
        assert set(tmp_path.iterdir()) == foreign


_WRITER = """
import sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from test_series import BEGAN, Machine
from pageowner.storage.recording import Recorder
machine, recorder = Machine(), Recorder(Path(sys.argv[1]), 600, 7 * 86400)
number = 0
while True:
    machine.step(0.02)
    print(recorder.add(machine.now(), BEGAN + number * 600).name, flush=True)
    number += 1
"""


@pytest.mark.parametrize("after", [0.0, 0.013, 0.03, 0.05])
def test_kill_9_loses_no_capture_that_was_written(tmp_path: Path, after: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path, Path(__file__).parent],
                              stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    written = [writer.stdout.readline().strip() for _ in range(4)]
    time.sleep(after)
    writer.send_signal(signal.SIGKILL)
    written += writer.communicate()[0].split()
    there = series.captures(tmp_path)
    names = [one.path.name for one in there]
    assert names[:len(written)] == written
    assert len(names) <= len(written) + 1  # one may be written and not told
    for one in there:
        assert series.read(one.path).table.num_rows
    machine = Machine()
    for one in there:
        machine.step(0.02)
        same(series.read(one.path), machine.now())


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system in memory of 1 MiB, in a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    return tmp_path


_ON_A_SMALL_DISK = """
import sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from test_series import BEGAN, Machine, same
from pageowner.errors import PageownerError
from pageowner.storage import series
from pageowner.storage.recording import Recorder
folder = Path(sys.argv[1])
machine, recorder, made, lost = Machine(), Recorder(folder, 600, 7 * 86400), {}, 0
for number in range(30):
    machine.step(0.05)
    now = machine.now()
    try:
        made[recorder.add(now, BEGAN + number * 600)] = now
    except PageownerError as error:
        assert "No space left" in str(error), error
        assert not list(folder.glob(".pageowner.*"))
        lost += 1
    if lost == 3:
        (folder / "ballast").unlink(missing_ok=True)
assert lost == 3, lost
assert len(series.captures(folder)) == 27
for path, snapshot in made.items():
    same(series.read(path), snapshot)
print("ok")
"""


def test_a_full_disk_loses_only_what_does_not_fit(small_disk: Path) -> None:
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c",
         'mount -t tmpfs -o size=4m none "$1" && dd if=/dev/zero of="$1/ballast" bs=64k count=57'
         ' 2>/dev/null && exec "$2" -c "$3" "$1" "$4"', "sh", small_disk, sys.executable,
         _ON_A_SMALL_DISK, Path(__file__).parent], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or done.stderr.startswith("unshare: "):
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the zone of time."""
    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("now", "text", "expected"), [
    ("2026-03-29T08:00+02:00", "01:30", "2026-03-29T01:30+01:00"),
    ("2026-03-29T08:00+02:00", "14:30", "2026-03-28T14:30+01:00"),
    ("2026-10-25T08:00+01:00", "14:30", "2026-10-24T14:30+02:00")])
def test_a_time_of_day_is_the_walls_also_where_the_clock_was_changed(
        now: str, text: str, expected: str, zone: Callable[[str], None]) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0/3")
    assert moment(text, datetime.fromisoformat(now)) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize(("text", "expected"), [
    ("14:30", "2026-11-23T14:30:00+00:00"), ("16:00", "2026-11-22T16:00:00+00:00"),
    ("2h", "2026-11-23T13:00:00+00:00"), ("90 min ago", "2026-11-23T13:30:00+00:00"),
    ("2026-11-20", "2026-11-20T00:00:00"), ("2026-11-20 10:11:12Z", "2026-11-20T10:11:12+00:00"),
    ("14:30:05.25", "2026-11-23T14:30:05.250+00:00")])
def test_moments_are_understood(text: str, expected: str, zone: Callable[[str], None]) -> None:
    zone("UTC")
    now = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
    assert moment(text, now) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize("text", ["", "25:00", "12:61", "soon", "2026-13-01", "5 parsecs"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        moment(text)
