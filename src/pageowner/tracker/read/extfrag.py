"""Fragmentation events by who caused them, from the tracker's map ``extfrag``.

One event: an allocation found no free block of its own migratetype and took pages from a block of
another (mm/page_alloc.c, __rmqueue_fallback, tracepoint mm_page_alloc_extfrag). It is how blocks
become mixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.kernel import zones
from pageowner.kernel.task_names import to_text
from pageowner.tracker.read import decoding, layout

if TYPE_CHECKING:
    from pageowner.kernel.kallsyms import Kallsyms
    from pageowner.tracker.read.maps import Store

__all__ = ["KEY", "VALUE", "block_names", "events"]

KEY = np.dtype([(name.removeprefix("alloc_"), kind) for name, kind in layout.EXTFRAG_KEY])
VALUE = np.dtype(list(layout.EXTFRAG))

_TYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")
_MOST = 1 << 16


def events(store: Store, symbols: Kallsyms, types: tuple[str, ...]) -> list[dict[str, Any]]:
    """The events since tracking began, most frequent first.

    Each: ``comm``, ``pid``, ``tgid``, ``stack`` (as text, None if unknown), ``order`` and
    ``migratetype`` of the allocation, ``fallback_order`` and ``fallback_migratetype`` of the free
    block that it was given, ``count``, ``last_ns`` (of the last one, since boot). ``types``:
    this kernel's migratetypes, as `block_names` gives them.
    """
    found = store.entries("extfrag", KEY.itemsize, VALUE.itemsize, _MOST)
    both = np.frombuffer(b"".join(found), np.dtype([("key", KEY), ("value", VALUE)]))
    keys, values = both["key"], both["value"]
    used = np.unique(keys["stack_id"])
    stacks = dict(zip(used.tolist(), decoding.stacks(store, symbols, used), strict=True))
    listed = [
        {"comm": to_text(bytes(key["comm"])), "pid": int(key["pid"]), "tgid": int(key["tgid"]),
         "stack": stacks.get(int(key["stack_id"])), "order": int(key["order"]),
         "migratetype": _named(types, int(key["migratetype"])),
         "fallback_order": int(key["fallback_order"]),
         "fallback_migratetype": _named(types, int(key["fallback_migratetype"])),
         "count": int(value["count"]), "last_ns": int(value["last_ts"])}
        for key, value in zip(keys, values, strict=True)]
    return sorted(listed, key=lambda event: -int(event["count"]))


def block_names(pagetypeinfo: str | None) -> tuple[str, ...]:
    """The migratetypes in the order of this kernel's enum migratetype, by the text of that file."""
    if pagetypeinfo:
        for counted in zones.parse_pagetypeinfo(pagetypeinfo).blocks.values():
            return tuple(counted)
    return _TYPES


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)
