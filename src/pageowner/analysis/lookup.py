"""Find the rows that cover page frames."""

from __future__ import annotations

import numpy as np

from pageowner.analysis.keys import blocks_pages
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import check_pages

__all__ = ["covering"]


def covering(snapshot: Snapshot, pfn: int, last: int | None = None) -> np.ndarray:
    """The places of all rows whose block contains ``pfn`` (int64; usually one or none), or any
    frame from it to ``last``. Raises PageownerError for a source of groups."""
    check_pages(snapshot.meta)
    column = snapshot.table["pfn"]
    known = ~column.is_null().to_numpy()
    first = column.fill_null(0).to_numpy().astype(np.int64)
    last = pfn if last is None else last
    return np.flatnonzero(known & (first <= last) & (pfn < first + blocks_pages(snapshot)))
