"""What the questions to a fleet have in common: the store, the time, the machines, the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.cli.options import some_filters
from pageowner.cli.output import write_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.fleet.answers import FleetAnswer

__all__ = ["FILTERS", "about", "fleet_filters", "grouped", "owner_filters", "show", "store", "top"]

FILTERS = ("comm", "memcg", "container", "pod", "subsystem", "order", "migratetype", "state",
           "module", "allocator", "stack")
"""The filters of owners that a fleet's tables can answer."""

owner_filters = some_filters(FILTERS)
fleet_filters = some_filters((*FILTERS, "older", "newer"))

store = click.argument("store", metavar="STORE", shell_complete=complete.folders)

top = click.option("--top", type=click.IntRange(min=1), metavar="N",
                   help="Show N rows (20 by default; in JSON all).")


def about(since: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--since``, ``--until``, ``--machines``, ``--engine`` and ``--memory``."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
                click.option("--memory", metavar="SIZE", help="Memory that DuckDB, or each executor"
                             " of Spark, may use, such as 4GB."),
                click.option("--engine", default="duckdb", show_default=True, metavar="NAME",
                             help="duckdb, in this process; or a cluster of Spark:"
                             " spark://HOST:PORT, sc://HOST:PORT (Spark Connect)."),
                click.option("--machines", multiple=True, metavar="KEY=PATTERN",
                             help="Only machines that match: host=db*, kernel=6.12.95, or a label"
                             " such as rack=7; may be given several times."),
                click.option("--until", metavar="TIME", help="Only captures up to then."),
                click.option("--since", default=since, show_default=True, metavar="TIME",
                             help="Only captures since then: 2h (ago), 14:30 or"
                             " 2026-11-23T14:30.")):
            command = option(command)
        return command

    return decorate


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--by``."""
    return click.option(
        "--by", default="stack", show_default=True, metavar="KEY[,KEY...]",
        shell_complete=complete.one_of(_keys, several=True),
        help="Group owners by any of stack, comm, subsystem, module, frame, allocator, memcg,"
        " container, pod, order, migratetype, state.")(command)


def _keys() -> tuple[str, ...]:
    from pageowner.fleet.choosing import OWNER_KEYS

    return OWNER_KEYS


def show(answer: FleetAnswer, draw: str, top: int | None, as_json: bool, *about: Any,
         ) -> list[dict[str, Any]]:
    """Prints an answer, and what is odd about it on stderr; its rows. ``draw``: the function of
    `pageowner.report.fleet_view` for a table, which is also told ``about`` what it is."""
    from pageowner.report import fleet_view
    from pageowner.report.terminal import paper

    for note in answer.notes:
        say(note)
    rows: list[dict[str, Any]] = answer.owners.to_pylist()
    if as_json:
        write_out(fleet_view.to_json(rows, top, fleet_view.facts(answer)))
    else:
        getattr(fleet_view, draw)(rows, *about, answer.page_size, top or 20, paper())
    return rows
