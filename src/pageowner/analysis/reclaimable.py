"""What the kernel takes back by itself when memory is short, or frees later: no leak, though it may
grow like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.analysis.keys import key
from pageowner.kernel.slabs import FREED_LATER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["RECLAIMABLE", "is_reclaimable"]

RECLAIMABLE = frozenset({"page cache"})
"""Subsystems whose pages the kernel can take back, beside what is Reclaimable by its gfp mask."""


def is_reclaimable(snapshot: Snapshot, subsystems: Sequence[str | None]) -> NDArray[np.bool_]:
    """Which rows of a snapshot are. ``subsystems``: of the labels of its stacks."""
    stacks, kinds = key(snapshot, "stack"), key(snapshot, "migratetype")
    found: NDArray[np.bool_] = np.array([use in RECLAIMABLE for use in subsystems], bool)[
        stacks.codes]
    found |= np.array([kind == "Reclaimable" for kind in kinds.labels.to_pylist()], bool)[
        kinds.codes]
    if "cache" in snapshot.table.column_names:
        caches = key(snapshot, "cache")
        found |= np.array([name in FREED_LATER for name in caches.labels.to_pylist()], bool)[
            caches.codes]
    return found
