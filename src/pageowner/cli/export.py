"""``pageowner export``."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pageowner.cli import complete
from pageowner.cli.messages import written
from pageowner.cli.options import filters, load, load_counted, output_encoding, source
from pageowner.cli.verb import verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.analysis.filters import Filter
    from pageowner.model.counts import Counted
    from pageowner.model.snapshot import Snapshot

__all__ = ["command"]

_BINARY = ("pprof", "parquet")
_FORMATS = ("pprof", "folded", "speedscope", "json", "csv", "parquet")

_EXAMPLES = (
    ("pageowner export --format pprof -o memory.pb.gz dump.txt",
     "then: go tool pprof -http : memory.pb.gz"),
    ("pageowner export --format folded dump.txt >stacks.folded",
     "for flamegraph.pl --countname bytes"),
    ("pageowner export --format speedscope -o memory.json", "open it in speedscope"),
    ("pageowner export --format csv --by comm,subsystem dump.txt", ""),
)


@verb("export", *_EXAMPLES)
@source
@click.option("--format", "kind", type=click.Choice(_FORMATS), required=True,
              help="pprof and speedscope for those viewers, folded stacks for flame graph tools,"
                   " owners as JSON, CSV or Parquet.")
@click.option("-o", "--output", metavar="FILE", shell_complete=complete.files,
              help="Write FILE; - is standard output, as without.")
@click.option("--by", metavar="KEY[,KEY...]", shell_complete=complete.keys,
              help="Tell apart by these keys of report. In pprof they are labels, in folded and"
                   " speedscope frames around the stack, else columns.")
@click.option("--unit", type=click.Choice(["bytes", "pages", "blocks"]),
              help="What folded counts; bytes by default. The others have all three.")
@filters
def command(source: str | None, kind: str, output: str | None, by: str | None, unit: str | None,
            chosen: Filter) -> None:
    """Owners for other programs."""
    if unit is not None and kind != "folded":
        raise click.UsageError(f"--unit is for folded; {kind} has bytes, pages and blocks")
    if output == "-":
        output = None
    if kind in _BINARY and output is None and sys.stdout.isatty():
        raise click.UsageError(f"{kind} is not text; name a file: -o FILE")
    from pageowner.analysis.filters import key_names

    # before the source is read, which may take a while
    names = None if by is None else key_names(by)
    found = load(source, chosen) if chosen else load_counted(source)
    write = _writer(kind, found, names, unit or "bytes")
    if output is None:
        inner = io.BytesIO()
        write(inner)
        raw = inner.getvalue()
        if kind not in _BINARY and sys.stdout.isatty():
            encoded = output_encoding()
            raw = b"\n".join(encoded(line) for line in raw.decode().split("\n"))
        sys.stdout.flush()
        sys.stdout.buffer.write(raw)
        return
    from pageowner.storage.whole_file import whole_file

    with whole_file(output) as file:
        write(file)
    written(output)


def _writer(kind: str, found: Counted | Snapshot, by: list[str] | None,
            unit: str) -> Callable[[BinaryIO], None]:
    from pageowner.analysis import profile

    if kind == "pprof":
        from pageowner.report import pprof

        labelled = profile.samples(found, profile.LABELS if by is None else by)
        return lambda file: pprof.write(file, labelled, found.meta)
    if kind in ("folded", "speedscope"):
        from pageowner.report import folded, speedscope

        chains = profile.samples(found, by or ())
        if kind == "speedscope":
            return lambda file: speedscope.write(file, chains, found.meta)
        return lambda file: file.writelines(
            line.encode() for line in folded.lines(chains, unit, found.meta.page_size))
    table = profile.owners_table(found, ("stack", *profile.LABELS) if by is None else by,
                                 found.meta.page_size)
    return {"json": _json, "csv": _csv, "parquet": _parquet}[kind](table)


def _json(table: Any) -> Callable[[BinaryIO], None]:
    from pageowner.report.query_rows import json_lines

    rows = [tuple(value.split("\n") if name == "stack" and value is not None else value
                  for name, value in row.items()) for row in table.to_pylist()]
    return lambda file: file.writelines(
        part.encode() for part in json_lines(table.column_names, rows))


def _csv(table: Any) -> Callable[[BinaryIO], None]:
    from pageowner.report.query_rows import csv_lines

    rows = zip(*table.to_pydict().values(), strict=True)
    return lambda file: file.writelines(
        line.encode(errors="surrogateescape") for line in csv_lines(table.column_names, rows))


def _parquet(table: Any) -> Callable[[BinaryIO], None]:
    import pyarrow.parquet as pq

    return lambda file: pq.write_table(table, file, compression="zstd")
