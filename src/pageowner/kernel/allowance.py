"""So much time for looking through /proc, and no more."""

from __future__ import annotations

import time

__all__ = ["Allowance"]

_CLOCK = 10
"""What sleeps, on a lock or for a page that was paged out, takes none of a thread's own time."""


class Allowance:
    """So many ``seconds`` of this thread's own time, so that a busy machine learns as much as
    another, and ten times as much of the clock."""

    def __init__(self, seconds: float) -> None:
        self._own = time.thread_time() + seconds
        self._clock = time.monotonic() + _CLOCK * seconds

    @property
    def is_over(self) -> bool:
        """Whether nothing is left of it."""
        return time.thread_time() > self._own or time.monotonic() > self._clock
