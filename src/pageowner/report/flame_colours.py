"""The colours of flame graphs: by subsystem, or by what changed between two moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.report.palette import FEWER, MORE, ROLE_COLOURS, SAME, VALUE_COLOURS

if TYPE_CHECKING:
    from pageowner.analysis.flame import Chains

__all__ = ["FEWER", "MORE", "OTHERS", "SAME", "blend", "changed", "subsystem_colours"]

OTHERS = ROLE_COLOURS["other"]
"""Of all subsystems but the largest."""


def subsystem_colours(found: Chains) -> dict[str, str]:
    """The largest subsystems, most pages first, and their colours; the others have `OTHERS`."""
    sums = np.zeros(len(found.subsystems), np.int64)
    np.add.at(sums, found.what, found.widths())
    pages = {found.subsystems[place]: int(sums[place]) for place in np.unique(found.what).tolist()}
    largest = sorted(pages, key=lambda what: (-pages[what], what))
    return dict(zip(largest, VALUE_COLOURS, strict=False))


def changed(before: int, after: int) -> str:
    """Red for more, blue for fewer; the paler the less of it changed."""
    most = max(before, after)
    return blend(SAME, MORE if after > before else FEWER, abs(after - before) / most if most else 0)


def blend(first: str, second: str, share: float) -> str:
    """A colour between two, ``#rrggbb``; 0 is the first."""
    return "#" + "".join(
        f"{round(int(first[at:at + 2], 16) * (1 - share) + int(second[at:at + 2], 16) * share):02x}"
        for at in (1, 3, 5))
