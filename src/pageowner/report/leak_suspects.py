"""Owners that grew and are no leaks by the rules: how each grew, what stays, which rule it fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.analysis.leak_rules import MANY_BURSTS
from pageowner.report.text import UNKNOWN, count_of, size

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["growth", "stays", "why_no_leak"]

_BARS = "▁▂▃▄▅▆▇█"
_CELLS = 12


def growth(series: Sequence[int]) -> str:
    """An owner's pages over the watched time, as bars from the least to the most of them."""
    cells = min(_CELLS, len(series))
    shown = [series[-1 - (cells - 1 - cell) * (len(series) - 1) // max(cells - 1, 1)]
             for cell in range(cells)]
    low, span = min(shown), max(max(shown) - min(shown), 1)
    return "".join(_BARS[(value - low) * (len(_BARS) - 1) // span] for value in shown)


def stays(row: dict[str, Any], page_size: int) -> str:
    """Of the pages that settled while it was watched, how many live at last."""
    if row["stayed"] is None:
        return UNKNOWN
    share = 100 * (row["survival"] or 0)
    return f"{size(row['stayed'] * page_size)} ({share:.0f} %)"


def why_no_leak(row: dict[str, Any]) -> str:
    """The rules that a suspect fails, in words."""
    return "; ".join(_words(name, row) for name in row["failed"])


def _words(name: str, row: dict[str, Any]) -> str:
    bursts = row["bursts"]
    return {
        "chance": f"may be chance (p {row['p']:.2f})",
        "slow": "hardly a trend",
        "freed": "most was freed" if row["survival"] is None else
                 f"{100 * (1 - row['survival']):.0f} % was freed",
        "uneven": f"grew in {100 * row['steady']:.0f} % of the time",
        "few_bursts": ("grew once" if bursts == 1 else count_of(bursts, "burst")
                       ) + f", not {MANY_BURSTS} times",
        "late": f"{count_of(bursts, 'burst')}, began late",
        "stopped": f"{count_of(bursts, 'burst')}, then stopped",
    }[name]
