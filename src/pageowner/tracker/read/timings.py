"""How long the events of a tracker take: kept where `control.tracking` was asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.tracker.read import layout
from pageowner.tracker.read.maps import possible_cpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Store

__all__ = ["NAMES", "TIMING", "Timing", "read"]

TIMING = np.dtype(list(layout.TIMING))

NAMES = (*layout.HOOKS, *layout.TIMED)
"""What is timed: the hooks, and of each stack that is unwound this, and learning it."""


@dataclass(frozen=True)
class Timing:
    """``events`` so far over all CPUs, the ``longest`` of them in ns, and ``buckets``: how many
    took from ``edges()`` on."""

    events: int
    longest: int
    buckets: NDArray[np.uint64]

    def quantile(self, part: float) -> float:
        """ns that this part of the events took at most, to a quarter of a power of two; 0 if there
        were none."""
        if not self.events:
            return 0
        at = int(np.searchsorted(np.cumsum(self.buckets), part * self.events))
        return min(float(edges()[at + 1]), self.longest)


def edges() -> NDArray[np.float64]:
    """Where buckets begin, in ns, and behind them where the last one ends: four to each power of
    two."""
    log, quarter = np.divmod(np.arange(layout.TIMING_BUCKETS + 1), 4)
    begin: NDArray[np.float64] = 2.0**log * (1 + quarter / 4)
    return begin


def read(store: Store) -> dict[str, Timing]:
    """By name (`NAMES`). Raises ValueError if the tracker is not timed."""
    if "timed" not in store.facts:
        raise ValueError("this tracker does not record event times")
    cpus, fd = possible_cpus(), store.fd("timings")
    found = {}
    for number, name in enumerate(NAMES):
        raw = store.bpf.lookup(fd, number.to_bytes(4, "little"), TIMING.itemsize * cpus)
        each = np.frombuffer(raw or b"", TIMING)
        buckets = each["bucket"].sum(axis=0)
        found[name] = Timing(int(buckets.sum()), int(each["longest"].max(initial=0)), buckets)
    return found
