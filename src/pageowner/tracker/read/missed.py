"""Events that no program dealt with, from what the kernel and the programs count while events go
on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.model.hook_states import NESTED
from pageowner.model.object_hooks import OBJECT_HOOKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.tracker.read.maps import Store

__all__ = ["missed", "missed_frees", "missed_of_objects"]

_READINGS = 4
_OF_SECOND = ("reentered", "nested_allocs", "nested_frees")
"""What counts events for which a first program was too busy."""
_OF_SECOND_COPIES = tuple(hook.seen_by_second for hook in OBJECT_HOOKS)


def missed(store: Store) -> int:
    """Those for which a program was too busy, but for those that its second program took; those of
    objects are counted apart."""
    hooks, counters = _read(store, _OF_SECOND)
    of_objects = store.facts.get("object_hooks", {})
    # What the second program was too busy for came between two of the first one's, or was missed
    # by the first one too.
    lost = counters["reentered"] - counters["nested_allocs"] - counters["nested_frees"]
    lost += hooks.pop("mm_page_alloc", 0) + hooks.pop("mm_page_free", 0)
    return max(lost, 0) + sum(number for name, number in hooks.items()
                              if name not in of_objects and not name.endswith(NESTED))


def missed_frees(store: Store) -> int:
    """How many of the missed events at most were frees. So many blocks at most may have a record
    whose owner is gone: it stays until the block is seen allocated again."""
    hooks, counters = _read(store, _OF_SECOND)
    lost = hooks.get("mm_page_free", 0) - counters["nested_frees"]
    # Which of the two programs ran inside itself is not told apart (before 6.1).
    if counters["reentered"]:
        lost += counters["reentered"] - counters["nested_allocs"]
    return max(lost, 0)


def missed_of_objects(store: Store) -> int:
    """Events of objects that no program dealt with since objects are kept, at most. Where one in N
    is followed, events of others are among them. Where programs are there twice, some are that the
    second copy took without being sure that the first had not: objects that are not in the table,
    and bulks; but no more than the second copy was too busy for."""
    hooks, counters = _read(store, _OF_SECOND_COPIES)
    before = store.facts.get("missed_before_objects", {})
    since = {name: number - before.get(name, 0) for name, number in hooks.items()}
    lost = 0
    for hook in OBJECT_HOOKS:
        left = since.get(hook.name, 0)
        if (second := since.get(hook.name + NESTED)) is not None:
            left = min(left - counters[hook.seen_by_second], second)
        lost += max(left, 0)
    return lost


def _read(store: Store, of_second: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """By hook the events that its program was too busy for, and `Store.counters`.

    The first program is refused before the second one counts what it takes: read after the
    counters, the refusals are never fewer than those that the counters are of. They are of one
    moment if the counters are still the same then.
    """
    after = store.counters()
    for _ in range(_READINGS):
        counters = after
        hooks = {hook.name: hook.missed for hook in store.hooks()}
        after = store.counters()
        if all(after[name] == counters[name] for name in of_second):
            break
    return hooks, counters
