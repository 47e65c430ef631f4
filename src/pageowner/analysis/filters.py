"""The words of questions: keys to group by, sortings, filters.

Nothing heavy is imported here, so that a wrong word is said at once and a right one does not hold
up the processes that read the source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from pageowner.errors import UsageError, near
from pageowner.model.schema import ALIASES, KEYS
from pageowner.model.times import duration_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALIASES", "KEYS", "SORTS", "Filter", "check_sort", "colouring",
           "duration_ns", "key_names", "size_bytes"]

SORTS = ("pages", "blocks", "name", "age")

_SIZES = {"": 1, "b": 1, **{f"{letter}{unit}": 1 << 10 * power
                            for power, letter in enumerate("kmgt", 1) for unit in ("", "b", "ib")}}


def key_names(words: str | list[str] | tuple[str, ...]) -> list[str]:
    """``"comm,order"`` or its parts as names of `KEYS`. Raises UsageError for any other word."""
    parts = words.split(",") if isinstance(words, str) else words
    names = [ALIASES.get(part.strip(), part.strip()) for part in parts]
    for name in names:
        if name not in KEYS:
            raise UsageError(f"cannot group by {name!r}; {near(name, KEYS)}")
    if not names:
        raise UsageError(f"nothing to group by; choose from {', '.join(KEYS)}")
    return list(dict.fromkeys(names))


def check_sort(sort: str, names: Sequence[str]) -> None:
    """Raises UsageError if ``sort`` is neither one of `SORTS` nor one of the keys ``names``."""
    if sort not in SORTS and ALIASES.get(sort, sort) not in names:
        raise UsageError(f"cannot sort by {sort!r}; {near(sort, (*SORTS, *names))}")


def colouring(by: str) -> str:
    """What to colour by: one of report's keys, or the age. Raises UsageError for anything else."""
    name = ALIASES.get(by, by)
    if name != "age" and name not in KEYS:
        raise UsageError(f"cannot colour by {by!r}; {near(by, ('age', *KEYS))}")
    return name


@dataclass(frozen=True)
class Filter:
    """What to keep; None means any.

    ``comm``, ``module``, ``memcg``, ``subsystem`` and ``stack`` are shell patterns (``stack``
    matches if any frame's function does), ``gfp`` names flags that must all be set, ``older`` and
    ``newer`` are ages such as ``30s``, ``5m``, ``2h``: time between the allocation and the moment
    the snapshot was taken (for a dump, the newest allocation in it).
    """

    pid: tuple[int, ...] | None = None
    tid: tuple[int, ...] | None = None
    comm: tuple[str, ...] | None = None
    module: tuple[str, ...] | None = None
    subsystem: tuple[str, ...] | None = None
    stack: tuple[str, ...] | None = None
    memcg: tuple[str, ...] | None = None
    node: tuple[int, ...] | None = None
    zone: tuple[str, ...] | None = None
    order: tuple[int, ...] | None = None
    gfp: tuple[str, ...] | None = None
    migratetype: tuple[str, ...] | None = None
    state: tuple[str, ...] | None = None
    older: str | None = None
    newer: str | None = None

    def __post_init__(self) -> None:
        # One value may be given as it is: Filter(comm="bash").
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("older", "newer"):
                if value is not None:
                    duration_ns(value)
            elif isinstance(value, (str, int)):
                object.__setattr__(self, one.name, (value,))
            elif value is not None:
                object.__setattr__(self, one.name, tuple(value) or None)

    def ages_ns(self) -> tuple[int | None, int | None]:
        """The least and the most age that ``older`` and ``newer`` ask for."""
        return (None if self.older is None else duration_ns(self.older),
                None if self.newer is None else duration_ns(self.newer))

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) is not None for one in fields(self))


def size_bytes(text: str) -> int:
    """``10MiB``, ``1.5G``, ``512K`` in bytes, all units powers of 1024; a bare number is bytes.

    Raises UsageError for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = _SIZES.get(found[2]) if found else None
    if not found or unit is None or len(found[1]) > 18:
        raise UsageError(f"{text!r} is not a size; write 512KiB, 10MiB or 1GiB")
    return int(float(found[1]) * unit)
