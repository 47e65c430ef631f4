"""On, off and what is left: after any end of `on` or `off`, the next one mends it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pageowner.errors import PageownerError, UsageError
from pageowner.tracker import lifecycle
from pageowner.tracker.libbpf import Libbpf
from pageowner.tracker.maps import PIN_DIRECTORY, open_store

ROUNDS = int(os.environ.get("PAGEOWNER_KILL_ROUNDS", "3"))
OURS = {"spans", "freed_spans", "tasks", "stacks", "po_span", "sightings", "questions",
        "split_now", "on_alloc", "on_free", "on_extfrag", "settle", "look", "calibrate", "made_up"}


def left(bpf: Libbpf) -> list[str]:
    """Programs and maps of ours in the kernel, after it had time to let go of them and other
    processes' trackers have ended."""
    deadline = time.monotonic() + 10
    latest = time.monotonic() + 120
    while True:
        names = [name for name in bpf.loaded_names() if name in OURS]
        if not names or time.monotonic() > deadline:
            return names
        if _held():
            deadline = time.monotonic() + 10
            if time.monotonic() > latest:
                pytest.skip("another process keeps a tracker on this machine")
        time.sleep(0.1)


def _held() -> bool:
    """Whether a living process has a tracker of its own, or one is pinned outside of the mount
    namespace in which the tests may run."""
    if any(Path("/proc/1/root" + PIN_DIRECTORY).parent.glob("pageowner*")):
        return True
    for fds in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(fd).startswith("anon_inode:bpf") for fd in fds.iterdir()):
                return True
        except OSError:
            continue
    return False


def child(word: str) -> subprocess.Popen[bytes]:
    code = f"from pageowner.tracker import lifecycle; print(lifecycle.{word}())"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.mark.usefixtures("off")
def test_on_tracks_and_off_leaves_nothing(bpf: Libbpf) -> None:
    now = lifecycle.on()
    assert now.on
    assert not now.already_on
    assert now.hooks["mm_page_alloc"] == now.hooks["mm_page_free"] == "active"
    assert now.frames * 4096 > 0.9 * _mem_total()
    assert 0 < now.pages["early"] < now.frames
    with open_store() as store:
        allocs = store.counters()["allocs"]
        Path("/proc/self/stat").read_bytes()
        subprocess.run(["true"], check=True)
        assert store.counters()["allocs"] > allocs
    assert lifecycle.off()
    assert not os.path.exists(PIN_DIRECTORY)
    assert left(bpf) == []


def _mem_total() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1]) * 1024


@pytest.mark.usefixtures("off")
def test_on_when_on_says_so_and_names_what_differs() -> None:
    lifecycle.on(lifecycle.Options(depth=8))
    again = lifecycle.on(lifecycle.Options(depth=8))
    assert again.already_on
    with pytest.raises(PageownerError, match="depth is 8, not 32"):
        lifecycle.on(lifecycle.Options(depth=32))
    assert lifecycle.status().options.depth == 8


def test_options_that_cannot_be_are_usage_errors(bpf: Libbpf) -> None:
    assert bpf
    for wrong in ({"depth": 0}, {"depth": 65}, {"sample": 0}, {"min_order": -1}):
        with pytest.raises(UsageError):
            lifecycle.on(lifecycle.Options(**wrong))


@pytest.mark.usefixtures("off", "bpf")
def test_off_without_on_does_nothing() -> None:
    assert lifecycle.off() is False


@pytest.mark.usefixtures("off")
def test_two_on_at_once_end_with_one_tracker(bpf: Libbpf) -> None:
    both = [child("on"), child("on")]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(b"already_on=True" in out for out, _ in said) == [False, True]
    assert bpf.loaded_names().count("on_alloc") == 1
    both = [child("off"), child("off")]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(out.strip() for out, _ in said) == [b"False", b"True"]
    assert left(bpf) == []


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize("name", ["new", "old"])
def test_what_a_killed_process_left_is_removed(bpf: Libbpf, name: str) -> None:
    lifecycle.on()
    os.rename(PIN_DIRECTORY, f"{PIN_DIRECTORY}-{name}")
    assert lifecycle.off()
    assert not os.path.exists(f"{PIN_DIRECTORY}-{name}")
    assert left(bpf) == []


@pytest.mark.usefixtures("off")
def test_kill_at_any_moment_is_mended(bpf: Libbpf) -> None:
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    started = time.monotonic()
    lifecycle.on()
    usual = time.monotonic() - started
    lifecycle.off()
    for number in range(ROUNDS):
        where = f"round {number} of seed {seed}"
        process = child("on")
        time.sleep(rng.uniform(0, usual * 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if rng.random() < 0.3:
            assert lifecycle.on().on, where
        if lifecycle.is_on():
            process = child("off")
            time.sleep(rng.uniform(0.2, 0.6))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        lifecycle.off()
        for directory in (PIN_DIRECTORY, PIN_DIRECTORY + "-new", PIN_DIRECTORY + "-old"):
            assert not os.path.exists(directory), where
    assert left(bpf) == []


def test_a_missing_bpffs_is_mounted(bpf: Libbpf) -> None:
    """In a mount namespace of its own, where there is none."""
    assert bpf
    code = ("from pageowner.tracker import lifecycle, requirements as r;"
            "assert not r.is_mounted(); assert r.mount_bpffs(); assert r.is_mounted();"
            "assert lifecycle.off() is False")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c",
         f'while umount /sys/fs/bpf 2>/dev/null; do :; done; exec "{sys.executable}" -c "{code}"'],
        capture_output=True, text=True)
    if "unshare failed" in done.stderr:
        pytest.skip("no mount namespace can be made here")
    assert done.returncode == 0, done.stderr
