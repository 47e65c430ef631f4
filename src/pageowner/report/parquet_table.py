"""Owners as a Parquet file, for DuckDB, pandas, Polars and Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetTable"]


@dataclass(frozen=True)
class ParquetTable:
    """One Arrow table, compressed with zstd."""

    table: pa.Table

    def write(self, file: BinaryIO) -> None:
        import pyarrow.parquet as pq

        pq.write_table(self.table, file, compression="zstd")
