"""What could not be read of a text: how many places, and the first of them; what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.metadata import Metadata

__all__ = ["SHOWN_DAMAGE", "Damage", "count_damage", "note_left_out"]

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


def note_left_out(meta: Metadata, number: int, said: Sequence[str]) -> None:
    """Note that so much of a text was not read, since another part of it tells of the same; and
    what that was, or was counted twice, in words."""
    if number:
        meta.counters["left_out"] = meta.counters.get("left_out", 0) + number
    if said:
        meta.extra["left_out"] = [*meta.extra.get("left_out", ()), *said]
