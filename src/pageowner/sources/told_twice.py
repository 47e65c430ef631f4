"""What a text tells twice: a mail may hold two lists of the same pages, or one of them two times.

Where two lists follow each other, the second begins where the first one's items come again. A list
may have a few items twice by itself (functions of one name, lines of a header): these are no
second list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["repeats", "second_list"]


def second_list(items: Sequence[Hashable]) -> int | None:
    """Where a second list of such items begins; None if there is none."""
    if len(set(items)) == len(items):
        return None
    seen: set[Hashable] = set()
    first, again = len(items), 0
    for place, item in enumerate(items):
        if item in seen:
            first, again = min(first, place), again + 1
        seen.add(item)
    if 2 * again < len(items) - first:
        return None
    # What is new in the second list stands at its beginning: new stacks are put in front
    # (add_stack_record_to_list, mm/page_owner.c), and the last one is that of all lists.
    last = items.index(items[-1]) + 1
    return last if last <= first and 2 * (first - last) <= again else first


def repeats(items: Sequence[Hashable]) -> int:
    """How many items are there for another time, if these are most of those from the first such
    item on; else 0."""
    again = len(items) - len(set(items))
    if not again:
        return 0
    seen: set[Hashable] = set()
    first = next(place for place, item in enumerate(items)
                 if item in seen or seen.add(item))  # type: ignore[func-returns-value]
    return again if again > 1 and 2 * again >= len(items) - first else 0
