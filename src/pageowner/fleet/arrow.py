"""The tables' columns as Arrow has them, and as Parquet files that every engine reads."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pageowner.fleet.columns import OWNERS, SCHEMA_VERSION, STACKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pageowner.fleet.columns import Column

__all__ = ["CONTAINS_KEY", "OWNERS_SCHEMA", "SCHEMA_KEY", "STACKS_SCHEMA", "as_parquet",
           "schema_of"]

SCHEMA_KEY = b"pageowner.fleet"
"""The key in a file's metadata of the version of its columns."""

CONTAINS_KEY = b"pageowner.fleet.contains"
"""The key in a compacted file's metadata of the captures that it has: 16 digits each."""

_TYPES = {"text": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "double": pa.float64(),
          "timestamp": pa.timestamp("us", "UTC")}

_ROWS = 1 << 19


def schema_of(columns: Mapping[str, Column]) -> pa.Schema:
    """Declared columns as Arrow's schema."""
    return pa.schema([(name, _TYPES[column.type]) for name, column in columns.items()])


OWNERS_SCHEMA, STACKS_SCHEMA = schema_of(OWNERS), schema_of(STACKS)


def as_parquet(table: pa.Table, about: Mapping[bytes, bytes] | None = None) -> bytes:
    """A table as the bytes of one file, with `SCHEMA_VERSION` and ``about`` in its metadata.

    Arrow's own schema is left out: other engines do not need it, and in a small file it is a third
    of the bytes.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", version="2.6",
                          store_schema=False, write_page_checksum=True) as writer:
        writer.write_table(table, row_group_size=_ROWS)
        writer.add_key_value_metadata({SCHEMA_KEY: str(SCHEMA_VERSION).encode(), **(about or {})})
    return sink.getvalue()
