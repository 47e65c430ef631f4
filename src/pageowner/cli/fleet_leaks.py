"""``pageowner fleet leaks``: Which machines leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pageowner.cli.fleet_options import about, grouped, owner_filters, show, store, top
from pageowner.cli.options import as_json
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]

LEAKS = 3


@verb("leaks")
@store
@grouped
@click.option("--min", "least", default="1MiB", show_default=True, metavar="SIZE",
              help="Hide owners that grew by less than SIZE.")
@click.option("--watched", default="1d", show_default=True, metavar="TIME",
              help="Judge only boots whose captures cover TIME or longer.")
@click.option("--fail", is_flag=True, help=f"Exit with status {LEAKS} if there is a leak.")
@top
@about("7d")
@owner_filters
@as_json
def command(store: str, chosen: Filter, by: str, least: str, watched: str, fail: bool,
            top: int | None, since: str, until: str | None, machines: tuple[str, ...],
            engine: str, memory: str | None, as_json: bool) -> int:
    """Which machines leak: owners that grew steadily, or in bursts, and were not freed.

    The rules are those of 'pageowner leaks'. Every boot of every machine is judged by itself.

    Examples:
        pageowner fleet leaks STORE
        pageowner fleet leaks STORE --since 28d --watched 7d    slower leaks
        pageowner fleet leaks STORE --by module,subsystem --machines rack=7
    """
    from pageowner.api.fleet import Fleet

    answer = Fleet(store, engine=engine, memory=memory).leaks(
        by, since=since, until=until, machines=machines, where=chosen, least=least,
        watched=watched)
    rows = show(answer, "draw_leaks", top, as_json, answer.by, answer.machines)
    return LEAKS if fail and any(row["kind"] == "leak" for row in rows) else 0
