"""CSV for programs, as RFC 4180 has it but for line feeds alone."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["CsvRows"]


@dataclass(frozen=True)
class CsvRows:
    """The names of the columns, then a line for each row; null is empty. ``shown`` makes every text
    fit to be written."""

    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]
    shown: Callable[[str], str] = str

    def write(self, file: BinaryIO) -> None:
        # bytes of a task's name that are no UTF-8 come out as they were
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        for row in itertools.chain([self.columns], self.rows):
            writer.writerow(["" if value is None else self.shown(str(value)) for value in row])
        text.detach()
