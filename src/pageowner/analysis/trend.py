"""Does it grow? Trends that a few wild values cannot sway, in NumPy alone.

Theil-Sen: the median of the slopes between all pairs of points (P. K. Sen, Estimates of the
Regression Coefficient Based on Kendall's Tau, JASA 63, 1968, which also gives the interval).
Mann-Kendall: whether more pairs rise than fall than chance would have it (M. G. Kendall, Rank
Correlation Methods, 1975, with the correction for ties).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Trend", "thinned", "trend"]

_EXACT = 10
"""Up to so many points without ties Mann-Kendall is exact; beyond, and with ties, it is the normal
approximation, which is good from 10 points on."""

_Z95 = 1.959964
"""The standard normal deviate that 95 % lie within."""


class Trend(NamedTuple):
    """``slope`` and its 95 % interval ``low`` to ``high``, in units of the values per unit of time;
    ``tau``, the share of pairs that rise less the share of those that fall (-1 to 1); ``p``, how
    likely so many pairs rise by chance where there is no trend (one-sided)."""

    slope: float
    low: float
    high: float
    tau: float
    p: float


def trend(times: NDArray[Any], values: NDArray[Any]) -> Trend:
    """The trend of ``values`` (n) over ``times`` (n, rising). n must be 2 or more."""
    first, second = np.triu_indices(len(times), 1)
    rises = np.asarray(values, float)[second] - np.asarray(values, float)[first]
    slopes = np.sort(rises / (np.asarray(times, float)[second] - np.asarray(times, float)[first]))
    pairs = len(slopes)
    score = int(np.sign(rises).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = _variance(len(times), ties)
    reach = _Z95 * math.sqrt(variance)
    high = min(math.ceil((pairs + reach) / 2), pairs - 1)
    low = pairs - 1 - high  # as many slopes below as there are above
    return Trend(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), score / pairs,
                 _p_value(len(times), score, variance, bool((ties > 1).any())))


def thinned(times: NDArray[Any], values: NDArray[Any],
            most: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most ``most`` points: means of equally many neighbours in ``times`` (n) and along the
    last axis of ``values`` (… x n). A few values at the beginning may be left out."""
    step = -(-len(times) // most)
    if step <= 1:
        return times, values
    begin = len(times) % step
    shape = (*values.shape[:-1], -1, step)
    return (times[begin:].reshape(-1, step).mean(axis=1),
            values[..., begin:].reshape(shape).mean(axis=-1))


def _variance(n: int, ties: NDArray[np.int64]) -> float:
    """Of Mann-Kendall's score if there is no trend."""
    tied = int((ties * (ties - 1) * (2 * ties + 5)).sum())
    return max(n * (n - 1) * (2 * n + 5) - tied, 0) / 18


def _p_value(n: int, score: int, variance: float, ties: bool) -> float:
    if n <= _EXACT and not ties:
        return _exact(n)[(n * (n - 1) // 2 - score) // 2]
    if not variance:
        return 1.0
    z = (score - np.sign(score)) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2)) / 2


@lru_cache(maxsize=_EXACT)
def _exact(n: int) -> tuple[float, ...]:
    """The chance that at most k pairs of n values in random order fall, by k."""
    ways = [1]
    for size in range(2, n + 1):
        # the new largest value comes before 0 to size - 1 of the others, and falls to each
        ways = [sum(ways[max(k - size + 1, 0):k + 1])
                for k in range(size * (size - 1) // 2 + 1)]
    total = math.factorial(n)
    return tuple(np.cumsum(ways) / total)
