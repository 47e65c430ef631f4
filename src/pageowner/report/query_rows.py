"""The rows that a query found: a table for people, JSON or CSV for programs."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pageowner.report.table import Column, draw_table
from pageowner.report.text import UNKNOWN, count, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pageowner.report.terminal import Paper

__all__ = ["csv_lines", "draw", "json_lines"]

_NUMBER = (int, float, Decimal)


def draw(columns: Sequence[str], rows: Iterator[tuple[Any, ...]], top: int | None,
         paper: Paper) -> None:
    """The first ``top`` rows (all if None); one more line says that there are more."""
    shown = list(itertools.islice(rows, top))
    more = next(rows, None) is not None
    table: list[Column] = []
    for name, values in zip(columns, list(zip(*shown, strict=True)) or [()] * len(columns),
                            strict=True):
        numbers = bool(values) and all(
            value is None or (isinstance(value, _NUMBER) and not isinstance(value, bool))
            for value in values)
        table.append(Column(
            printable(name),
            [UNKNOWN if value is None else printable(_text(value)) for value in values],
            text=not numbers))
    draw_table(paper, table)
    if more:
        paper.line(f"and more than these {count(len(shown))} rows; --all shows them", "dim")


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def json_lines(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """A list of objects, one a line. What JSON has no type for is text; NaN and infinity null."""
    before = "["
    for row in rows:
        values = {name: _plain(value) for name, value in zip(columns, row, strict=True)}
        yield f"{before}\n{json.dumps(values)}"
        before = ","
    yield f"{before}]\n" if before == "[" else "\n]\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Decimal):
        return _plain(float(value))
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return str(value)


def csv_lines(columns: Sequence[str], rows: Iterable[tuple[Any, ...]],
              shown: Callable[[str], str] = str) -> Iterator[str]:
    """The names, then a line for each row, as RFC 4180 has it but for line feeds alone; null is
    empty. ``shown`` makes every text fit to be written."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in itertools.chain([columns], rows):
        writer.writerow(["" if value is None else shown(str(value)) for value in row])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
