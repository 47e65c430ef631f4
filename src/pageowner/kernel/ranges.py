"""Lists of numbers as the kernel prints them: ``0-2,4`` (lib/vsprintf.c, bitmap_list_string)."""

from __future__ import annotations

__all__ = ["numbers"]


def numbers(text: str) -> list[int]:
    """Each number of such a list; none for an empty one. Raises ValueError for another text."""
    found: list[int] = []
    for part in text.strip().split(",") if text.strip() else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
