"""Runs of page frames: joined, as one short text for a snapshot's metadata, and as the numbers in
them side by side, which take no place for what lies between."""

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

__all__ = ["SideBySide", "joined", "pack", "unpack"]

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


class SideBySide:
    """Numbers in runs (first, behind the last; in order, not overlapping) as places from 0 on."""

    def __init__(self, runs: NDArray[np.int64]) -> None:
        self.runs = runs
        sizes = runs[:, 1] - runs[:, 0]
        self._before = np.cumsum(sizes) - sizes
        self.size = int(sizes.sum())

    def numbers(self) -> NDArray[np.int64]:
        """All of them, in order."""
        sizes = self.runs[:, 1] - self.runs[:, 0]
        found: NDArray[np.int64] = np.arange(self.size) + np.repeat(
            self.runs[:, 0] - self._before, sizes)
        return found

    def places(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each number, -1 for those in no run."""
        if not len(self.runs):
            return np.full(len(numbers), -1, np.int64)
        if len(self.runs) == 1:  # as on most machines
            first, behind = self.runs[0].tolist()
            return np.where((numbers >= first) & (numbers < behind), numbers - first, -1)
        run = np.maximum(np.searchsorted(self.runs[:, 0], numbers, side="right") - 1, 0)
        inside = (numbers >= self.runs[run, 0]) & (numbers < self.runs[run, 1])
        return np.where(inside, numbers - self.runs[run, 0] + self._before[run], -1)


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
