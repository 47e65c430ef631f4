"""Columns with nulls as NumPy arrays, without Arrow's functions, whose import takes longer than
most questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["filled", "known"]


def filled(column: pa.ChunkedArray | pa.Array, value: int) -> np.ndarray:
    """A column of integers, of their type, with ``value`` for each null."""
    if not column.null_count:
        whole: np.ndarray = column.to_numpy()
        return whole
    parts = [np.zeros(0, column.type.to_pandas_dtype())]
    for chunk in _chunks(column):
        numbers = chunk.buffers()[1]
        parts.append(np.full(len(chunk), value, parts[0].dtype) if numbers is None else np.where(
            known(chunk), np.frombuffer(numbers, parts[0].dtype)[
                chunk.offset:chunk.offset + len(chunk)], parts[0].dtype.type(value)))
    return np.concatenate(parts)


def known(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    """Whether each value is no null."""
    if not column.null_count:
        return np.ones(len(column), bool)
    parts = [np.zeros(0, bool)]
    for chunk in _chunks(column):
        bits = chunk.buffers()[0]
        parts.append(np.ones(len(chunk), bool) if bits is None else np.unpackbits(
            np.frombuffer(bits, np.uint8), bitorder="little")[
                chunk.offset:chunk.offset + len(chunk)].astype(bool))
    return np.concatenate(parts)


def _chunks(column: pa.ChunkedArray | pa.Array) -> list[pa.Array]:
    chunks: list[pa.Array] = getattr(column, "chunks", None) or [column]
    return chunks
