"""The rows that a query found, as a table."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pageowner.report.table import Column, draw_table
from pageowner.report.text import UNKNOWN, count, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.report.terminal import Paper

__all__ = ["draw"]

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
    if not isinstance(value, float):
        return str(value)
    # six digits; seconds and bytes that have more before the point whole, as far as they are exact
    return f"{value:.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.6g}"
