"""Owners for other programs: ``pageowner export``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

from pageowner.analysis.filters import key_names
from pageowner.api import sources
from pageowner.errors import UsageError, near
from pageowner.storage.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.api.sources import Source
    from pageowner.model.counts import Counted
    from pageowner.model.snapshot import Snapshot

__all__ = ["FORMATS", "UNITS", "export"]

FORMATS = ("pprof", "folded", "speedscope", "json", "csv", "parquet")

UNITS = ("bytes", "pages", "blocks")


def export(source: Counted | Source, output: str | os.PathLike[str] | BinaryIO, format: str, *,
           by: str | Sequence[str] | None = None, unit: str = "bytes") -> None:
    """Write the owners of a source to a file, whole or not at all, or to a binary stream.

    ``format``: one of `FORMATS`. Owners by the keys ``by``: in pprof they are labels, in folded
    and speedscope frames around the stack, else columns. ``unit``: what folded counts: bytes,
    pages or blocks.

    Raises UsageError for an unknown format, key or unit, PageownerError if the source cannot be
    read or the file not written.
    """
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}; {near(format, FORMATS)}")
    if unit not in UNITS:
        raise UsageError(f"there is no unit {unit!r}; {near(unit, UNITS)}")
    names = None if by is None else key_names(by if isinstance(by, str) else list(by))
    write = _writer(format, sources.counted(source), names, unit)
    if isinstance(output, (str, os.PathLike)):
        with whole_file(output) as file:
            write(file)
    else:
        write(output)


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
