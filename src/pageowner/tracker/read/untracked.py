"""How many pages are untracked now, and what no missing hook explains of them, for `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.kernel import gfp, zones
from pageowner.model.unexplained import unexplained
from pageowner.tracker.read.survey import STATES, survey

if TYPE_CHECKING:
    from pageowner.tracker.read.maps import Store

__all__ = ["MOST_FRAMES", "untracked"]

MOST_FRAMES = 1 << 24
"""Of a machine with more page frames (64 GiB) only captures tell: `status` is to be quick."""


def untracked(store: Store) -> tuple[int, list[dict[str, Any]]]:
    """Untracked pages, and the groups of `unexplained.unexplained`, without types of pageblocks."""
    zone_map = zones.running()
    found = survey(store, zone_map, gfp.running().bits.get("__GFP_COMP", 0x40000))
    mine = found.take("state") == STATES.index("untracked")
    counters = store.counters() | {"missed_in_interrupts": store.missed()}
    where = zone_map.zone_column(found.take("pfn")[mine]).to_pylist()
    return found.frames["untracked"], unexplained(
        found.take("flags")[mine], found.take("order")[mine], where, [None] * len(where),
        store.hook_states(), counters)
