"""Moments as people write them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from pageowner.errors import UsageError
from pageowner.model.times import moment


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the zone of time."""
    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("now", "text", "expected"), [
    ("2026-03-29T08:00+02:00", "01:30", "2026-03-29T01:30+01:00"),
    ("2026-03-29T08:00+02:00", "14:30", "2026-03-28T14:30+01:00"),
    ("2026-10-25T08:00+01:00", "14:30", "2026-10-24T14:30+02:00")])
def test_a_time_of_day_is_the_walls_also_where_the_clock_was_changed(
        now: str, text: str, expected: str, zone: Callable[[str], None]) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0/3")
    assert moment(text, datetime.fromisoformat(now)) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize(("text", "expected"), [
    ("14:30", "2026-11-23T14:30:00+00:00"), ("16:00", "2026-11-22T16:00:00+00:00"),
    ("2h", "2026-11-23T13:00:00+00:00"), ("90 min ago", "2026-11-23T13:30:00+00:00"),
    ("2026-11-20", "2026-11-20T00:00:00"), ("2026-11-20 10:11:12Z", "2026-11-20T10:11:12+00:00"),
    ("14:30:05.25", "2026-11-23T14:30:05.250+00:00")])
def test_moments_are_understood(text: str, expected: str, zone: Callable[[str], None]) -> None:
    zone("UTC")
    now = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
    assert moment(text, now) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize("text", ["", "25:00", "12:61", "soon", "2026-13-01", "5 parsecs"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        moment(text)
