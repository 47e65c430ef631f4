"""A snapshot as one Parquet file, and back.

Any reader of Parquet can use the file: text columns are dictionary-encoded in place, and the
metadata is JSON under the key ``pageowner`` of the file's own key-value metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pageowner.errors import PageownerError
from pageowner.formats.whole_file import whole_file
from pageowner.snapshot import METADATA_KEY, SCHEMA, Metadata, Snapshot

if TYPE_CHECKING:
    import os

__all__ = ["read", "write"]

_HIGHEST_ORDER = 30

_NUMBERS = ("pfn", "ts_ns", "free_ts_ns", "handle")


def write(snapshot: Snapshot, path: str | os.PathLike[str]) -> None:
    """Write the file whole or not at all, mode 0600.

    Raises PageownerError, naming the file, if it cannot be written.
    """
    table = snapshot.table.replace_schema_metadata({METADATA_KEY: snapshot.meta.to_json()})
    texts = [field.name for field in SCHEMA if field.name not in _NUMBERS]
    with whole_file(path) as file:
        # Neighbours in pfn order were often allocated soon after each other: differences of
        # numbers are small, and zstd shrinks what is left.
        pq.write_table(
            table, file, compression="zstd", compression_level=1, version="2.6",
            use_dictionary=texts, row_group_size=1 << 20, write_page_checksum=True,
            column_encoding=dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"))


def read(source: str | os.PathLike[str] | object, name: str | None = None) -> Snapshot:
    """A saved snapshot.

    ``source`` is a path or an open binary file; ``name`` is used in messages. Raises
    PageownerError for a damaged file, another program's Parquet and a newer schema.
    """
    label = name or str(source)
    try:
        table = pq.read_table(source, memory_map=False, page_checksum_verification=True)
        # Arrow trusts the numbers of a dictionary column unless asked not to.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, EOFError, MemoryError) as error:
        first = str(error).split("\n", 1)[0]
        raise PageownerError(f"{label}: a damaged Parquet file: {first}") from error
    said = (table.schema.metadata or {}).get(METADATA_KEY)
    if said is None:
        raise PageownerError(
            f"{label}: a Parquet file, but not a snapshot of pageowner; those are made with"
            " 'pageowner save'")
    try:
        meta = Metadata.from_json(said)
        columns = {field.name: table[field.name] for field in SCHEMA
                   if field.name in table.column_names}
        snapshot = Snapshot.from_columns(columns, meta)
        orders = snapshot.table["order"]
        if orders.null_count or (len(orders) and pc.max(orders).as_py() > _HIGHEST_ORDER):
            raise ValueError("no order, or one that no kernel has")
        if (pc.max(snapshot.table["ts_ns"]).as_py() or 0) >> 63:
            raise ValueError("a time of more than 292 years")
    except PageownerError as error:
        raise PageownerError(f"{label}: {error}") from error
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        first = str(error).split("\n", 1)[0]
        raise PageownerError(f"{label}: a column is not what a snapshot has: {first}") from error
    return snapshot
