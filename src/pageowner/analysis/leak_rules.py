"""The rules by which an owner that grew leaks or does not, and which of them one fails.

An owner leaks if its pages grow steadily and stay, or if they grow in bursts that stay and were
seen three times. The numbers were set by trials (docs/leaks.md); the custom is 0.05 for chance.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.analysis.trend import Trend, thinned, trend
from pageowner.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.analysis.filters import Filter

__all__ = ["FAILED", "FINE", "MANY_BURSTS", "PARTS", "STEADY", "Evidence", "check_chosen",
           "evidence"]

FAILED = ("chance", "slow", "freed", "uneven", "few_bursts", "late", "stopped")
"""What a suspect fails: its trend may be chance; the low end of its rate is too small; most of what
settled was freed; it did not grow in most parts of the time; there were fewer than `MANY_BURSTS`
bursts; the first of them was late, or the last long ago, beside what lies between two."""

PARTS = 12
"""Equal parts of the watched time, at most, in which an owner that grows evenly grows."""

FINE = 5
"""Each of them in so many, to tell bursts apart."""

MANY_BURSTS = 3
"""As often a burst that stays must have been seen."""

STEADY = 0.9
"""What grows in so much of the time is steady; a leak that does not is one in bursts."""

_P = 0.05
"""Above this a trend may be chance (four values that rise have 0.042)."""
_SURVIVAL = 0.6
_EVEN = 0.25
_QUIET = 1.5
"""Longer quiet at an end than so many of the longest between two bursts: it came late, or ended."""
_SHORT = 1 / 6
"""One rise in so much of the time is a burst; a longer one is growth that was not even."""
_MOST_POINTS = 60  # of a trend; pairs go by the square


def check_chosen(chosen: Filter | None) -> None:
    """Raises UsageError for a choice by age. Pages that settled are told from others by their age:
    with old pages alone none was seen to be born, with young ones alone they go as they age."""
    if chosen and chosen.ages_ns() != (None, None):
        raise UsageError("leaks are told by all ages of an owner's pages: --older and --newer"
                         " cannot choose some of them")


class Evidence(NamedTuple):
    """How an owner grew, and what of it stays.

    ``trend`` of its settled pages, per unit of the times; ``survival``, of the pages that settled
    the share that lives at last (None where ages are unknown); ``steady``, the share of the time in
    which pages were added that live at last; ``bursts`` with quiet between them; ``settled`` pages
    while it was watched, and of these ``stayed`` (None: unknown); ``failed``, of `FAILED`, none if
    it leaks.
    """

    trend: Trend
    survival: float | None
    steady: float
    bursts: int
    settled: int | None
    stayed: int | None
    failed: tuple[str, ...]

    @property
    def confidence(self) -> float:
        """A score, no probability: of a leak in bursts, these but one take the place of evenness.
        """
        even = self.steady
        if self.steady < STEADY and not self.failed:
            even = (self.bursts - 1) / self.bursts
        return (1 - self.trend.p) * (1 if self.survival is None else self.survival) * even


def evidence(at: NDArray[np.float64], settled: NDArray[np.float64], arrived: int | None,
             births: NDArray[np.int64] | None, min_pages: int) -> Evidence:
    """Judge an owner by its ``settled`` pages (n) at the times ``at`` (n, rising from 0).

    ``arrived``: the pages that settled while it was watched, None where ages are unknown;
    ``births``: of these, what lives at last by time of allocation, in equal parts of the time
    (`FINE` for each of up to `PARTS`). ``min_pages``: the least growth that counts.
    """
    found = trend(*thinned(at, settled, _MOST_POINTS))
    if arrived is None:
        survival, stayed, steady = None, None, _steady_steps(settled)
        steps = np.maximum(np.diff(settled), 0)  # in place of births
    elif births is None or not arrived:
        survival, stayed, steady, steps = 0.0, 0, 0.0, np.zeros(1)
    else:
        stayed, steps = int(births.sum()), births.astype(float)
        survival = min(stayed / arrived, 1.0)
        parts = births.reshape(-1, FINE).sum(axis=1)
        enough = (parts >= float(parts.mean()) * _EVEN) & (parts > 0)
        steady = float(np.count_nonzero(enough)) / len(parts)
    bursts, span = _bursts(steps), float(at[-1])
    for_both = _names(chance=found.p > _P, freed=survival is not None and survival < _SURVIVAL)
    evenly = _names(uneven=steady < STEADY, slow=found.low * span < min_pages / 2)
    in_bursts = _names(
        few_bursts=len(bursts) < MANY_BURSTS,
        freed=arrived is None and settled[-1] - settled[0] < _SURVIVAL * float(steps.sum()),
        ) + _ends(bursts, len(steps)) + _names(slow=found.slope * span < min_pages / 2)
    failed = for_both
    if evenly and in_bursts and "freed" not in failed:  # births are of what was not freed
        # neither kind of leak: what it looks most like is told, and its first rule
        once = len(bursts) == 1 and bursts[0][1] - bursts[0][0] <= len(steps) * _SHORT
        failed += (in_bursts if once or len(bursts) > 1 else evenly)[:1]
    return Evidence(found, survival, steady, len(bursts), arrived, stayed, tuple(failed))


def _names(**fails: bool) -> list[str]:
    return [name for name, failed in fails.items() if failed]


def _steady_steps(settled: NDArray[np.float64]) -> float:
    """Where pages have no ages: the share of equal parts of the time in which their number rose by
    a quarter of the mean rise or more."""
    marks = np.linspace(0, len(settled) - 1, min(PARTS // 2, len(settled) - 1) + 1)
    rises = np.diff(np.interp(marks, np.arange(len(settled)), settled))
    return float(np.count_nonzero(rises >= rises.mean() * _EVEN)) / len(rises)


def _bursts(steps: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Where pages were added that stay: runs of ``steps`` with a quarter of the mean or more each,
    and of these runs those with a quarter of their mean or more; first step and the one behind."""
    active = steps >= max(float(steps.mean()) * _EVEN, 1e-9)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    sums = np.array([steps[start:end].sum() for start, end in runs])
    return [(int(start), int(end)) for (start, end), pages in zip(runs, sums, strict=True)
            if pages >= sums.mean() * _EVEN]


def _ends(bursts: list[tuple[int, int]], steps: int) -> list[str]:
    """Whether the bursts, in so many steps, began late or have stopped, what is clearer first."""
    if len(bursts) < MANY_BURSTS:
        return []
    longest = max(after[0] - before[1] for before, after in pairwise(bursts))
    quiet = {"late": bursts[0][0], "stopped": steps - bursts[-1][1]}
    return [name for name in sorted(quiet, key=quiet.__getitem__, reverse=True)
            if quiet[name] > longest * _QUIET + 1]
