"""``pageowner fleet diff``: Compare machines: before and after a kernel, or by any label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli.fleet_options import about, fleet_filters, grouped, show, store, top
from pageowner.cli.options import as_json
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("diff")
@store
@click.option("--before", multiple=True, required=True, metavar="KEY=PATTERN",
              help="The machines before, such as kernel=6.12.95; as with --machines.")
@click.option("--after", multiple=True, required=True, metavar="KEY=PATTERN",
              help="The machines after.")
@grouped
@top
@about("7d")
@fleet_filters
@as_json
def command(store: str, before: tuple[str, ...], after: tuple[str, ...], chosen: Filter, by: str,
            top: int | None, since: str, until: str | None, machines: tuple[str, ...],
            engine: str, memory: str | None, as_json: bool) -> None:
    """Compare machines: before and after a kernel, with one driver and with another.

    A size is the mean over a machine's captures, and then over machines. Owners are listed if
    the difference is significant (Mann-Whitney, three standard deviations).

    Examples:
        pageowner fleet diff STORE --before kernel=6.12.95 --after kernel=6.12.107
        pageowner fleet diff STORE --before driver=2.0 --after driver=2.1 --by module
    """
    from pageowner.api.fleet import Fleet

    answer = Fleet(store, engine=engine, memory=memory).diff(
        before, after, by, since=since, until=until, machines=machines, where=chosen)
    show(answer, "draw_diff", top, as_json, answer.by, (" ".join(before), " ".join(after)))
