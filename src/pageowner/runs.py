"""Runs of page frames as one short text, to be kept in a snapshot's metadata."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel.limits import PFN_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["joined", "pack", "unpack"]

_MOST = 64 << 20  # bytes that a text may unpack to: 4 million runs


def joined(runs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Runs (first, behind the last; n x 2) in order, those that touch or overlap as one."""
    both = np.array(list(runs), np.int64).reshape(-1, 2)
    both = both[both[:, 1] > both[:, 0]]
    if not len(both):
        return both
    both = both[np.argsort(both[:, 0], kind="stable")]
    reach = np.maximum.accumulate(both[:, 1])
    begins = np.flatnonzero(np.append(True, both[1:, 0] > reach[:-1]))
    return np.stack([both[begins, 0], reach[np.append(begins[1:] - 1, len(both) - 1)]], axis=1)


def pack(runs: NDArray[np.int64]) -> str:
    """Runs in order: the distances from edge to edge as 64-bit little-endian numbers, shrunk by
    zlib, in base64."""
    distances = np.diff(runs.reshape(-1), prepend=0).astype("<i8")
    return base64.b64encode(zlib.compress(distances.tobytes(), 6)).decode()


def unpack(text: Any) -> NDArray[np.int64] | None:
    """The inverse of `pack`; None for what is no such text."""
    if not isinstance(text, str):
        return None
    try:
        opener = zlib.decompressobj()
        raw = opener.decompress(base64.b64decode(text, validate=True), _MOST)
    except (binascii.Error, zlib.error, ValueError):
        return None
    if not opener.eof or len(raw) % 16:
        return None
    distances = np.frombuffer(raw, "<i8").astype(np.int64, copy=False)
    if len(distances) and (int(distances.min()) < 0 or int(distances.max()) >= 1 << PFN_BITS
                           or not (distances[1:] > 0).all()):
        return None
    edges = np.cumsum(distances)
    return None if len(edges) and int(edges[-1]) >= 1 << PFN_BITS else edges.reshape(-1, 2)
