"""Ctrl-C and kill at any moment: no traceback, and no process that goes on alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

# Interrupts itself at its n-th import since lines of ours are at work.
_INTERRUPTED = """
import builtins, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
module, at = sys.argv[1], int(sys.argv[2])
sys.argv[1:3] = []
real, count = builtins.__import__, 0

def imported(*words, **named):
    global count
    began = {"pageowner.cli", "pageowner.page_owner_sort.command"} & set(sys.modules)
    if began or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGINT)
    return real(*words, **named)

builtins.__import__ = imported
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 20, 60, 200, 500])
def test_an_interrupt_among_the_imports_ends_in_silence(at: int, some_records: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED, "pageowner", str(at), "report",
                           some_records], capture_output=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, b"")


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_so_does_one_in_page_owner_sort(at: int, some_records: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED, "pageowner.page_owner_sort.command",
                           str(at), some_records, tmp_path / "out"], capture_output=True,
                          check=False)
    assert (done.returncode, done.stderr.strip()) == (130, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pageowner", "page_owner_sort"])
def test_the_commands_are_silent_before_anything_of_the_package(name: str, tmp_path: Path) -> None:
    """The first import of the package interrupts. What installers write has no handler there."""
    installed = Path(sys.executable).with_name(name)
    (tmp_path / "pageowner").mkdir()
    (tmp_path / "pageowner/__init__.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n")
    done = subprocess.run([sys.executable, installed, "--help"], capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (130, b"")


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in
                Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """State and what follows it in /proc/PID/stat; nothing if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _runs(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _at_work(pid: int) -> bool:
    """Whether it has used CPU time, and so is beyond its first lines."""
    return _runs(pid) and any(int(ticks) for ticks in _stat(pid)[11:13])


def _stopped_at_work(process: subprocess.Popen[bytes]) -> list[int]:
    """Workers, stopped in the middle so that they cannot end by themselves; none if the command has
    ended before."""
    while process.poll() is None:
        stopped = []
        for worker in filter(_at_work, _children(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGSTOP)
                stopped.append(worker)
        if stopped and any(map(_runs, stopped)):
            return stopped
    return []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: no other process reads")
@pytest.mark.parametrize("words", [["pageowner", "save", "OUT"],
                                   ["pageowner.page_owner_sort.command"]])
def test_no_worker_outlives_a_command_that_is_killed(
        words: list[str], dump_text: Path, tmp_path: Path) -> None:
    module, *rest = words
    for at in range(20):  # a worker may be done before it is met
        out = str(tmp_path / f"out-{at}")
        command = [out if word == "OUT" else word for word in rest]
        with subprocess.Popen([sys.executable, "-m", module, *command, dump_text,
                               *([] if rest else [out])], stderr=subprocess.PIPE) as process:
            workers = _stopped_at_work(process)
            process.kill()
            process.wait()
        if workers:
            break
    assert workers, "it has ended without one, each time"
    deadline = time.monotonic() + 10
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    left = [worker for worker in workers if _runs(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left
