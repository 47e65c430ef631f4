"""``pageowner fleet diff``: Compare machines: before and after a kernel, or by any label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli.fleet_options import about, fleet_filters, grouped, rows_of, store, top
from pageowner.cli.options import as_json
from pageowner.cli.output import write_out
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

    A size is the mean over machines, and for each machine over its captures. Owners are listed if
    the difference is significant (Mann-Whitney, three standard deviations).

    Examples:
        pageowner fleet diff STORE --before kernel=6.12.95 --after kernel=6.12.107
        pageowner fleet diff STORE --before driver=2.0 --after driver=2.1 --by module
    """
    from pageowner.api.fleet import Fleet

    answer = Fleet(store, engine=engine, memory=memory).diff(
        before, after, by, since=since, until=until, machines=machines, where=chosen)
    rows = rows_of(answer)
    from pageowner.report import fleet_view
    from pageowner.report.terminal import paper

    if as_json:
        write_out(fleet_view.to_json(rows, top, fleet_view.facts(answer)))
    else:
        fleet_view.draw_diff(rows, answer.by, (" ".join(before), " ".join(after)),
                             answer.page_size, top or 20, paper())
