"""Sequences of small numbers, put in order as texts are: by the first, then the second, and so on.

A million of them are compared as bytes by Arrow, and none is an object of Python's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["in_order", "sorted_places"]

_CODE = ">u4"
"""A number as bytes that sort as it does."""


def _keys(edges: NDArray[np.int64], codes: NDArray[Any]) -> pa.LargeBinaryArray:
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(edges) - 1,
        [None, pa.py_buffer(edges * 4), pa.py_buffer(codes.astype(_CODE))])


def _sorted(keys: pa.LargeBinaryArray) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    order: NDArray[np.int64] = pc.sort_indices(keys).to_numpy().astype(np.int64)
    return order


def sorted_places(edges: NDArray[np.int64], codes: NDArray[Any]) -> NDArray[np.int64]:
    """The places of sequences in their order; sequence N is ``codes[edges[N]:edges[N + 1]]``, whose
    numbers are from 0 to 2**32 - 1."""
    return _sorted(_keys(edges, codes))


def in_order(edges: NDArray[np.int64], codes: NDArray[Any],
             ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Each distinct sequence once, in their order, as edges and codes; and for each sequence given
    its place among these."""
    encoded = _keys(edges, codes).dictionary_encode()
    order = _sorted(encoded.dictionary)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    distinct = encoded.dictionary.take(pa.array(order))
    _, offsets, data = distinct.buffers()
    found = np.frombuffer(offsets, np.int64, len(order) + 1) // 4
    return found, np.frombuffer(data or b"", _CODE, int(found[-1])).astype(np.int32), place[
        encoded.indices.to_numpy()]
