"""The server's side of its worker: one question after another, and the figures that are kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pageowner.errors import PageownerError, UsageError
from pageowner.server.figures import Figures
from pageowner.server.notices import Notices

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Answered", "Busy", "Settings", "Worker"]

_QUEUE = 16
"""Questions that wait for others at most."""

_LONGEST_S = 300.0
"""An answer that takes longer ends the worker."""

_MOST_BYTES = 1 << 30

_USED_S = 600.0
"""The figures are renewed for so long after they were last asked for; then the worker ends."""


class Busy(Exception):
    """Too many questions wait."""


@dataclass(frozen=True)
class Settings:
    """What is served: ``source`` as for `pageowner.read`, ``history``, a folder of captures; how
    often figures are renewed, and over how long growth is judged."""

    source: str | None = None
    history: str | None = None
    every_s: float = 60.0
    window_s: float = 3600.0


@dataclass(frozen=True)
class Answered:
    """A document of the worker's."""

    type: str
    body: bytes
    file: str = ""


class Worker:
    """Starts a process when there is a question, and lets it end when there was none for long.

    ``figures``: the last that were gathered, None at first; ``failed``: how often that failed, and
    ``error``, why it did last, empty if it did not.
    """

    def __init__(self, settings: Settings, told: Callable[[str], None] = lambda text: None) -> None:
        """``told`` is called with the reason when figures cannot be gathered, once for each."""
        self.settings, self._told = settings, told
        self.figures: Figures | None = None
        self.renewals = self.failed = 0
        self.cpu_s = 0.0
        self.error = ""
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._used = time.monotonic()
        self._wanted = asyncio.Event()
        self._notices = Notices()

    async def ask(self, question: str, words: dict[str, str]) -> Answered:
        """Raises PageownerError, in a line, where there is no answer; Busy where too many wait."""
        if self._waiting >= _QUEUE:
            raise Busy
        self._waiting += 1
        self._used = time.monotonic()
        try:
            async with self._turn:
                return await self._asked(question, words)
        finally:
            self._waiting -= 1

    def use(self) -> None:
        """Somebody reads the figures: they are kept fresh from now on, for a while."""
        self._used = time.monotonic()
        self._wanted.set()

    async def keep_fresh(self) -> None:
        """Renew the figures at the beginning, and every so often as long as they are used."""
        while True:
            began = time.monotonic()
            await self.renew()
            await asyncio.sleep(max(began + self.settings.every_s - time.monotonic(), 0.1))
            if time.monotonic() - self._used > max(_USED_S, 3 * self.settings.every_s):
                await self.end()
                self._wanted.clear()
                await self._wanted.wait()

    async def renew(self) -> None:
        """Gather the figures; a failure is counted, and the last figures stay."""
        try:
            async with self._turn:
                found = await self._asked("figures", {})
            self.figures = Figures.of(json.loads(found.body)).following(self.figures)
            self.cpu_s += self.figures.took
            self.renewals += 1
            self._notices.of(self.figures)
            self.error = ""
        except Exception as error:
            # Whatever it is, such as a worker of another version after an upgrade: if it ended this
            # task, the last figures would pass for those of now.
            reason = str(error) if isinstance(error, PageownerError) else " ".join(
                f"{type(error).__name__} {error}".split())
            self.failed += 1
            told, self.error = self.error == reason, reason
            if not told:
                with contextlib.suppress(OSError, ValueError):  # nobody listens
                    self._told(f"no figures for now: {reason}")

    async def end(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # -- the pipe ----------------------------------------------------------------------------------

    async def _asked(self, question: str, words: dict[str, str]) -> Answered:
        try:
            return await asyncio.wait_for(self._exchanged(question, words), _LONGEST_S)
        except TimeoutError as error:
            await self.end()
            raise PageownerError(f"no answer within {_LONGEST_S:.0f} s; ask for less, or serve"
                                 " a smaller source") from error
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            await self.end()
            raise PageownerError("the process that reads the source ended; its messages are on the"
                                 " server's standard error") from error
        except asyncio.CancelledError:
            await self.end()  # what it still writes is not the answer to the next question
            raise

    async def _exchanged(self, question: str, words: dict[str, str]) -> Answered:
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"ask": question, "words": words}).encode() + b"\n")
        await process.stdin.drain()
        head: dict[str, Any] = json.loads(await process.stdout.readuntil(b"\n"))
        if "error" in head:
            raise (UsageError if head["usage"] else PageownerError)(head["error"])
        if not 0 <= head["length"] <= _MOST_BYTES:
            raise ValueError(head["length"])
        return Answered(head["type"], await process.stdout.readexactly(head["length"]),
                        head["file"])

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "pageowner.server.worker", str(os.getpid()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
                start_new_session=True)  # Ctrl-C is for this process, which ends that one
        except (OSError, RuntimeError) as error:  # the latter for a thread that waits for it
            raise PageownerError("cannot start the process that reads the source:"
                                 f" {getattr(error, 'strerror', None) or error}") from error
        assert process.stdin is not None
        about = {"source": self.settings.source, "history": self.settings.history,
                 "window_ns": int(self.settings.window_s * 1e9)}
        process.stdin.write(json.dumps(about).encode() + b"\n")
        return process
