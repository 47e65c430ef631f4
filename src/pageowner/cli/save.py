"""``pageowner save``: Save the current state, or a dump, as one small Parquet file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pageowner.cli import complete
from pageowner.cli.messages import written
from pageowner.cli.options import at_time, filters, load, or_objects
from pageowner.cli.overwriting import spare
from pageowner.cli.verb import verb
from pageowner.model.source_kinds import PARQUET, kind_of
from pageowner.report.text import size

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]


@verb("save")
@click.argument("file", shell_complete=complete.files)
@click.argument("source", required=False, shell_complete=complete.files)
@at_time
@or_objects("source")
@filters
def command(file: str, source: str | None, chosen: Filter) -> None:
    """Save the current state, or SOURCE, as a snapshot: one small Parquet FILE.

    Every verb can read it, and so can DuckDB, pandas, Polars and Spark.

    Examples:
        pageowner save now.parquet                          this machine
        pageowner save small.parquet dump.txt.gz            a dump, in a hundredth of its size
        pageowner save ext4.parquet dump.txt --module ext4  only pages of one module
    """
    if file == "-":
        raise click.UsageError("a snapshot is written to a file; name one")
    spare(file, (PARQUET,), "not a snapshot; refusing to overwrite it. The snapshot's name comes"
                            f" first: pageowner save SNAPSHOT {source or file}")
    # while other processes read a large dump
    from pageowner.report.amounts import counts
    from pageowner.sources import live_users
    from pageowner.storage import parquet  # noqa: F401

    with live_users.using():
        snapshot = load(source, chosen, whole=True)
    if kind_of(snapshot.meta).live:
        snapshot.meta.source = ""  # where a capture was read is nothing that it says
    snapshot.save(file)
    written(file, about=f"{counts(snapshot.meta, snapshot.pages, snapshot.blocks)},"
                        f" {size(os.path.getsize(file))}")
