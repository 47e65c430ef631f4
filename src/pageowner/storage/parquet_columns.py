"""Columns of a Parquet file that somebody else may have made, as the types that we know.

What a file says of itself is looked at before its rows are read: which columns, of which types, how
many rows, and whether they fit into memory. Texts are never held more than once for each distinct
one, however often they occur: ten bytes of a file can say a text a billion times.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pageowner.system import memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Columns", "Damaged", "about", "columns"]

_ROW_GROUPS = 10_000  # of 262,144 rows that we write, of 122,880 that DuckDB does

_SMALL = 1 << 16
"""Rows that one thread reads sooner than others are woken."""

_MANY = 1 << 19
"""Rows from which on one row group is read after another."""

_LARGE = 1 << 25
"""Bytes of texts from which on they are counted once."""

_HASH = 16

_FEW = 64
"""Texts that were met before, and are left out."""

_OTHER = 24
"""Bytes a row beside its columns: their order, and the largest column a second time."""


class Damaged(Exception):
    """A Parquet file that cannot be read; why, in one line."""


@contextmanager
def _reading() -> Iterator[None]:
    """What goes wrong while a file is read, by us or by Arrow, as `Damaged`."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, MemoryError) as error:
        raise Damaged(str(error).split("\n", 1)[0]) from error


@contextmanager
def _opened(source: str | os.PathLike[str] | object) -> Iterator[object]:
    """The file, closed at the end whatever happens. Not by Arrow, which reads a folder, or an
    address on the network, where a file is expected."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            yield file
    else:
        yield source


def _parquet(file: object, **more: Any) -> pq.ParquetFile:
    return pq.ParquetFile(file, memory_map=False, pre_buffer=False, page_checksum_verification=True,
                          **more)


class Columns:
    """An open Parquet file. ``about`` is its own key-value metadata."""

    def __init__(self, file: object) -> None:
        """Read what the file says of itself. Raises `Damaged`."""
        self._file = file
        with _reading(), _parquet(file) as parquet:
            self._metadata = parquet.metadata
            self.about: dict[bytes, bytes] = dict(parquet.metadata.metadata or {})

    def read(self, fields: Sequence[pa.Field]) -> dict[str, pa.ChunkedArray]:
        """Those of the fields that the file has, each of the field's type; others are not read.

        Raises TypeError for a column of another kind, ValueError for one that is there twice,
        `Damaged` for a file that cannot be read, and PageownerError for one that does not fit into
        memory.
        """
        with _reading():
            schema = self._metadata.schema.to_arrow_schema()
            names = schema.names
        known = [field for field in fields if field.name in names]
        for field in known:
            if names.count(field.name) > 1:
                raise ValueError(f"{field.name} occurs twice")
            if not _is_like(schema.field(field.name).type, field.type):
                raise TypeError(f"{field.name} is {str(schema.field(field.name).type)[:40]}")
        texts = [field.name for field in known if pa.types.is_dictionary(field.type)]
        _check_room(self._metadata, fields)
        names = [field.name for field in known]
        with _reading(), _parquet(self._file, metadata=self._metadata,
                                  read_dictionary=texts) as parquet:
            if self._metadata.num_rows <= _MANY:
                table = parquet.read(columns=names, use_threads=self._metadata.num_rows > _SMALL)
            else:
                # Read at once, what is unpacked on the way would be in memory together.
                table = pa.concat_tables([parquet.read_row_group(place, columns=names)
                                          for place in range(self._metadata.num_row_groups)])
            # Arrow trusts the numbers of a dictionary column unless asked not to.
            table.validate(full=True)
        columns = {field.name: _as(table[field.name], field.type) for field in known}
        del table
        for field in known:
            if pa.types.is_dictionary(field.type):
                columns[field.name] = _unified(columns[field.name])
        return columns


def _unified(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values with one dictionary for all chunks, distinct texts as they come first.

    Arrow's own way keeps the texts three times. Here equal ones are known by their hash, which
    cannot be made to meet another text's.
    """
    chunks = cast("list[Any]", column.chunks)
    if sum(chunk.dictionary.nbytes for chunk in chunks) < _LARGE or len(chunks) < 2:
        return column
    hashes = pa.concat_arrays([_hashes(chunk.dictionary) for chunk in chunks]).dictionary_encode()
    places = hashes.indices.to_numpy()
    new = np.zeros(len(hashes.dictionary) + 1, bool)
    parts, codes, start = [], [], 0
    for chunk in chunks:
        here = places[start:start + len(chunk.dictionary)]
        start += len(here)
        first = np.zeros(len(here), bool)
        first[np.unique(here, return_index=True)[1]] = True
        first &= ~new[here]
        new[here] = True
        parts += _kept(chunk.dictionary, first)
        codes.append(pa.array(here.astype(np.int32)).take(chunk.indices))
    whole = pa.concat_arrays(parts)
    return pa.chunked_array([pa.DictionaryArray.from_arrays(part, whole) for part in codes])


def _kept(texts: pa.Array, kept: NDArray[np.bool_]) -> list[pa.Array]:
    """The texts to be kept; no copy where few are not."""
    without = np.flatnonzero(~kept)
    if len(without) > _FEW:
        return [texts.filter(pa.array(kept))]
    edges = [-1, *without.tolist(), len(texts)]
    return [texts.slice(before + 1, end - before - 1) for before, end in pairwise(edges)]


def joined(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column in one piece."""
    chunks = cast("list[Any]", column.chunks)
    if pa.types.is_dictionary(column.type) and len(chunks) > 1 and len(
            {(dictionary.offset, len(dictionary), *(
                None if buffer is None else buffer.address for buffer in dictionary.buffers()))
             for dictionary in (chunk.dictionary for chunk in chunks)}) == 1:
        # of `_unified`: Arrow would unify again
        return pa.DictionaryArray.from_arrays(
            pa.concat_arrays([chunk.indices for chunk in chunks]), chunks[0].dictionary)
    return column.unify_dictionaries().combine_chunks()


def _hashes(texts: pa.Array) -> pa.Array:
    """128 bits of the BLAKE2b of each, null for null."""
    from hashlib import blake2b

    nulls = texts.is_null().to_numpy(zero_copy_only=False)
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int32)[texts.offset:texts.offset + len(texts) + 1].tolist()
    whole = memoryview(data or b"")
    found = b"".join([blake2b(whole[first:end], digest_size=_HASH).digest()
                      for first, end in pairwise(edges)])
    flat = pa.FixedSizeBinaryArray.from_buffers(pa.binary(_HASH), len(texts),
                                                [None, pa.py_buffer(found)])
    if not nulls.any():
        return flat
    return flat.take(pa.array(np.arange(len(texts)), mask=nulls))


@contextmanager
def columns(source: str | os.PathLike[str] | object) -> Iterator[Columns]:
    """The file, open for as long as the block lasts. Raises `Damaged`."""
    with _opened(source) as file:
        yield Columns(file)


def about(source: str | os.PathLike[str] | object) -> dict[bytes, bytes]:
    """The file's own key-value metadata. Raises `Damaged`."""
    with _reading(), columns(source) as file:
        return file.about


def _is_like(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can become what is wanted: whole numbers, or text."""
    if pa.types.is_null(found):
        return True
    if not pa.types.is_dictionary(wanted):
        return bool(pa.types.is_integer(found))
    text = found.value_type if pa.types.is_dictionary(found) else found
    return bool(pa.types.is_string(text) or pa.types.is_large_string(text))


def _check_room(metadata: pq.FileMetaData, fields: Sequence[pa.Field]) -> None:
    if metadata.num_row_groups > _ROW_GROUPS:
        raise ValueError(f"{metadata.num_row_groups:,} row groups")
    stored = 0
    for place in range(metadata.num_row_groups):
        # Of the group, not of its columns: where their statistics are damaged, Arrow ends the
        # process as it looks at one (pyarrow's RowGroupMetaData.column).
        stored += max(metadata.row_group(place).total_byte_size, 0)
    each = _OTHER + sum(field.type.bit_width // 8 if not pa.types.is_dictionary(field.type) else 4
                        for field in fields)
    rows = metadata.num_rows
    memory_limit.check(rows * each + stored, f"its {rows:,} rows")


def _as(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    if not pa.types.is_dictionary(wanted) or pa.types.is_null(column.type):
        return column.cast(wanted)
    # by hand: a cast between dictionaries spells every row out
    chunks = [pa.DictionaryArray.from_arrays(
        chunk.indices.cast(wanted.index_type), chunk.dictionary.cast(wanted.value_type))
        for chunk in cast("list[Any]", column.chunks)]
    return pa.chunked_array(chunks, wanted)
