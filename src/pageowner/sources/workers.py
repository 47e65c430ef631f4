"""Run functions side by side in forked processes and collect what they return.

Forked, since a fresh interpreter costs more than what is won; a child runs nothing but its
function and never returns to the caller's code. Results travel through memory files, which
unlike pipes need nobody to empty them.

Not concurrent.futures: its import takes 28 ms, in which these have begun to read already, before
click and Arrow are imported; and its processes outlive a parent that is killed.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import warnings
import weakref
from contextlib import suppress
from mmap import PROT_READ, mmap
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from pageowner.errors import PageownerError
from pageowner.system.child_process import end_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Memory", "Workers"]

T = TypeVar("T")

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Workers(Generic[T]):
    """Starts every function at once, each in a process of its own.

    None outlives this object, nor the thread that made it: not when Ctrl-C comes before the results
    are asked for, nor when this process is killed.
    """

    def __init__(self, functions: Sequence[Callable[[], T]]) -> None:
        self._running: list[tuple[int, int]] = []
        weakref.finalize(self, _stop, self._running)
        # No signal may come between a birth and its record: that child would be forgotten.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        try:
            self._start(functions, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start(self, functions: Sequence[Callable[[], T]], mask: set[int]) -> None:
        parent = os.getpid()
        for function in functions:
            memory = os.memfd_create("pageowner")
            with warnings.catch_warnings():
                # Safe with threads about: the child takes no lock of theirs.
                warnings.simplefilter("ignore", DeprecationWarning)
                try:
                    child = os.fork()
                except OSError:
                    os.close(memory)
                    raise
            if not child:
                self._run(function, memory, mask, parent)
            self._running.append((child, memory))

    @staticmethod
    def _run(function: Callable[[], T], memory: int, mask: set[int], parent: int) -> None:
        status = 1
        try:
            end_with(parent)
            for number in _ENDINGS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            gc.disable()  # a short life, and no cycles in it
            try:
                result: tuple[bool, object] = (True, function())
            except Exception as error:
                result = (False, error)
            with os.fdopen(memory, "wb") as file:
                pickle.dump(result, file, protocol=5)
            status = 0
        finally:
            os._exit(status)

    def results(self) -> list[T]:
        """What the functions returned, in their order; raises what the first failing one raised.

        Raises PageownerError if a process was killed. Whatever happens, none is left running.
        """
        results: list[T] = []
        try:
            while self._running:
                child, memory = self._running[0]
                try:
                    _, status = os.waitpid(child, 0)
                except ChildProcessError:
                    # SIGCHLD is ignored, as some starters leave it: no status, but a result.
                    status = 0 if os.fstat(memory).st_size else 1 << 8
                self._running.pop(0)
                with os.fdopen(memory, "rb") as file:
                    if status:
                        raise PageownerError(
                            "a process reading the dump ended unexpectedly"
                            f" ({_how(status)}); is there too little memory?")
                    file.seek(0)
                    good, value = pickle.load(file)
                if not good:
                    raise value
                results.append(cast(T, value))
            return results
        finally:
            _stop(self._running)


class Memory:
    """Files of memory into which workers put what is too large to be copied once more."""

    def __init__(self, number: int) -> None:
        self.files: list[int] = []
        weakref.finalize(self, _close, self.files)
        for _ in range(number):
            self.files.append(os.memfd_create("pageowner"))

    @staticmethod
    def put(file: int, texts: Sequence[bytes | mmap]) -> None:
        """Put texts behind what is there."""
        with os.fdopen(file, "wb", 0, closefd=False) as sink:
            for text in texts:
                left = memoryview(text)
                while left:
                    left = left[sink.write(left) or 0:]

    def held(self) -> list[bytes | mmap]:
        """What is in each file."""
        return [mmap(file, size, prot=PROT_READ) if (size := os.fstat(file).st_size) else b""
                for file in self.files]


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _stop(running: list[tuple[int, int]]) -> None:
    """End what still runs."""
    for child, memory in running:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        with suppress(OSError):
            os.close(memory)
    running.clear()


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit status {os.waitstatus_to_exitcode(status)}"
