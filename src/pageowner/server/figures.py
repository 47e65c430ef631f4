"""The figures that a worker gathers and the server keeps: plain values that go through JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pageowner.model.schema import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MOST_LEAKS", "MOST_OWNERS", "Figures", "Growth", "StackOwner", "leaks_of"]

MOST_OWNERS = 1000
"""Owners of a kind that a worker hands over, the largest; the others are summed."""

MOST_LEAKS = 200
"""Leaks and suspects that a worker hands over, the first; the others are only counted."""


@dataclass(frozen=True)
class StackOwner:
    """A stack that holds memory: ``stack``, its identity in 16 hexadecimal digits; the ``function``
    that explains it, its ``module`` and ``subsystem``; ``bytes``."""

    stack: str
    function: str
    module: str
    subsystem: str
    bytes: int


@dataclass(frozen=True)
class Growth:
    """An owner as `leaks` judges it: ``kind`` (`analysis.leaks.KINDS`), ``failed`` rules if it is a
    suspect; bytes a second: ``rate``, and the low and high end of its interval; ``confidence``;
    bytes ``gained``; ``program``, whose private memory it is, else empty. ``note``: of pages
    without an owner what they are, and the rest of `StackOwner` is empty."""

    kind: str
    stack: str
    function: str
    module: str
    subsystem: str
    program: str
    note: str
    rate: float
    rate_low: float
    rate_high: float
    confidence: float
    gained: int
    failed: list[str] = field(default_factory=list)


def leaks_of(growth: Iterable[Growth]) -> list[Growth]:
    """The leaks, the fastest first; those of one identity, whose stacks differ in nothing but the
    offsets, as one: rates and what was gained summed, the confidence that of the fastest of them.

    Low ends summed are a careful low end: it is not likely that all of them are so slow.
    """
    found: dict[tuple[str, str, str], Growth] = {}
    leaks = [owner for owner in growth if owner.kind == "leak"]
    for leak in sorted(leaks, key=lambda owner: -owner.rate_low):
        key = leak.stack, leak.program, leak.note
        first = found.get(key)
        found[key] = leak if first is None else replace(
            first, rate=first.rate + leak.rate, rate_low=first.rate_low + leak.rate_low,
            rate_high=first.rate_high + leak.rate_high, gained=first.gained + leak.gained)
    return sorted(found.values(), key=lambda owner: -owner.rate_low)


@dataclass(frozen=True)
class Figures:
    """What is known of a source at a moment, in bytes.

    ``taken``: seconds since 1970, None where the source does not say; ``source``: its name;
    ``tracking``: whether this machine's tracker is the source. By name: ``states``,
    ``subsystems``, ``cgroups``, ``balance`` (lines that add up to ``total``, MemTotal).
    ``containers``: pod and container of those cgroups that are of any, "" for none. ``stacks``:
    the largest, and the bytes of all ``other_stacks``. ``growth``: the first leaks and suspects
    over ``watched`` seconds and ``looks``, and ``kinds``, how many there are in all by their kind
    (`Growth`); fewer than four looks judge nothing. ``health``: counters of
    the tracker by name, and ``since_ns`` when it began (since boot; 0: none). ``took``: seconds of
    CPU that gathering took, and ``waited`` by the clock. ``keys``: what its rows can be grouped by.
    """

    source: str
    tracking: bool
    taken: float | None
    states: dict[str, int] = field(default_factory=dict)
    subsystems: dict[str, int] = field(default_factory=dict)
    cgroups: dict[str, int] = field(default_factory=dict)
    other_cgroups: int = 0
    containers: dict[str, list[str]] = field(default_factory=dict)
    stacks: list[StackOwner] = field(default_factory=list)
    other_stacks: int = 0
    growth: list[Growth] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    watched: float = 0.0
    health: dict[str, float] = field(default_factory=dict)
    since_ns: int = 0
    balance: dict[str, int] = field(default_factory=dict)
    total: int = 0
    available: int | None = None
    took: float = 0.0
    waited: float = 0.0
    notes: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=lambda: list(KEYS))

    def following(self, before: Figures | None) -> Figures:
        """These, with no fewer ``missed`` events than ``before`` of the same tracker: the number
        is the difference of what is counted in two places while events go on, and a counter that
        falls passes for one that began anew."""
        if before is None or before.since_ns != self.since_ns or "missed" not in self.health:
            return self
        most = max(self.health["missed"], before.health.get("missed", 0))
        return replace(self, health=self.health | {"missed": most})

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, words: dict[str, Any]) -> Figures:
        """The inverse of `plain`."""
        return cls(**{**words, "stacks": [StackOwner(**owner) for owner in words["stacks"]],
                      "growth": [Growth(**owner) for owner in words["growth"]]})
