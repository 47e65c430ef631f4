"""What could not be read of a text: how many places, and the first of them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["SHOWN_DAMAGE", "Damage", "count_damage"]

SHOWN_DAMAGE = 10


class Damage(NamedTuple):
    """One place that could not be read: its byte in the unpacked text, and what is wrong."""

    offset: int
    reason: str


class _Counted(Protocol):
    damaged: int
    damage: list[Damage]


def count_damage(found: _Counted, offset: int, reason: str) -> None:
    """Count a place; the first `SHOWN_DAMAGE` are kept."""
    found.damaged += 1
    if len(found.damage) < SHOWN_DAMAGE:
        found.damage.append(Damage(offset, reason))
