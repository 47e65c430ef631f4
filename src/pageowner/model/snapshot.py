"""The model: one Arrow table, a row per allocation or per group of them, and what is
known about its source.

Every source makes a `Snapshot`, every analysis takes one. Saved, it is one Parquet file that any
reader of Parquet understands: text is dictionary-encoded in place and the metadata is JSON in the
file's own key-value metadata, so there are no side tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.model import schema
from pageowner.model.amounts import row_blocks, row_pages
from pageowner.model.metadata import SCHEMA_VERSION, STATES, Metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from pageowner.analysis.filters import Filter
    from pageowner.sources.page_owner_stacks import Held

__all__ = ["METADATA_KEY", "SCHEMA", "SCHEMA_VERSION", "STATES", "TEXT", "Metadata", "Snapshot",
           "arrow_type"]

METADATA_KEY = b"pageowner"
"""The key of the JSON metadata in the Parquet file."""

TEXT = pa.dictionary(pa.int32(), pa.string())


def arrow_type(column: schema.Column) -> pa.DataType:
    """The Arrow type of a declared column."""
    return TEXT if column.type == schema.TEXT else pa.type_for_alias(column.type)


SCHEMA = pa.schema([pa.field(name, arrow_type(schema.COLUMNS[name])) for name in schema.SAVED])
"""Columns of every snapshot, as `pageowner.model.schema` declares them; all may be null, since
sources differ in what they know; ``order`` only where ``amount`` has the number of pages.
``pageowner query --columns`` lists what they mean.
"""


@dataclass(frozen=True)
class Snapshot:
    """The owners of pages at one time. ``table`` has the columns of `SCHEMA`, in order of pfn if
    the source has page frame numbers."""

    table: pa.Table
    meta: Metadata
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What analyses have made of these rows, to be used again."""

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], meta: Metadata) -> Snapshot:
        """A snapshot made of some columns; the others are null.

        Each value is an Arrow array, or anything that Arrow can make into one; all have the same
        length.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        arrays = []
        for column in SCHEMA:
            values = columns.get(column.name)
            if values is None:
                array = _nulls(rows, column.type)
            elif isinstance(values, (pa.Array, pa.ChunkedArray)):
                array = values if values.type == column.type else values.cast(column.type)
            else:
                array = pa.array(values, type=column.type)
            arrays.append(array)
        return cls(pa.table(arrays, schema=SCHEMA), meta)

    @property
    def pages(self) -> int:
        """The number of base pages in all rows."""
        return int(row_pages(self.table).sum())

    @property
    def blocks(self) -> int:
        """Allocations in all rows."""
        counted = row_blocks(self.table)
        return self.table.num_rows if counted is None else int(counted.sum())

    def in_state(self, *states: str) -> Snapshot:
        """The rows whose state is one of these, of `STATES`; without one a row is ``owned``."""
        import pyarrow.compute as pc

        held = pc.is_in(pc.fill_null(self.table["state"].cast(pa.string()), "owned"),
                        pa.array(states))
        return Snapshot(self.table.filter(held), self.meta)

    def select(self, **words: Any) -> Snapshot:
        """The rows that match all given filters (see `pageowner.Filter`)."""
        from pageowner.analysis.filters import Filter

        return self.where(Filter(**words))

    def where(self, chosen: Filter) -> Snapshot:
        """The rows that match a `Filter`."""
        from pageowner.analysis.select import select

        return Snapshot(select(self, chosen), self.meta)

    def report(self, by: str | Sequence[str] = "stack", **options: Any) -> pa.Table:
        """Who owns the memory: see `analysis.owners.owners` for the options and the columns."""
        from pageowner.analysis.owners import owners

        return owners(self, by, **options)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one Parquet file with mode 0600, completely or not at all."""
        from pageowner.storage.parquet import write

        write(self, path)

    def dump(self, path: str | PathLike[str]) -> None:
        """Write the text that the kernel's page_owner prints, with mode 0600, completely or not at
        all.

        The text of a dump of Linux 4.6 or newer is written unchanged. Raises PageownerError if the
        file cannot be written.
        """
        from pageowner.sources.page_owner_text import write
        from pageowner.storage.whole_file import whole_file

        with whole_file(path) as file:
            write(self, file)

    def stacks(self, threshold: int = 0) -> list[Held]:
        """The stacks that hold at least ``threshold`` base pages, with their pages, most first;
        counted as the kernel's page_owner_stacks does."""
        from pageowner.sources.page_owner_stacks import stacks

        return stacks(self, threshold)


def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(_nulls(rows, kind.index_type),
                                              pa.array([], kind.value_type))
    # Zeros that nobody writes to take no memory until they are read, and none of their own then.
    zeros = pa.py_buffer(np.zeros((rows * kind.bit_width + 7) // 8, np.uint8))
    return pa.Array.from_buffers(kind, rows, [zeros, zeros], rows)
