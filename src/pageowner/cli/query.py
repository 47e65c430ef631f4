"""``pageowner query``: Query one snapshot or several in SQL."""

from __future__ import annotations

import click

from pageowner.cli import complete
from pageowner.cli.options import as_json, at_times, load, or_objects
from pageowner.cli.output import write_out
from pageowner.cli.verb import verb
from pageowner.report.text import printable

__all__ = ["command"]

_ROWS = 100


@verb("query")
@click.argument("sql", required=False, metavar="SQL")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete.files)
@click.option("--columns", is_flag=True, help="List the columns and what they mean.")
@click.option("--top", type=click.IntRange(min=1), metavar="N",
              help=f"Show N rows of the table ({_ROWS} by default).")
@click.option("--all", "everything", is_flag=True, help="Show all rows.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all rows as CSV.")
@at_times("sources")
@or_objects("sources")
@as_json
def command(sql: str | None, sources: tuple[str, ...], columns: bool, top: int | None,
            everything: bool, as_csv: bool, as_json: bool) -> None:
    """Query one SOURCE or several in SQL (DuckDB's dialect).

    The table 'pages' has a row for each allocation of all sources. Each source is also a table,
    named after its file (before, after). The SQL cannot read or write anything else.

    Examples:
        pageowner query "SELECT comm, sum(pages) FROM pages GROUP BY comm" dump.txt
        pageowner query "SELECT source, sum(bytes) FROM pages GROUP BY ALL" A.parquet B.parquet
        pageowner query --columns
            the columns of the table
    """
    if columns:
        if sql is not None:
            raise click.UsageError("--columns goes alone")
        _list_columns()
        return
    if sql is None:
        raise click.UsageError("ask something: SQL, such as \"FROM pages LIMIT 5\"")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json contradict each other")
    if top is not None and (everything or as_csv or as_json):
        raise click.UsageError("--top is for the table, and not with --all; in SQL it is LIMIT")
    if sources.count("-") > 1:
        raise click.UsageError("standard input can be read once")
    from pageowner.api.query import query

    answer = query(sql, *sources, read=load)
    from pageowner.report import query_rows
    from pageowner.report.terminal import is_terminal, paper

    if as_json:
        from pageowner.report.json_text import JsonRows

        write_out(JsonRows(answer.columns, answer.rows()))
    elif as_csv:
        from pageowner.report.csv_rows import CsvRows

        write_out(CsvRows(answer.columns, answer.rows(), printable if is_terminal() else str))
    else:
        query_rows.draw(answer.columns, answer.rows(), None if everything else top or _ROWS,
                        paper())


def _list_columns() -> None:
    from pageowner.model.schema import DERIVED, SAVED
    from pageowner.report.terminal import paper
    from pageowner.report.wrapping import entry

    sheet, both = paper(), {"COLUMN": "MEANING", **SAVED, **DERIVED}
    widest = max(map(len, both))
    for name, meaning in both.items():
        entry(sheet, f"{name:<{widest}}  ", meaning)
