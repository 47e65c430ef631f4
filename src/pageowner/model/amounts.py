"""How much each row of a snapshot stands for: the one place that turns rows into blocks and pages.

A row of a dump or a capture is one block of 2**order pages. A row of a source of groups (see
`pageowner.model.source_kinds`) stands for ``blocks`` of them; where their orders are not known, or
are several, ``amount`` says how many pages they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.model.filled import filled, known

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["row_blocks", "row_pages"]


def row_blocks(table: pa.Table) -> NDArray[np.int64] | None:
    """How many blocks each row stands for, int64; None where each is one."""
    blocks = table["blocks"]
    if blocks.null_count == len(blocks):
        return None
    counted: NDArray[np.int64] = filled(blocks, 1).astype(np.int64)
    return counted


def row_pages(table: pa.Table) -> NDArray[np.int64]:
    """Base pages that each row stands for, int64."""
    pages: NDArray[np.int64] = np.left_shift(np.int64(1),
                                             filled(table["order"], 0).astype(np.int64))
    blocks = row_blocks(table)
    if blocks is not None:
        pages = pages * blocks
    amount = table["amount"]
    if amount.null_count < len(amount):
        pages = np.where(known(amount), filled(amount, 0).astype(np.int64), pages)
    return pages
