"""Make the next thing while the one before is worked on, in a thread: for what lets go of Python's
lock, such as reading and what Arrow does."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["in_turn"]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def in_turn(make: Callable[[_Item], _Made], items: Sequence[_Item],
            ahead: int = 1) -> Iterator[tuple[_Item, _Made]]:
    """Each item with what is made of it, in order; at most ``ahead`` are made before they are
    asked for. What is raised there is raised here, when it is the item's turn."""
    if len(items) < 2:
        for item in items:
            yield item, make(item)
        return
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(make, item) for item in items[:ahead])
        try:
            for place, item in enumerate(items):
                if place + ahead < len(items):
                    coming.append(pool.submit(make, items[place + ahead]))
                yield item, coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
