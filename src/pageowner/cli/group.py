"""The verbs as one command of click's, each imported when it is run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from pageowner import __version__
from pageowner.cli.listing import lines
from pageowner.errors import UsageError, near
from pageowner.model.source_kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EPILOG", "VERBS", "program", "run"]

_ORDER = ("on", "off", "status", "report", "diff", "leaks", "top", "slabs", "frag", "map", "query",
          "flame", "balance", "who", "explain", "stacks", "dump", "save", "export", "record",
          "fleet", "serve", "doctor", "completion", "sort")
"""Verbs in the order of the help; others follow by name."""

VERBS = lines(_ORDER)
"""Every verb and its line in the help."""

EPILOG = ("SOURCE is a page_owner dump of any kernel (also .gz .xz .zst), "
          + ", ".join(kind.named for kind in KINDS.values() if kind.named)
          + ", a vmcore, a saved snapshot, a directory of 'record' (with --at TIME), or - for"
          " standard input; default: this machine. See 'pageowner VERB --help' for details.")
"""What the help says below the verbs."""


class _Verbs(click.Group):
    """Verbs by name, each imported when it is run."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def resolve_command(
            self, ctx: click.Context, args: list[str],
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(f"there is no verb {args[0]!r}; {near(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        import importlib

        command: click.Command = importlib.import_module(f"pageowner.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_Verbs, subcommand_metavar="VERB [SOURCE] [OPTIONS]", options_metavar="",
               context_settings={"help_option_names": ["-h", "--help"]},
               epilog=EPILOG)
@click.version_option(__version__, message="%(prog)s %(version)s")
def program() -> None:
    """Who owns every page of this machine's memory."""


_LONGEST = 4000
"""Characters of a message about the command line."""


def _said(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        hint = near(error.option_name, error.possibilities or ())
        return f"there is no option {error.option_name}" + (
            f"; {hint}" if error.possibilities else "")
    said = " ".join(error.format_message().split()).rstrip(".")  # some are of many lines
    # some repeat all words of the line: of very long ones the beginning and the end are enough
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST // 2]} … {said[-_LONGEST // 2:]}"


def _complete(form: str) -> int:
    """Answer a shell that wants to complete a line."""
    from click.shell_completion import shell_complete

    from pageowner.cli.complete import VARIABLE, register

    register()
    return shell_complete(program, {}, "pageowner", VARIABLE, form)


def _path(words: Sequence[str]) -> str:
    """``pageowner`` and the verb that the words begin with, if they do."""
    path = "pageowner"
    command: click.Command = program
    context = click.Context(program)
    for word in words:
        if not isinstance(command, click.Group):
            break
        if (found := command.get_command(context, word)) is None:
            break
        path, command = f"{path} {word}", found
    return path


def run(argv: Sequence[str] | None) -> int:
    """Run what the words say; returns the exit status.

    Raises UsageError for words that are none, and KeyboardInterrupt as it came.
    """
    if form := os.environ.get("_PAGEOWNER_COMPLETE"):
        return _complete(form)
    try:
        status = program.main(args=None if argv is None else list(argv), prog_name="pageowner",
                           standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show(sys.stderr)
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else _path(sys.argv[1:] if argv is None else argv)
        raise UsageError(f"{_said(error)}; see '{path} --help'") from error
    except click.Abort as error:
        # click makes it of Ctrl-C, and of what else ends us
        raise (error.__cause__ or KeyboardInterrupt()) from error
    # click returns the status of click.exceptions.Exit; commands themselves return None
    return status if isinstance(status, int) else 0
