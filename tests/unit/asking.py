"""Questions about a source: by the command, and by the call."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pageowner
from pageowner.cli import main

_NAMES = ("stdin", "stdout", "stderr")
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def run(*words: object, out: int | None = None, **environment: str) -> tuple[int, str, str]:
    """The command's exit status, standard output and standard error, ``out`` being its standard
    output if that is given.

    It runs in this process, with standard streams of its own and these variables: to start Python
    and import Arrow anew is two thirds of the time of a small report. Where it matters how a
    process starts or ends, a test starts one.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        ends = [null, files[0].fileno() if out is None else out, files[1].fileno()]
        with _streams(ends), _environment(environment), _as_it_was():
            status = main([str(word) for word in words])
            sys.stdout.flush()
            sys.stderr.flush()
        said = []
        for file in files:
            file.seek(0)
            said.append(file.read().decode(errors="surrogateescape"))
    return status, said[0], said[1]


@contextmanager
def _streams(ends: list[int]) -> Iterator[None]:
    """Standard streams that lead to these files, as those of a process that has just begun."""
    before, kept = [getattr(sys, name) for name in _NAMES], [os.dup(number) for number in range(3)]
    for stream in before[1:]:
        stream.flush()
    try:
        for number, (name, end) in enumerate(zip(_NAMES, ends, strict=True)):
            os.dup2(end, number)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8",  # noqa: SIM115
                                    errors="backslashreplace" if number == 2 else "strict",
                                    closefd=False))
        yield
    finally:
        for number, (name, stream) in enumerate(zip(_NAMES, before, strict=True)):
            getattr(sys, name).close()
            setattr(sys, name, stream)
            os.dup2(kept[number], number)
            os.close(kept[number])


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What the command sets for its whole process."""
    threshold, handlers = gc.get_threshold(), [signal.getsignal(number) for number in _SIGNALS]
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            signal.signal(number, handler)


def python(code: str) -> str:
    """What a Python of its own prints for this code."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout


def pages_by(source: Any, key: str = "stack") -> dict[Any, int]:
    """The pages (bytes, where the source tells these) of each owner."""
    table = pageowner.owners(source, key).table
    return dict(zip(table[key].to_pylist(), table["pages"].to_pylist(), strict=True))
