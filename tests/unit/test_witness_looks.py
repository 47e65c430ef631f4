"""Looks for growth are compared with those of one tracker alone."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from pageowner.witness.process import Witness


def test_a_tracker_that_began_meanwhile_is_not_compared_with_the_last() -> None:
    """It may track what the last one left out, which would all look like growth."""
    told: list[str] = []
    looks = iter([(5, 9_000), (5, 9_100), (7, 60_000), (7, 90_000)])

    def look() -> tuple[Any, dict[str, int]]:
        since, pages = next(looks)
        return SimpleNamespace(meta=SimpleNamespace(
            page_size=4096, extra={"since_ns": since})), {"hog+0x1/0x2": pages}

    def capture(event: str, _text: str) -> None:
        told.append(event)

    witness: Any = SimpleNamespace(
        look=look, _looks=deque(maxlen=7), _since=None, _capture=capture,
        limits=SimpleNamespace(may=lambda *_: True))
    for now, expected in ((0, 0), (10, 0), (20, 0), (30, 1)):
        Witness._grown(witness, 8 << 20, 60.0, float(now))
        assert len(told) == expected
