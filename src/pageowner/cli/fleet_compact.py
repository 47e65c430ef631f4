"""``pageowner fleet compact``: Join small files into large ones; run it from a timer."""

from __future__ import annotations

import click

from pageowner.cli.fleet_options import store
from pageowner.cli.messages import say
from pageowner.cli.verb import verb

__all__ = ["command"]


@verb("compact")
@store
@click.option("--grace", default="10m", show_default=True, metavar="TIME",
              help="Do not compact hours that ended less than TIME ago, and remove small files only"
                   " when they were compacted at least TIME ago.")
def command(store: str, grace: str) -> None:
    """Join the small files of each past hour into one large file.

    Run it from a timer, at least once an hour. Nothing is lost if it is killed, or runs twice at
    the same time, and queries meanwhile count each capture once.

    Examples:
        pageowner fleet compact s3://memory/fleet
        pageowner fleet compact STORE --grace 1h    where captures come late
    """
    from pageowner.api.fleet import Fleet
    from pageowner.report.text import count, count_of

    done = Fleet(store).compact(grace)
    for text in done.damaged:
        say(f"damaged, left where it is: {text}")
    for text in done.away:
        say(f"cannot be fetched for now, left where it is: {text}")
    say(f"{count_of(done.captures, 'capture')} in {count_of(done.hours, 'hour')} compacted,"
        f" {count(done.removed)} small files removed", "")
