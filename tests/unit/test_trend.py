"""Trends: right numbers where they are known, and not swayed by what should not sway them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from pageowner.analysis.trend import thinned, trend


def test_a_straight_line_has_its_slope_and_no_doubt() -> None:
    times = np.arange(13) * 5.0
    found = trend(times, 7 + 3 * times)
    assert (found.slope, found.low, found.high, found.tau) == (3, 3, 3, 1)
    assert found.p < 1e-5


def test_the_slope_is_the_median_of_all_pairs() -> None:
    # 10 pairs by hand: 1, 2.5, 1, 2, 4, 1, 7/3, -2, 1.5, 5; the two in the middle are 1.5 and 2
    found = trend(np.arange(5), np.array([0, 1, 5, 3, 8]))
    assert found.slope == 1.75
    assert found.tau == 8 / 10
    assert found.low <= found.slope <= found.high


def test_one_wild_value_moves_the_slope_little() -> None:
    times = np.arange(13.0)
    values = 100 * times
    values[6] = 50_000
    found = trend(times, values)
    assert found.slope == 100
    assert 0 < found.low <= 100 <= found.high


@pytest.mark.parametrize("values", [(3, 1, 4, 2), (5, 1, 2, 3, 4), (2, 1, 3, 5, 4, 6)])
def test_few_values_are_as_likely_as_counting_all_orders_says(values: tuple[int, ...]) -> None:
    def score(order: tuple[int, ...]) -> int:
        return sum((b > a) - (b < a) for place, a in enumerate(order) for b in order[place + 1:])

    orders = list(permutations(values))
    as_high = sum(score(order) >= score(values) for order in orders)
    found = trend(np.arange(len(values)), np.array(values))
    assert found.p == pytest.approx(as_high / len(orders))


def test_no_change_is_no_trend() -> None:
    found = trend(np.arange(8), np.full(8, 42))
    assert (found.slope, found.tau, found.p) == (0, 0, 1)


def test_noise_is_called_a_trend_as_often_as_said_and_its_interval_holds_the_slope() -> None:
    random = np.random.default_rng(7)
    times = np.arange(13.0)
    found = [trend(times, random.normal(size=13)) for _ in range(2000)]
    assert 0.03 < np.mean([one.p <= 0.05 for one in found]) < 0.07
    assert 0.92 < np.mean([one.low <= 0 <= one.high for one in found]) < 0.985


def test_thinned_keeps_the_line() -> None:
    times = np.arange(1000.0)
    fewer, values = thinned(times, 5 * times, 60)
    assert len(fewer) <= 60
    assert trend(fewer, values).slope == pytest.approx(5)
    assert thinned(times[:10], times[:10], 60)[0] is not None
    assert len(thinned(times[:10], times[:10], 60)[0]) == 10
