"""What both forms of a flame graph are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pageowner.analysis.flame import Chains

__all__ = ["FlameGraph"]


@dataclass(frozen=True)
class FlameGraph:
    """Chains of frames and their pages, of ``page_size`` bytes; ``difference``: at two moments.
    ``icicle``: with the root at the top; ``reverse``: merged from the innermost function."""

    chains: Chains
    page_size: int
    title: str
    difference: bool = False
    icicle: bool = False
    reverse: bool = False
