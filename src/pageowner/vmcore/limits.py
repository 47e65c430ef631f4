"""How long a vmcore is read at most: damaged structures lead anywhere, and in circles."""

from __future__ import annotations

import time

from pageowner.errors import PageownerError

__all__ = ["Limits"]

_SECONDS, _SECONDS_OF_GIB = 60, 60
_MISSING, _MISSING_OF_PAGE = 1 << 18, 8
_PAGE = 4096
_EACH = 32
"""Reads after which the clock, which is as dear as one, is asked."""


class Limits:
    """Of the processor's time, and of pages that are wanted and not there, both by the bytes of the
    file: a sound one stays far below them."""

    def __init__(self, size: int) -> None:
        self.seconds = _SECONDS + _SECONDS_OF_GIB * (size >> 30)
        self.missing = _MISSING + _MISSING_OF_PAGE * (size // _PAGE)
        self._until = time.thread_time() + self.seconds
        self._asked = 0

    def check(self, missing: int) -> None:
        """Raises PageownerError if either is passed."""
        if missing > self.missing:
            raise PageownerError(f"it is damaged, or not whole: {missing:,} pages that are wanted"
                                 " are not in it")
        self._asked += 1
        if self._asked % _EACH == 1 and time.thread_time() > self._until:
            raise PageownerError("it is damaged: reading it takes longer than"
                                 f" {self.seconds} seconds of the processor's time")
