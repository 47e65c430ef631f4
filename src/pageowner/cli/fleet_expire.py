"""``pageowner fleet expire``: Remove old captures; run it from a timer."""

from __future__ import annotations

import click

from pageowner.cli.fleet_options import store
from pageowner.cli.messages import say
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("expire")
@store
@click.option("--keep", required=True, metavar="TIME", help="Keep captures younger than TIME.")
def command(store: str, keep: str) -> None:
    """Remove the captures of days that ended longer ago than --keep.

    Examples:
        pageowner fleet expire STORE --keep 90d
        pageowner fleet expire s3://memory/fleet --keep 30d
    """
    from pageowner.api.fleet import Fleet
    from pageowner.report.text import count_of

    say(f"{count_of(Fleet(store).expire(keep), 'file')} removed", "")
