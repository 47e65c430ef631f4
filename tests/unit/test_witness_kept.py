"""Captures of events are kept as long as others, and their log as long as them."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pageowner.storage import witnessed
from pageowner.storage.recording import owned_folder
from pageowner.witness import process
from pageowner.witness.conditions import Conditions
from pageowner.witness.process import Witness, file_look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OLD, NEW = "20200101T000000.000Z", "20990101T000000.000Z"
NAMES = [f"{OLD}.low.parquet", f"{NEW}.oom.parquet", f"{OLD}.mine.parquet", "notes.txt"]
LOGGED = ('\n{"at": 4070908800.0, "event": "low", "text": "text", "capture":'
          f' "{NEW}.oom.parquet"}}')


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A folder with an old event, a new one, each captured, and other files."""
    folder = tmp_path / "recorded"
    folder.mkdir(mode=0o700)
    for name in NAMES:
        (folder / name).write_text("")
    handle = os.open(folder, os.O_RDONLY)
    for at, name in ((1_577_836_800.0, NAMES[0]), (4_070_908_800.0, NAMES[1])):
        witnessed.log(handle, witnessed.Event(at, "low", "text", name))
    os.close(handle)
    return folder


@contextmanager
def watching(folder: Path, lists: Path, keep_s: float) -> Iterator[Witness]:
    with owned_folder(folder) as handle:
        witness = Witness(Conditions(low=0.999999), handle, keep_s, file_look(str(lists)),
                          lambda text: None)
        yield witness
        closed(witness)


def closed(witness: Witness) -> None:
    witness.memory.close()
    if witness.log.fd is not None:
        os.close(witness.log.fd)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "page_owner_stacks"
    folder.mkdir()
    (folder / "show_stacks").write_text(" hog+0x1/0x2\nnr_base_pages: 9000\n\n")
    return folder


def test_old_events_are_removed_and_other_files_stay(filled: Path) -> None:
    (filled / f"{OLD}.parquet").write_text("")
    with (filled / witnessed.LOG).open("ab") as file:
        file.write(b'\n{"at": 1, "event"')
    handle = os.open(filled, os.O_RDONLY)
    for _ in range(2):
        witnessed.forget(handle, time.time())
        assert sorted(os.listdir(filled)) == sorted(
            [*NAMES[1:], f"{OLD}.parquet", witnessed.LOG])
        assert (filled / witnessed.LOG).read_text() == LOGGED
    os.close(handle)


def test_old_events_are_removed_by_who_watches_for_less_than_an_hour(
        filled: Path, lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    with watching(filled, lists, 3600) as witness:
        witness.step(0.0)
        assert (filled / NAMES[0]).exists()  # a clock may be wrong at boot
        monkeypatch.setattr("time.monotonic", lambda: 1601.0)
        witness.step(0.0)
        assert NAMES[0] not in os.listdir(filled)
        assert set(NAMES[1:]) <= set(os.listdir(filled))
        assert (filled / witnessed.LOG).read_text().startswith(LOGGED)


def test_who_watches_a_file_has_no_tracker_at_hand(filled: Path, lists: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def run(witness: Witness, idle: Callable[[], None]) -> None:
        idle()
        ran.append(witness.folder)
        closed(witness)

    monkeypatch.setattr("pageowner.api.watch.live_reader", lambda: pytest.fail("it was opened"))
    for name in ("end_with", "prepare"):  # which are for a process of its own
        monkeypatch.setattr(process, name, lambda *words: "")
    monkeypatch.setattr(Witness, "run", run)
    with owned_folder(filled) as handle:
        monkeypatch.setattr("sys.argv", ["", "1", json.dumps(
            {"folder": handle, "on": "low=5%", "keep_s": 3600, "source": str(lists)})])
        process.main()
        assert ran == [handle]


def test_old_events_are_removed_where_nobody_watches_any_more(
        filled: Path, lists: Path, cli: Callable[..., tuple[int, bytes, bytes]]) -> None:
    assert cli("record", filled, "--source", lists, "--count", "2", "--every", "1s")[0] == 0
    assert not (filled / NAMES[0]).exists()
    assert (filled / NAMES[1]).exists()
    assert (filled / witnessed.LOG).read_text() == LOGGED


def test_a_clock_that_runs_away_removes_no_events_at_once(
        lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {"wall": 1_795_000_000.0, "boot": 1000.0}
    monkeypatch.setattr("time.time", lambda: clocks["wall"])
    monkeypatch.setattr("time.monotonic", lambda: clocks["boot"])
    monkeypatch.setattr("pageowner.system.believed_time._since_boot", lambda: clocks["boot"])
    with watching(tmp_path / "recorded", lists, 86400) as witness:

        def later(passed: float) -> list[str]:
            for clock in clocks:
                clocks[clock] += passed
            witness.step(0.0)
            return [name for name in os.listdir(tmp_path / "recorded") if ".low." in name]

        (first,) = later(1)
        clocks["wall"] += 365 * 86400
        assert first in later(3700)
        assert first in later(3700)
        assert first not in later(86400)  # it stays so


def test_what_a_killed_watcher_left_is_cleared(tmp_path: Path) -> None:
    left = [f".pageowner.{OLD}.low.parquet.0123456789ab", ".pageowner.events.jsonl.0123456789ab"]
    others = [f".pageowner.{OLD}.mine.parquet.0123456789ab", ".pageowner.notes.jsonl.0123456789ab"]
    tmp_path.chmod(0o700)
    for name in [*left, *others]:
        (tmp_path / name).write_text("")
    with owned_folder(tmp_path):
        assert sorted(os.listdir(tmp_path)) == sorted(others)
