"""The time by which files are old: a clock that was set forward is not believed at once."""

from __future__ import annotations

import time

__all__ = ["BelievedTime"]

_JUMP = 60
"""Seconds that a clock runs away from the one that nobody sets, and is still believed."""


class BelievedTime:
    """What is removed is gone: a clock that was set forward while this process runs is believed
    only when it has been so for ``patience_s``, since it may be set right again."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._clock = time.time() - _since_boot()
        self._jumped: float | None = None

    def now(self) -> float:
        """Seconds since 1970."""
        now, boot = time.time(), _since_boot()
        expected = self._clock + boot
        if now - expected <= _JUMP:
            self._jumped = None
            self._clock = min(self._clock, now - boot)
            return now
        if self._jumped is None:
            self._jumped = boot
        if boot - self._jumped < self._patience_s:
            return expected
        self._clock, self._jumped = now - boot, None
        return now


def _since_boot() -> float:
    """Seconds, with those that the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
