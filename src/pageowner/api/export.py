"""Owners for other programs: ``pageowner export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from pageowner.analysis.filters import key_names
from pageowner.api import sources
from pageowner.api.saving import save
from pageowner.errors import UsageError, near
from pageowner.model.source_kinds import check_measure
from pageowner.sources import live_users

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from pageowner.api.sources import Source
    from pageowner.model.counts import Counted
    from pageowner.model.snapshot import Snapshot
    from pageowner.report.writer import Writer

__all__ = ["FORMATS", "UNITS", "export"]

FORMATS = ("pprof", "folded", "speedscope", "json", "csv", "parquet")

UNITS = ("bytes", "pages", "blocks")


def export(source: Counted | Source, output: str | os.PathLike[str] | BinaryIO, format: str, *,
           by: str | Sequence[str] | None = None, unit: str = "bytes") -> None:
    """Write the owners of a source to a file, completely or not at all, or to a binary stream.

    ``format``: one of `FORMATS`. Owners are separated by the keys ``by``, which are labels in
    pprof, frames below the stack in folded and speedscope, and columns in the others. ``unit``:
    what folded counts: bytes, pages or blocks.

    Raises UsageError for an unknown format, key or unit; PageownerError if the source cannot be
    read or the file cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}; {near(format, FORMATS)}")
    if unit not in UNITS:
        raise UsageError(f"there is no unit {unit!r}; {near(unit, UNITS)}")
    names = None if by is None else key_names(by if isinstance(by, str) else list(by))
    with live_users.using_for(names or ()):
        found = sources.counted(source)
    check_measure(found.meta, unit)
    save(_writer(format, found, names, unit), output)


def _writer(format: str, found: Counted | Snapshot, by: list[str] | None, unit: str) -> Writer:
    from pageowner.analysis import profile

    if format == "pprof":
        from pageowner.report.pprof import Pprof

        names = profile.labels(found.meta) if by is None else by
        return Pprof(profile.samples(found, names), found.meta)
    if format == "speedscope":
        from pageowner.report.speedscope import Speedscope

        return Speedscope(profile.samples(found, by or ()), found.meta)
    if format == "folded":
        from pageowner.report.folded import Folded

        return Folded(profile.samples(found, by or ()), unit, found.meta.page_size)
    table = profile.owners_table(found, ("stack", *profile.labels(found.meta)) if by is None
                                 else by, found.meta.page_size)
    if format == "json":
        from pageowner.report.json_text import JsonRows

        return JsonRows(table.column_names, [
            [value.split("\n") if name == "stack" and value is not None else value
             for name, value in row.items()] for row in table.to_pylist()])
    if format == "csv":
        from pageowner.report.csv_rows import CsvRows

        return CsvRows(table.column_names, list(zip(*table.to_pydict().values(), strict=True)))
    from pageowner.report.parquet_table import ParquetTable

    return ParquetTable(table)
