"""How often an event is captured: soon again at first, ever less while it lasts."""

from __future__ import annotations

__all__ = ["Limits"]

_FIRST_S, _LAST_S = 5.0, 600.0
_CALM_S = 60.0


class Limits:
    """When each event may be captured again: after 5 s, 10 s, … 10 min; anew once it has not
    happened for a minute longer than that. For one that is looked for more rarely than this, the
    first wait is the time between two looks, and each other at least so long."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._wait: dict[str, float] = {}
        self.passed_over: dict[str, int] = {}

    def may(self, event: str, now: float, every_s: float = 0.0) -> bool:
        """Whether an event that happens ``now`` (seconds, of a clock that nobody sets) is captured;
        if so, it is taken to be. ``every_s`` lie between two looks for it."""
        due = self._next.get(event)
        if due is not None and now < due:
            self.passed_over[event] = self.passed_over.get(event, 0) + 1
            return False
        calm = due is None or now > due + _CALM_S + every_s
        wait = max(_FIRST_S if calm else min(self._wait[event] * 2, _LAST_S), every_s)
        self._wait[event], self._next[event] = wait, now + wait
        return True
