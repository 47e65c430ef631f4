"""The command ``pageowner VERB [SOURCE] [options]``.

One thin module per verb, imported only when that verb runs, so that ``--help`` is quick. Errors
end here, in one line on stderr: exit status 1, or 2 for wrong usage.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from pageowner import __version__
from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

VERBS = {
    "report": "Who owns the memory: by stack, task, subsystem, cgroup, …",
    "who": "All that is known of a page frame.",
    "stacks": "Pages per stack, as the kernel's page_owner_stacks prints them.",
    "dump": "The text that the kernel's page_owner prints.",
    "save": "Keep the present state, or a dump, as one small Parquet file.",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    # Millions of rows are few objects: looking for garbage among them is most often in vain.
    gc.set_threshold(100_000, 20, 100)
    try:
        _cli.main(args=None if argv is None else list(argv), prog_name="pageowner",
                  standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show(sys.stderr)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "pageowner"
        return _fail(f"{error.format_message().rstrip('.')}; see '{path} --help'", 2)
    except click.exceptions.Exit as error:
        return error.exit_code
    except PageownerError as error:
        return _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader had enough (head, less): no error, but nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except MemoryError:
        return _fail("out of memory; filter or split the source", 1)
    except OSError as error:
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail(f"cannot write the output: {error.strerror or error}", 1)
    return 0


def _fail(message: str, status: int) -> int:
    from pageowner.report.text import printable

    print(f"pageowner: {printable(message)}", file=sys.stderr)
    return status
