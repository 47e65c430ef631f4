"""``pageowner fleet``: Owners of memory on many machines: send, compare, find leaks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

from pageowner.cli.listing import lines
from pageowner.cli.verb import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VERBS", "command"]

VERBS = lines(("push", "report", "leaks", "diff", "who-else", "query", "compact", "expire"),
              "fleet")
"""Every verb of the group and its line in the help."""


class _Fleet(VerbGroup):
    """Its verbs, each imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"pageowner.cli.fleet_{cmd_name.replace('-', '_')}")
        found: click.Command = module.command
        return found

    def resolve_command(self, ctx: click.Context, args: list[str],
                        ) -> tuple[str | None, click.Command | None, list[str]]:
        self.check_word(args, VERBS, ctx)
        return super().resolve_command(ctx, args)

    def lines(self) -> Sequence[tuple[str, str]]:
        return list(VERBS.items())


_HELP = """Owners of memory on many machines: send, compare, find leaks.

Every machine pushes small tables of its owners to a STORE, a directory or s3://BUCKET/PREFIX; the
other verbs read the tables of all machines."""

command = _Fleet("fleet", subcommand_metavar="VERB [STORE] [OPTIONS]", options_metavar="",
                 help=_HELP, examples=(
    ("pageowner fleet push s3://memory/fleet --every 1h --label rack=7", "on every machine"),
    ("pageowner fleet leaks s3://memory/fleet", "which machines leak, over the last 7 days"),
    ("pageowner fleet diff STORE --before kernel=6.12.95 --after kernel=6.12.107",
     "what a kernel changed"),
))
