"""The words of ``--on``: ``oom,psi,low=5%,order=4,growth=200MiB/10m``."""

from __future__ import annotations

from dataclasses import dataclass

from pageowner.analysis.filters import duration_ns, size_bytes
from pageowner.errors import UsageError, near
from pageowner.kernel.limits import HIGHEST_ORDER

__all__ = ["Conditions", "parse"]

_NAMES = ("oom", "psi", "low", "order", "growth")
_LEAST_GROWTH_S = 10
# Documentation/accounting/psi.rst: windows of 500 ms to 10 s
_WINDOWS_US = 500_000, 10_000_000


@dataclass(frozen=True)
class Conditions:
    """What to capture at.

    ``oom``: before memory is gone, and when the kernel kills for it. ``psi``: tasks stall on
    memory for so many µs within a window of so many. ``low``: MemAvailable is below a share of
    MemTotal (up to 1) or, above 1, so many bytes. ``order``: an allocation of 2**order pages or
    more fails. ``growth``: an owner grew by so many bytes within so many seconds.
    """

    oom: bool = False
    psi: tuple[int, int] | None = None
    low: float | None = None
    order: int | None = None
    growth: tuple[int, float] | None = None


def parse(text: str) -> Conditions:
    """Raises UsageError for words that are none of these."""
    given: dict[str, bool | int | float | tuple[int, int] | tuple[int, float]] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in _NAMES:
            raise UsageError(f"--on: there is no event {name!r}; {near(name, _NAMES)}")
        if name in given:
            raise UsageError(f"--on: {name} is given twice")
        try:
            given[name] = _value(name, value, bool(equals))
        except ValueError as error:
            raise UsageError(f"--on {part.strip()}: write {_EXAMPLES[name]}") from error
    return Conditions(**given)  # type: ignore[arg-type]


_EXAMPLES = {"oom": "oom", "psi": "psi or psi=150ms/2s, a window of 500ms to 10s",
             "low": "low=5% or low=512MiB", "order": f"order=4, up to {HIGHEST_ORDER}",
             "growth": "growth=200MiB/10m, of ten seconds or more"}


def _value(name: str, value: str,
           is_given: bool) -> bool | int | float | tuple[int, int] | tuple[int, float]:
    if name == "oom":
        if is_given:
            raise ValueError(value)
        return True
    if name == "psi":
        stall, _, window = (value or "150ms/2s").partition("/")
        both = _microseconds(stall), _microseconds(window)
        if not _WINDOWS_US[0] <= both[1] <= _WINDOWS_US[1] or not 0 < both[0] <= both[1]:
            raise ValueError(value)
        return both
    if name == "low":
        if value.endswith("%"):
            share = float(value[:-1]) / 100
            if not 0 < share < 1:
                raise ValueError(value)
            return share
        return float(max(_bytes(value), 2))
    if name == "order":
        if not value.isdecimal() or int(value[:4]) > HIGHEST_ORDER:
            raise ValueError(value)
        return int(value)
    size, _, time = value.partition("/")
    seconds = _microseconds(time) / 1e6
    if seconds < _LEAST_GROWTH_S or not _bytes(size):
        raise ValueError(value)
    return _bytes(size), seconds


def _microseconds(text: str) -> int:
    try:
        return duration_ns(text) // 1000
    except UsageError as error:
        raise ValueError(text) from error


def _bytes(text: str) -> int:
    try:
        return size_bytes(text)
    except UsageError as error:
        raise ValueError(text) from error
