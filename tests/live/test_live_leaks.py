"""`leaks` and `record` on this machine, beneath whatever else it does."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pageowner.analysis.keys import blocks_pages, times
from pageowner.tracker.read.capture import capture
from pageowner.tracker.read.live import LiveReader
from pageowner.tracker.read.maps import open_store

pytestmark = pytest.mark.usefixtures("bpf", "tracking")

_LEAKING = Path(__file__).parents[2] / "benchmarks/leaking.py"
_RATE = 4 << 20
_LOOKS = 10
_HELD = 64 << 20


@pytest.fixture
def leaking(request: pytest.FixtureRequest) -> Iterator[None]:
    with subprocess.Popen([sys.executable, _LEAKING, request.param, str(_RATE)],
                          stdin=subprocess.PIPE) as program:
        time.sleep(2)  # it leaks since before somebody watches
        yield
        program.communicate()


def leaks(*words: str) -> list[str]:
    return [sys.executable, "-m", "pageowner", "leaks", "--json", *words]


def found(out: bytes) -> list[dict[str, object]]:
    return [one for one in json.loads(out)["owners"] if one["kind"] == "leak"]


@pytest.mark.parametrize("leaking", ["pipes"], indirect=True)
@pytest.mark.usefixtures("leaking")
def test_a_leak_is_named_with_its_rate() -> None:
    done = subprocess.run(leaks("--for", "10s", "--every", "1s"), capture_output=True, check=True)
    assert done.stderr == b"pageowner: watching for 10.0 s\n"
    # a program that builds up its own memory for these seconds may stand above it
    leak = next(one for one in found(done.stdout) if "pipe_write" in str(one["stack"]))
    assert leak["program"] is None
    assert leak["bytes_per_hour"] == pytest.approx(_RATE * 3600, rel=0.3)


def test_what_records_do_not_tell_takes_captures() -> None:
    done = subprocess.run(leaks("--for", "2s", "--every", "0.5s", "--by", "block,reason",
                                "--state", "owned"), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["looks"] >= 4


@pytest.mark.parametrize("leaking", ["tmpfs"], indirect=True)
@pytest.mark.usefixtures("leaking")
def test_ctrl_c_gives_the_result_so_far() -> None:
    with subprocess.Popen(leaks("--for", "1h", "--every", "0.2s"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stderr
        assert watching.stderr.readline()
        time.sleep(5)
        watching.send_signal(signal.SIGINT)
        out, _ = watching.communicate()
    assert watching.returncode == 0
    assert json.loads(out)["seconds"] < 60
    assert json.loads(out)["looks"] >= 4


@pytest.fixture
def holding() -> Iterator[None]:
    """A program that has some memory all the time, and has stopped."""
    text = f"held = b'1' * {_HELD}; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as program:
        assert program.stdout
        program.stdout.readline()
        yield
        program.communicate()


@pytest.mark.usefixtures("holding")
def test_a_look_counts_what_a_capture_counts() -> None:
    """Others work meanwhile: of what was allocated before both looks, a capture in between has at
    least what the second still has, and at most what the first had."""
    with open_store() as store:
        reader = LiveReader(store)
        before = reader.blocks()
        snapshot = capture(store)
        after = reader.blocks()
    state, process = (snapshot.table[name].combine_chunks() for name in ("state", "tgid"))
    # this process itself is left out of a look
    there = (state.dictionary_decode().to_numpy(False) == "owned") & (
        process.fill_null(0).to_numpy(False) != os.getpid())
    looked = [(look.ts, look.pages) for look in (before, after)]
    looked.insert(1, (times(snapshot)[0][there], blocks_pages(snapshot)[there]))
    moments, place = np.unique(np.concatenate([ts for ts, _ in looked]), return_inverse=True)
    parts = np.split(place, np.cumsum([len(ts) for ts, _ in looked])[:-1])
    first, then, now = (np.bincount(at, pages, len(moments))[moments <= before.time_ns]
                        for at, (_, pages) in zip(parts, looked, strict=True))
    allowed = snapshot.meta.counters["stale_pages"] + 0.001 * first.sum()
    assert first.sum() * mmap.PAGESIZE >= _HELD
    assert np.maximum(now - then, 0).sum() <= allowed
    assert np.maximum(then - first, 0).sum() <= allowed
    assert np.all(before.ts > 0)


def test_a_look_knows_how_many_pages_are_untracked() -> None:
    """As exactly as memory stands still meanwhile, which it does at one of some looks."""
    with open_store() as store:
        reader = LiveReader(store)
        for _ in range(_LOOKS):
            untracked = sum(reader.blocks().others.values())
            frames = capture(store).meta.frames
            if abs(untracked - frames["untracked"]) < 0.1 * frames["owned"] + 8192:
                return
    raise AssertionError(f"{untracked} untracked pages, and {frames} in the capture after it")


def test_record_fills_a_folder_that_verbs_read(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    subprocess.run([sys.executable, "-m", "pageowner", "record", folder, "--every", "1s",
                    "--count", "3"], check=True)
    files = sorted(folder.iterdir())
    assert len(files) == 3
    assert files[1].stat().st_size < files[0].stat().st_size
    done = subprocess.run([sys.executable, "-m", "pageowner", "report", folder, "--json", "--by",
                           "state"], capture_output=True, check=True)
    assert {one["state"] for one in json.loads(done.stdout)["owners"]} >= {"owned", "early"}
