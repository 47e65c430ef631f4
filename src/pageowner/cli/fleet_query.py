"""``pageowner fleet query``: Query a fleet in SQL."""

from __future__ import annotations

import click

from pageowner.cli.fleet_options import store
from pageowner.cli.messages import say
from pageowner.cli.options import as_json
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb

__all__ = ["command"]

_ROWS = 100


@verb("query")
@store
@click.argument("sql", metavar="SQL")
@click.option("--since", default="1d", show_default=True, metavar="TIME",
              help="Only captures since then: 2h (ago), 14:30 or 2026-11-23T14:30.")
@click.option("--until", metavar="TIME", help="Only captures up to then.")
@click.option("--engine", default="duckdb", show_default=True, metavar="NAME",
              help="duckdb, or a cluster of Spark: spark://HOST:PORT, sc://HOST:PORT.")
@click.option("--memory", metavar="SIZE", help="Memory that the engine may use, such as 4GB.")
@click.option("--top", type=click.IntRange(min=1), default=_ROWS, show_default=True, metavar="N",
              help="Show N rows of the table.")
@as_json
def command(store: str, sql: str, since: str, until: str | None, engine: str,
            memory: str | None, top: int, as_json: bool) -> None:
    """Query a fleet in SQL: the tables owners, stacks and captures.

    Whole hours from --since to --until are read. With DuckDB, the SQL cannot read anything else.

    Examples:
        pageowner fleet query STORE "SELECT host, sum(pages) FROM owners GROUP BY host"
        pageowner fleet query STORE "SELECT kernel, count(DISTINCT host) FROM captures GROUP BY 1"
    """
    from pageowner.api.fleet import Fleet

    found = Fleet(store, engine=engine, memory=memory).query(
        sql, since=since, until=until, notes=_note)
    rows = zip(*(column.to_pylist() for column in found.columns), strict=True)
    from pageowner.report import query_rows
    from pageowner.report.json_text import JsonRows
    from pageowner.report.terminal import paper

    if as_json:
        write_out(JsonRows(found.column_names, rows))
    else:
        query_rows.draw(found.column_names, iter(list(rows)), top, paper())


def _note(text: str) -> None:
    say(text)
