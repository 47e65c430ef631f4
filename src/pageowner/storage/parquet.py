"""A snapshot as one Parquet file, and back.

Any reader of Parquet can use the file: text columns are dictionary-encoded in place, and the
metadata is JSON under the key ``pageowner`` of the file's own key-value metadata.

Rows that came in pfn order lie in the file in the order that takes the least room: those with a
time by stack and time, the others by what they are. The key ``pageowner.order`` then says ``pfn``,
and `read` puts them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pageowner.errors import PageownerError
from pageowner.kernel.limits import HIGHEST_ORDER, NODES, PFN_BITS, TIME_BITS
from pageowner.model.snapshot import METADATA_KEY, SCHEMA, STATES, Metadata, Snapshot
from pageowner.model.source_kinds import has_pages
from pageowner.storage import parquet_columns
from pageowner.storage.parquet_columns import Damaged
from pageowner.storage.whole_file import whole_file
from pageowner.system.ahead_of import in_turn

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["CHANGES_KEY", "COLUMNS", "ORDER_KEY", "check", "first_line", "is_snapshot",
           "read", "read_metadata", "write", "write_to"]

ORDER_KEY = b"pageowner.order"
"""The key in the file's metadata of the column by which `read` sorts the rows."""

CHANGES_KEY = b"pageowner.changes"
"""The key in the metadata of a file that is no snapshot alone (see `pageowner.storage.series`)."""

_NUMBERS = ("pfn", "ts_ns", "free_ts_ns", "handle")

_WITHOUT_TIME = ("state", "stack", "pid", "gfp_flags", "flags", "memcg", "page_flags", "order")
"""What rows without a time are sorted by."""

_ROWS = 1 << 18
"""Of a row group: so many are in memory a second time while they are written."""


_FEW_TEXTS = 1 << 12
"""Distinct texts that may as well be in each row group."""


def write(snapshot: Snapshot, path: str | os.PathLike[str], folder: int | None = None) -> None:
    """Write the file whole or not at all, mode 0600; ``folder`` as in `whole_file`.

    Raises PageownerError, naming the file, if it cannot be written.
    """
    with whole_file(path, folder) as file:
        write_to(snapshot, file)


def write_to(snapshot: Snapshot, file: BinaryIO) -> None:
    """Write the bytes of the file to a stream."""
    table = snapshot.table.unify_dictionaries()
    about = {METADATA_KEY: snapshot.meta.to_json()}
    order = _packed(table)
    if order is not None:
        about[ORDER_KEY] = b"pfn"
    table = table.replace_schema_metadata(about)
    columns = {name: table[name] for name in table.column_names}
    texts = [field.name for field in SCHEMA if field.name not in _NUMBERS]
    # Numbers as differences to the row before, which are small, and zstd shrinks what is left.
    with pq.ParquetWriter(
            file, table.schema, compression="zstd", compression_level=1, version="2.6",
            use_dictionary=texts, write_page_checksum=True,
            column_encoding=dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED")) as writer:
        def group_of_rows(first: int) -> pa.Table:
            part = table.slice(first, _ROWS)
            if order is not None:
                place = pa.array(order[first:first + _ROWS])
                part = pa.table([part[name] if _is_one(column) else column.take(place)
                                 for name, column in columns.items()], schema=table.schema)
            if table.num_rows > _ROWS:
                part = pa.table([_used(column) for column in part.columns], schema=table.schema)
            return part

        for _, part in in_turn(group_of_rows, range(0, max(table.num_rows, 1), _ROWS)):
            writer.write_table(part, row_group_size=_ROWS)


def _is_one(column: pa.ChunkedArray) -> bool:
    """Whether all values are the same, in whatever order they are taken."""
    if column.null_count == len(column):
        return True
    return (pa.types.is_dictionary(column.type) and not column.null_count
            and all(len(chunk.dictionary) == 1 for chunk in column.chunks))


def _used(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values without those of its dictionary that are not among them: Arrow writes the
    whole dictionary into each row group."""
    if not pa.types.is_dictionary(column.type) or not column.num_chunks:
        return column
    whole = column.combine_chunks()
    whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    if len(whole.dictionary) <= _FEW_TEXTS:
        return column
    codes = whole.indices.fill_null(-1).to_numpy()
    used = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(whole.dictionary)))
    place = np.zeros(len(whole.dictionary) + 1, np.int32)
    place[used] = np.arange(len(used))
    return pa.chunked_array([pa.DictionaryArray.from_arrays(
        pa.array(place[codes], mask=codes < 0), whole.dictionary.take(pa.array(used)))])


def _packed(table: pa.Table) -> NDArray[np.int64] | None:
    """The order of rows that takes the least room; None if they cannot be put back by their pfn.

    What a task allocates through one stack it mostly does at once: rows by stack and time have
    small differences of times, and the same text over and over. Rows without a time are sorted by
    all that is known of them but their pfn.
    """
    if table["pfn"].null_count or not table.num_rows:
        return None
    pfn = table["pfn"].to_numpy()
    if not bool((pfn[1:] > pfn[:-1]).all()):
        return None
    times = table["ts_ns"]
    known = times.is_valid().to_numpy()
    timed, others = np.flatnonzero(known), np.flatnonzero(~known)
    stack = _codes(table["stack"].take(pa.array(timed)))
    # In two steps: NumPy sorts each of these kinds several times faster than by two keys.
    by_time = np.argsort(times.drop_null().to_numpy())
    by_time = by_time[np.argsort(_narrow(stack)[by_time], kind="stable")]
    alike = np.zeros(len(others), np.int64)
    for name in _WITHOUT_TIME if len(others) else ():
        codes = _codes(table[name].take(pa.array(others)))
        size = int(codes.max()) + 1
        if size > 1:
            # One number for each combination so far: never more of them than rows.
            alike = _codes(pa.chunked_array([alike])).astype(np.int64) * size + codes
    by_kind = np.argsort(_narrow(_codes(pa.chunked_array([alike]))), kind="stable")
    return np.concatenate([timed[by_time], others[by_kind]])


def _narrow(codes: NDArray[Any]) -> NDArray[Any]:
    """Small numbers as the type that NumPy sorts several times faster (by radix)."""
    return codes.astype(np.uint16) if codes.max(initial=0) < 1 << 16 else codes


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """The same number for the same value, 0 or more, as they occur first or in the dictionary."""
    if not pa.types.is_dictionary(column.type):
        if column.null_count == len(column):
            return np.zeros(len(column), np.int32)
        column = column.dictionary_encode()
    parts = [chunk.indices.fill_null(-1).to_numpy() for chunk in column.unify_dictionaries().chunks]
    codes: NDArray[np.int32] = np.concatenate(parts or [np.zeros(0, np.int32)])
    codes += 1
    return codes


def read(source: str | os.PathLike[str] | object, name: str | None = None) -> Snapshot:
    """A saved snapshot.

    ``source`` is a path or an open binary file; ``name`` is used in messages. Raises
    PageownerError for a damaged file, another program's Parquet and a newer schema.
    """
    label = name or str(source)
    try:
        with parquet_columns.columns(source) as file:
            meta = _meta(file.about)
            columns = file.read(list(SCHEMA))
        if file.about.get(ORDER_KEY) == b"pfn":
            _sort_by_pfn(columns)
        snapshot = Snapshot.from_columns(columns, meta)
        check(snapshot)
    except PageownerError as error:
        raise PageownerError(f"{label}: {error}") from error
    except COLUMNS as error:
        raise PageownerError(
            f"{label}: a column is not as in a snapshot: {first_line(error)}") from error
    except OSError as error:
        raise PageownerError(f"{label}: cannot read: {error.strerror}") from error
    except Damaged as error:
        raise PageownerError(f"{label}: a damaged Parquet file: {error}") from error
    return snapshot


COLUMNS = (pa.ArrowException, ValueError, TypeError, KeyError, MemoryError)
"""What is raised where a file can be read, and its columns are not those of a snapshot."""


def first_line(error: BaseException) -> str:
    """What an error of Arrow's says, in one line."""
    return str(error).split("\n", 1)[0]


def _meta(pairs: dict[bytes, bytes]) -> Metadata:
    text = pairs.get(METADATA_KEY)
    if text is not None:
        return Metadata.from_json(text)
    if CHANGES_KEY in pairs:
        raise PageownerError(
            "contains only the changes since the previous capture; name its directory, and the"
            " time with --at")
    raise PageownerError(
        "a Parquet file, but not a pageowner snapshot; create one with 'pageowner save'")


def check(snapshot: Snapshot) -> None:
    """Raises ValueError for numbers in a file's columns that no kernel has."""
    table = snapshot.table
    orders = table["order"]
    groups = not has_pages(snapshot.meta)
    if (orders.null_count and not groups) or (_most(orders) or 0) > HIGHEST_ORDER:
        raise ValueError("missing or impossible order")
    if groups:
        _check_groups(table)
    elif any(table[name].null_count < table.num_rows for name in ("blocks", "amount")):
        raise ValueError("a group of allocations among those of a dump")
    for name, bits in (("pfn", PFN_BITS), ("ts_ns", TIME_BITS), ("free_ts_ns", TIME_BITS)):
        if (_most(table[name]) or 0) >> bits:
            raise ValueError(f"{name} is {_most(table[name]):,}, which is impossible")
    nodes = pc.min_max(table["node"]).as_py()
    if nodes["min"] is not None and not 0 <= nodes["min"] <= nodes["max"] < NODES:
        raise ValueError(f"node {nodes['min']} to {nodes['max']}, which is impossible")
    if snapshot.pages >> PFN_BITS:
        raise ValueError("more pages than a machine can have")
    for chunk in table["state"].chunks:
        if other := set(chunk.dictionary.to_pylist()) - {*STATES, None}:
            raise ValueError(f"state is {min(map(repr, other)):.40}")


def _check_groups(table: pa.Table) -> None:
    """Raises ValueError for groups of unknown sizes, and where their sum is beyond any machine's
    memory, before it is summed up in integers."""
    blocks, amount, order = (table[name] for name in ("blocks", "amount", "order"))
    if pc.any(pc.and_(amount.is_null(), pc.or_(order.is_null(), blocks.is_null()))).as_py():
        raise ValueError("a group of an unknown size")
    whole = blocks.fill_null(0).to_numpy() * 2.0 ** order.fill_null(0).to_numpy()
    if max(whole.sum(), amount.fill_null(0).to_numpy().astype(float).sum()
           ) >= 1 << PFN_BITS:
        raise ValueError("more pages than a machine can have")


def _most(column: pa.ChunkedArray) -> int | None:
    most: int | None = pc.max(column).as_py()
    return most


def is_snapshot(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a saved snapshot, by its metadata alone."""
    try:
        return METADATA_KEY in parquet_columns.about(path)
    except Damaged:
        return False


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """What a saved snapshot says of its source, without its rows.

    Raises PageownerError for a file that is none, or damaged.
    """
    try:
        return _meta(parquet_columns.about(path))
    except PageownerError as error:
        raise PageownerError(f"{path}: {error}") from error
    except Damaged as error:
        raise PageownerError(f"{path}: a damaged Parquet file: {error}") from error


def _sort_by_pfn(columns: dict[str, pa.ChunkedArray]) -> None:
    """In place, one column after another, so that only one is there twice."""
    order = pa.array(np.argsort(columns["pfn"].fill_null(0).to_numpy(), kind="stable"))
    for name, column in columns.items():
        if column.null_count < len(column):
            columns[name] = parquet_columns.joined(column).take(order)
