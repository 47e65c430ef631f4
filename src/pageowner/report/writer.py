"""What every format for other programs is: something that writes itself to a file."""

from __future__ import annotations

from typing import BinaryIO, Protocol

__all__ = ["Writer"]


class Writer(Protocol):
    """A report in one format, made of all that it shows: pprof, speedscope, folded stacks, flame
    graphs and maps as pages and images, JSON, CSV, Parquet. What people read on a terminal is not
    written but drawn, on a `pageowner.report.terminal.Paper`."""

    def write(self, file: BinaryIO) -> None:
        """Write all of it, once: rows may come from an iterator. Raises OSError."""
