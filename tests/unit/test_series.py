"""Series of captures: each comes back as it was, small where little changed, whatever ends the
writer."""

from __future__ import annotations

import base64
import errno
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from changing import BEGAN, PAGES, Machine, same

import pageowner
from pageowner.errors import PageownerError
from pageowner.model.snapshot import Snapshot
from pageowner.sources.source import Moment, read
from pageowner.storage import series
from pageowner.storage.recording import Recorder, owned_folder
from pageowner.storage.whole_file import whole_file


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
    with pytest.raises(PageownerError, match="oldest is from"):
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
    assert cli("record", folder, "--every", "1s", "--count", "3")[0] == 1


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
    assert b"is not a directory" in err


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


def test_leaks_reads_what_was_recorded_since_tracking_began(
        tmp_path: Path, cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    machine = Machine()
    recorder = Recorder(tmp_path, 600, 86400)
    for number in range(11):
        if number == 5:
            machine.since = machine.clock + 1
        machine.step(0.01)
        recorder.add(machine.now(), BEGAN + 600 * number)
    assert len(series.captures(tmp_path)) == 11
    status, out, err = cli("leaks", tmp_path)
    assert (status, err) == (0, b"")
    assert b"6 looks" in out
    assert b"5 earlier captures, of another boot or time" in b" ".join(out.split())
    machine.since += 1
    machine.step(0.01)
    machine.now().save(tmp_path / "later.parquet")
    status, out, err = cli("leaks", tmp_path, tmp_path / "later.parquet")
    assert status == 2
    assert b"tracking was turned off and on between" in err


def test_a_file_of_changes_alone_says_what_it_is(
        recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, _ = recorded
    path = series.captures(folder)[1].path
    with pytest.raises(PageownerError, match="--at"):
        read(path)


def test_damage_is_said_in_a_line(recorded: tuple[Path, list[Snapshot]]) -> None:
    folder, made = recorded
    first, second, third = [one.path for one in series.captures(folder)][:3]
    text = second.read_bytes()
    for spoilt in (text[:len(text) // 2], text[:200] + b"\xff" * 50 + text[250:], b""):
        second.write_bytes(spoilt)
        with pytest.raises(PageownerError, match=second.name):
            series.read(third)
    second.unlink()
    with pytest.raises(PageownerError, match="missing from its directory"):
        series.read(third)
    same(series.read(first), made[0])


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
    monkeypatch.setattr("pageowner.system.believed_time._since_boot", lambda: clocks["boot"])
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


@pytest.mark.parametrize(("count", "after_s", "left"), [
    (1, 600, [1]), (2, 600, [1, 2]), (None, 600, [9, 10]), (None, 0.5, [9, 2])])
def test_what_records_for_ever_removes_nothing_by_the_clock_of_the_first_moment(
        tmp_path: Path, sample61: Snapshot, monkeypatch: pytest.MonkeyPatch, count: int | None,
        after_s: float, left: list[int]) -> None:
    """At boot a clock may be wrong until the network is there."""
    monkeypatch.setattr("pageowner.api.record._FIRST_FORGET_S", after_s)
    dump = tmp_path / "dump.parquet"
    sample61.save(dump)
    folder = tmp_path / "captures"
    folder.mkdir(mode=0o700)
    machine, recorder = Machine(), Recorder(folder, 50, 1500)
    for number in range(8):
        machine.step(0.01)
        recorder.add(machine.now(), BEGAN + number * 50)
    captures = pageowner.record(folder, every="1s", keep="1h", count=count, source=dump)
    for expected in left:
        next(captures)
        if expected == 9 and after_s < 1:
            continue  # half a second may be over by now
        assert len(series.captures(folder)) == expected


@pytest.mark.parametrize(("spoil", "why"), [
    (lambda table, about: (table, b"[" * 100_000), "damaged"),
    (lambda table, about: (table.set_column(0, "pfn", table["pfn"].cast(pa.string())), about),
     "pfn"),
    (lambda table, about: (table.set_column(0, "pfn", pa.nulls(len(table), pa.uint64())), about),
     "pfn"),
    (lambda table, about: (pa.concat_tables([table, table]), about), "two rows"),
    (lambda table, about: (table.set_column(
        table.column_names.index("order"), "order", pa.array([200] * len(table), pa.uint8())),
        about), "impossible order"),
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
