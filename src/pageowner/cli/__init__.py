"""The command ``pageowner VERB [SOURCE] [options]``.

One thin module per verb, imported only when that verb runs, so that ``--help`` is quick. Errors
end here, in one line on stderr: exit status 1, or 2 for wrong usage. click itself is imported when
a large dump is already being read.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.report import ascii
from pageowner.sources import readahead

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

class _Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as an exception, so that temporary files and processes go."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    # Millions of rows are few objects: looking for garbage among them is most often in vain.
    gc.set_threshold(100_000, 20, 100)
    # Arrow's own way with memory keeps what was freed, which may be twice what is in use.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    _prepare_streams()
    _catch_signals()
    start = sys.modules.get("pageowner.start")  # not where this is a call of another program's
    try:
        if start is not None:
            start.at_work(True)
        readahead.begin(sys.argv[1:] if argv is None else argv)
        from pageowner.cli.group import run

        status = run(argv)
        sys.stdout.flush()
        readahead.forget()
        return status
    except PageownerError as error:
        return _fail(str(error), error.exit_status)
    except _Ended as error:
        return 128 + int(error.args[0])
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (BrokenPipeError, SystemExit):
        # The reader had enough (head, less): no error, but nothing more can be written. click
        # makes SystemExit of it.
        _drop_output()
        return 128 + signal.SIGPIPE
    except MemoryError:
        return _fail("out of memory; filter or split the source", 1)
    except OSError as error:
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", 1)
        if _is_of_bpf(error):
            return _fail(f"{error.strerror}; is another pageowner turning tracking on or off?"
                         if error.errno == errno.ENOENT else str(error.strerror), 1)
        _drop_output()
        return _fail(f"cannot write the output: {error.strerror or error}", 1)
    finally:
        if start is not None:
            start.at_work(False)


def _is_of_bpf(error: OSError) -> bool:
    # who was refused by BPF has imported it
    libbpf = sys.modules.get("pageowner.tracker.load.libbpf")
    return libbpf is not None and isinstance(error, libbpf.BpfError)


def _prepare_streams() -> None:
    """Standard streams that can be written to whatever they are."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        # Closed by who started us (>&-): writing must fail, and no file take its number.
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 1:
            os.dup2(null, 1)
            os.close(null)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        # PYTHONUNBUFFERED: one write of much text to a pipe or a full disk may write a part of it
        # and say so in a number that nobody looks at.
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding=sys.stdout.encoding,
            line_buffering=sys.stdout.isatty())
    # In a locale without UTF-8 an arrow must not end the report.
    ascii.prepare(sys.stdout)
    ascii.prepare(sys.stderr)


def _catch_signals() -> None:
    def end(number: int, frame: object) -> None:
        raise _Ended(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if (threading.current_thread() is threading.main_thread()
                and signal.getsignal(number) is signal.SIG_DFL):
            signal.signal(number, end)


def _drop_output() -> None:
    """What is still to be written at exit goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _fail(message: str, status: int) -> int:
    from pageowner.cli.messages import say

    say(message)
    return status
