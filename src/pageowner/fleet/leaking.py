"""Leaks in the series of a fleet, by the rules of `pageowner.analysis.leak_rules`.

The tables have ages in classes, so the largest class of at most a sixth of the time that a machine
was watched is what counts as settled (``leaks`` takes the sixth itself; of times that are too long
for all classes it is the last but one), and what lives at last is spread evenly over the time of
its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.analysis.leak_rules import FINE, PARTS, Evidence, evidence
from pageowner.fleet.columns import AGES, age_column, age_ns

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ages", "Series", "ages_for", "judge"]

_SHARE = 6
_AGES_S = [age_ns(age) / 1e9 for age in AGES]


class Ages(NamedTuple):
    """The classes that tell about a window: the age from which pages are ``settled``, the ``next``
    one, and all from the first to ``last``, as columns and seconds."""

    columns: list[str]
    seconds: list[float]

    @property
    def settled(self) -> str:
        """The column of settled pages."""
        return self.columns[0]


def ages_for(window_s: float) -> Ages | None:
    """The classes for a time that was watched; None where it is too short for any."""
    first = max((place for place, age in enumerate(_AGES_S) if age <= window_s / _SHARE * 1.001),
                default=None)
    if first is None:
        return None
    first = min(first, len(_AGES_S) - 2)  # what settled is told by the class after it
    last = max(place for place, age in enumerate(_AGES_S)
               if place == first + 1 or age <= window_s + _AGES_S[first])
    places = range(first, last + 1)
    return Ages([age_column(AGES[place]) for place in places], [_AGES_S[place] for place in places])


class Series(NamedTuple):
    """Of one owner on one machine: ``times`` of all captures of a boot in seconds, rising;
    ``pages`` (n); ``by_age`` (n x classes), pages at least so old, None where no age is known."""

    times: NDArray[np.float64]
    pages: NDArray[np.int64]
    by_age: NDArray[np.int64] | None


def judge(series: Series, ages: Ages, least_pages: int) -> Evidence:
    """The evidence on one owner; it leaks if nothing ``failed``. Rates are per second."""
    at = series.times - series.times[0]
    if series.by_age is None:
        return evidence(at, series.pages.astype(float), None, None, least_pages)
    settled = series.by_age[:, 0].astype(float)
    return evidence(at, settled, _arrived(series, ages), _births(series.by_age[-1], ages),
                    least_pages)


def _arrived(series: Series, ages: Ages) -> int:
    """The pages that settled in the time of the classes: at steps as long as the first class, what
    is in it has settled since the step before; of the last step the part that is left."""
    assert series.by_age is not None
    width = ages.seconds[1] - ages.seconds[0]
    left, mark, total = ages.seconds[-1] - ages.seconds[0], float(series.times[-1]), 0.0
    while left > 1e-6:
        place = int(np.argmin(np.abs(series.times - mark)))
        fresh = float(series.by_age[place, 0] - series.by_age[place, 1])
        total += fresh * min(left / width, 1.0)
        left, mark = left - width, mark - width
    return round(total)


def _births(at_last: NDArray[np.int64], ages: Ages) -> NDArray[np.int64]:
    """What lives at last by time of allocation, oldest first, in equal parts of the time."""
    edges = np.linspace(ages.seconds[-1], ages.seconds[0], PARTS * FINE + 1)
    older = np.interp(edges, ages.seconds, at_last.astype(float))
    births: NDArray[np.int64] = np.diff(np.round(older)).clip(0).astype(np.int64)
    return births

