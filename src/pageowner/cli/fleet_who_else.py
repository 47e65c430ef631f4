"""``pageowner fleet who-else``: Which machines have memory allocated through a function."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pageowner.cli.fleet_options import about, fleet_filters, show, store, top
from pageowner.cli.options import as_json
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("who-else")
@store
@click.argument("functions", nargs=-1, metavar="[FUNCTION]...")
@top
@about("7d")
@fleet_filters
@as_json
def command(store: str, functions: tuple[str, ...], chosen: Filter, top: int | None, since: str,
            until: str | None, machines: tuple[str, ...], engine: str, memory: str | None,
            as_json: bool) -> None:
    """Which machines have memory allocated through a function, or memory that the filters select.

    Examples:
        pageowner fleet who-else STORE 'nicdrv_*'
        pageowner fleet who-else STORE --module nicdrv --machines kernel=6.12.107
        pageowner fleet who-else STORE --comm dd --older 1d
    """
    from pageowner.api.fleet import Fleet

    if functions:
        chosen = replace(chosen, stack=(*(chosen.stack or ()), *functions))
    answer = Fleet(store, engine=engine, memory=memory).who_else(
        since=since, until=until, machines=machines, where=chosen)
    show(answer, "draw_machines", top, as_json, answer.machines)
