"""The command ``pageowner VERB [SOURCE] [options]``.

One thin module per verb, imported only when that verb runs, so that ``--help`` is quick. Errors
end here, in one line on stderr: exit status 1, or 2 for wrong usage.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import click

from pageowner import __version__
from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

VERBS = {
    "on": "Start tracking: from now on the kernel keeps the owner of every page.",
    "off": "Stop tracking and leave nothing behind.",
    "status": "What is tracked, what it costs, what was missed.",
    "report": "Who owns the memory: by stack, task, subsystem, cgroup, …",
    "who": "All that is known of a page frame.",
    "stacks": "Pages per stack, as the kernel's page_owner_stacks prints them.",
    "dump": "The text that the kernel's page_owner prints.",
    "save": "Keep the present state, or a dump, as one small Parquet file.",
    "doctor": "What this kernel allows, and so how exact tracking can be here.",
    "sort": "Drop-in for the kernel's page_owner_sort.",
}
"""Every verb and its line in the help; the module is ``pageowner.cli.VERB``."""


class _Verbs(click.Group):
    """Verbs by name, each imported when it is run."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        import importlib

        command: click.Command = importlib.import_module(f"pageowner.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]},
               epilog="SOURCE is a page_owner dump of any kernel (also .gz .xz .zst), a saved"
                      " snapshot, or - for standard input; left out, it is this machine."
                      " 'pageowner VERB --help' tells more.")
@click.version_option(__version__, message="%(prog)s %(version)s")
def _cli() -> None:
    """Who owns every page of this machine's memory."""


class _Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as an exception, so that temporary files and processes go."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    # Millions of rows are few objects: looking for garbage among them is most often in vain.
    gc.set_threshold(100_000, 20, 100)
    _prepare_streams()
    _catch_signals()
    try:
        status = _cli.main(args=None if argv is None else list(argv), prog_name="pageowner",
                           standalone_mode=False)
        sys.stdout.flush()
        # click returns the status of click.exceptions.Exit; commands themselves return None
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show(sys.stderr)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pageowner"
        return _fail(f"{error.format_message().rstrip('.')}; see '{path} --help'", 2)
    except PageownerError as error:
        return _fail(str(error), error.exit_status)
    except _Ended as error:
        return 128 + int(error.args[0])
    except (KeyboardInterrupt, click.Abort) as error:
        ended = error.__cause__
        return 128 + int(ended.args[0] if isinstance(ended, _Ended) else signal.SIGINT)
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
        _drop_output()
        return _fail(f"cannot write the output: {error.strerror or error}", 1)


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In a locale without UTF-8 an arrow must not end the report.
        sys.stdout.reconfigure(errors="backslashreplace")


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
    from pageowner.report.text import printable

    print(f"pageowner: {printable(message)}", file=sys.stderr)
    return status
