"""Find the row that covers a page frame."""

from __future__ import annotations

import numpy as np

from pageowner.analysis.keys import blocks_pages
from pageowner.snapshot import Snapshot

__all__ = ["covering"]


def covering(snapshot: Snapshot, pfn: int) -> np.ndarray:
    """The places of all rows whose block contains ``pfn`` (int64; usually one or none)."""
    column = snapshot.table["pfn"]
    known = ~column.is_null().to_numpy()
    first = column.fill_null(0).to_numpy().astype(np.int64)
    return np.flatnonzero(known & (first <= pfn) & (pfn < first + blocks_pages(snapshot)))
