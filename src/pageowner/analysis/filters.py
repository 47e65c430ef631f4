"""The words of questions: keys to group by, sortings, filters.

Nothing heavy is imported here, so that a wrong word is said at once and a right one does not hold
up the processes that read the source.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.errors import UsageError, near
from pageowner.model.schema import ALIASES, KEYS, Filter
from pageowner.model.times import duration_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALIASES", "KEYS", "SORTS", "Filter", "check_sort", "colouring",
           "duration_ns", "key_names", "rate_per_hour", "size_bytes"]

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


def size_bytes(text: str) -> int:
    """``10MiB``, ``1.5G``, ``512K`` in bytes, all units powers of 1024; a bare number is bytes.

    Raises UsageError for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = _SIZES.get(found[2]) if found else None
    if not found or unit is None or len(found[1]) > 18:
        raise UsageError(f"{text!r} is not a size; write 512KiB, 10MiB or 1GiB")
    return int(float(found[1]) * unit)


def rate_per_hour(text: str) -> float:
    """``10MiB/h``, ``1MiB/s``, ``500M/d`` in bytes an hour; a bare size is one an hour.

    Raises UsageError for anything else.
    """
    size, _, unit = text.partition("/")
    hours = {"": 1.0, "h": 1.0, "s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "d": 24.0}.get(
        unit.strip().lower())
    try:
        if hours is None:
            raise UsageError(text)
        return size_bytes(size) / hours
    except UsageError:
        raise UsageError(f"{text!r} is not a rate; write 10MiB/h, 512KiB/s or 1GiB/d") from None
