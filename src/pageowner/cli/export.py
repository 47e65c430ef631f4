"""``pageowner export``: Write owners for other programs: pprof, folded, speedscope, JSON, CSV,
Parquet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pageowner.api.export import FORMATS, UNITS, export
from pageowner.cli import complete
from pageowner.cli.messages import written
from pageowner.cli.options import filters, grouped, or_objects, reading, source
from pageowner.cli.output import standard_output
from pageowner.cli.overwriting import spare_sources
from pageowner.cli.verb import verb
from pageowner.model.source_kinds import PARQUET

if TYPE_CHECKING:
    from pageowner.analysis.filters import Filter

__all__ = ["command"]

_BINARY = ("pprof", "parquet")
_OWN = {"parquet": (PARQUET,), "pprof": (b"\x1f\x8b",)}
"""What files of a format begin with that are written over."""


@verb("export")
@source
@or_objects("source")
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True,
              help="pprof or speedscope for these viewers, folded for flame graph tools; or a table"
                   " of owners as json, csv or parquet.")
@click.option("-o", "--output", metavar="FILE", shell_complete=complete.files,
              help="Write to FILE. Default: -, standard output.")
@grouped("Separate owners by these keys of report: labels in pprof, frames below the"
         " stack in folded and speedscope, columns in the others.")
@click.option("--unit", type=click.Choice(UNITS),
              help="The unit of folded; bytes by default. Other formats contain all three.")
@filters
def command(source: str | None, kind: str, output: str | None, by: str | None, unit: str | None,
            chosen: Filter) -> None:
    """Write owners in a format for other programs.

    Examples:
        pageowner export --format pprof -o memory.pb.gz dump.txt
            then: go tool pprof -http : memory.pb.gz
        pageowner export --format folded dump.txt >stacks.folded
            for flamegraph.pl --countname bytes
        pageowner export --format speedscope -o memory.json         open it in speedscope
        pageowner export --format csv --by comm,subsystem dump.txt
    """
    if unit is not None and kind != "folded":
        raise click.UsageError(f"--unit is for folded; {kind} has bytes, pages and blocks")
    if output == "-":
        output = None
    if kind in _BINARY and output is None and sys.stdout.isatty():
        raise click.UsageError(f"{kind} is not text; name a file: -o FILE")
    if output is not None:
        spare_sources(output, source, _OWN.get(kind, ()))
    from pageowner.analysis.filters import key_names

    # before the source is read, which may take a while
    names = None if by is None else key_names(by)
    from pageowner.sources import live_users

    with live_users.using_for(names or ()):
        found = reading(chosen)(source)
    if output is not None:
        export(found, output, kind, by=names, unit=unit or "bytes")
        written(output)
        return
    with standard_output() as file:
        export(found, file, kind, by=names, unit=unit or "bytes")
