"""The worker of `serve`, when it cannot be started and when what it sends makes no sense: that is
told and counted, and figures are renewed as soon as they can be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from served import serving  # skips where the extra is not installed

from pageowner.errors import PageownerError
from pageowner.server.calling import Answered, Settings, Worker
from pageowner.server.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DUMP = """Page allocated via order 0, mask 0x0(), pid 1, tgid 1 (init), ts 1 ns
PFN 1 type Unmovable Block 0 type Unmovable Flags 0x0()
 get_page+0x1/0x2

"""


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.02)


def test_a_worker_that_cannot_be_started_is_told_once_and_started_when_it_can(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dump").write_text(DUMP)
    python, said = sys.executable, list[str]()

    async def run() -> None:
        worker = Worker(Settings(str(tmp_path / "dump"), every_s=0.1), said.append)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
        renewing = asyncio.create_task(worker.keep_fresh())
        await until(lambda: renewing.done() or worker.failed >= 2)
        assert "No such file or directory" in worker.error
        with pytest.raises(PageownerError, match="cannot start the process that reads the source"):
            await worker.ask("owners", {})
        monkeypatch.setattr(sys, "executable", python)
        await until(lambda: worker.figures)
        assert worker.error == ""
        renewing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renewing
        await worker.end()

    asyncio.run(run())
    assert said == ["no figures for now: cannot start the process that reads the source: No such"
                    " file or directory"]


@pytest.mark.parametrize("error", [RuntimeError("too\ndeep"), OSError(24, "Too many open files"),
                                   KeyError("took")])
def test_no_failure_ends_the_renewing_of_figures(error: Exception,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(text: str) -> None:
        said.append(text)
        raise BrokenPipeError

    async def fail(self: Worker, question: str, words: dict[str, str]) -> Answered:
        raise error

    said: list[str] = []
    monkeypatch.setattr(Worker, "_asked", fail)
    worker = Worker(Settings(), gone)
    for _ in range(2):
        asyncio.run(worker.renew())
    assert worker.failed == 2
    assert worker.error
    (line,) = said
    assert line.startswith(f"no figures for now: {type(error).__name__}")
    assert "\n" not in line


def test_missed_events_never_fall_while_tracking_goes_on() -> None:
    def seen(since: int, missed: float) -> Figures:
        return Figures("host", True, 1.0, since_ns=since, health={"missed": missed, "lost": 1})

    def shown(found: Figures, before: Figures | None) -> float:
        return found.following(before).health["missed"]

    assert shown(seen(7, 3), None) == 3
    assert shown(seen(7, 2), seen(7, 3)) == 3
    assert shown(seen(7, 4), seen(7, 3)) == 4
    assert shown(seen(8, 0), seen(7, 3)) == 0  # turned off and on
    nothing = Figures("recorded", False, 1.0)
    assert nothing.following(seen(0, 3)) == nothing


def test_ctrl_c_on_a_terminal_ends_both_in_silence(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(DUMP)
    with serving(tmp_path / "dump") as server:
        server.figures()
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        _, said = server.process.communicate(timeout=30)
    assert b"Traceback" not in said
    assert b"ended" not in said
