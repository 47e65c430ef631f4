"""``pageowner fleet report``: Owners across machines, and the machines that stand out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli.fleet_options import about, fleet_filters, grouped, show, store, top
from pageowner.cli.options import as_json
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("report")
@store
@grouped
@click.option("--min", "least", default="1MiB", show_default=True, metavar="SIZE",
              help="A machine stands out only if it exceeds the median by more than SIZE.")
@top
@about("1d")
@fleet_filters
@as_json
def command(store: str, chosen: Filter, by: str, least: str, top: int | None, since: str,
            until: str | None, machines: tuple[str, ...], engine: str, memory: str | None,
            as_json: bool) -> None:
    """Owners across machines, by each machine's last capture, and the machines that stand out.

    MEDIAN and P99 are over all machines, including those without the owner. OUT counts the machines
    that exceed the median by more than six times the spread.

    Examples:
        pageowner fleet report STORE                            by stack
        pageowner fleet report STORE --by subsystem,module      what for, through which module
        pageowner fleet report STORE --machines 'kernel=6.12.*' --older 1d
            pages at least a day old, on these kernels
    """
    from pageowner.api.fleet import Fleet

    answer = Fleet(store, engine=engine, memory=memory).report(
        by, since=since, until=until, machines=machines, where=chosen, least=least)
    show(answer, "draw_report", top, as_json, answer.by, answer.machines)
