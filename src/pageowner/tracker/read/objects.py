"""The objects that are followed, as the tracker's maps have them now (``on --objects``).

records.h has the protocol: an object is whole if it and its word are the same when they are read
once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.tracker.read import layout
from pageowner.tracker.read.maps import map_array
from pageowner.tracker.read.reading import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Store

__all__ = ["CACHE", "OBJECT", "PERCPU", "Objects", "caches", "check_objects", "objects"]

OBJECT, CACHE = (np.dtype(list(struct)) for struct in (layout.OBJECT, layout.OBJECT_CACHE))

PERCPU = layout.OBJECT_PERCPU
"""``cache`` of percpu memory."""

_WRITTEN = np.uint64(layout.OBJECT_WRITTEN)
_TRIES = 8
_CHUNK = 1 << 16
"""Slots that are read at once, and once more: 2.5 MiB."""


@dataclass(frozen=True)
class Objects:
    """``rows`` (`OBJECT`) with the ``address`` of each; ``in_motion``: how many more there were
    that did not stand still. ``share``: one object in so many is followed; ``slots``: for how many
    there is room."""

    address: NDArray[np.uint64]
    rows: NDArray[np.void]
    in_motion: int
    share: int
    slots: int


def check_objects(store: Store) -> int:
    """One object in how many is followed. Raises PageownerError if none are."""
    share = int(store.facts["options"].get("objects") or 0)
    if not share:
        raise PageownerError("objects are not tracked; restart tracking with them: sudo pageowner"
                             " off, then: sudo pageowner on --objects")
    return share


def objects(store: Store) -> Objects:
    """All live objects that are followed. Raises PageownerError if none are to be."""
    share = check_objects(store)
    entries = store.bpf.map_info(store.fd("objects")).max_entries
    words = map_array(store.fd("object_words"), np.dtype("u8"), entries)
    table = map_array(store.fd("objects"), OBJECT, entries)
    addresses, rows, moving = [], [], 0
    for start in range(0, entries, _CHUNK):
        places = start + np.flatnonzero(words[start : start + _CHUNK].copy())
        for _ in range(_TRIES):
            if not len(places):
                break
            word, row = words[places], table[places]
            in_order()
            again, row_again = words[places], table[places]
            whole = (word & _WRITTEN == 0) & (word == again) & (row == row_again)
            live = whole & (word != 0)
            addresses.append(word[live])
            rows.append(row[live])
            places = places[~whole]
        moving += len(places)
    address = np.concatenate([*addresses, np.zeros(0, np.uint64)])
    found = np.concatenate([*rows, np.zeros(0, OBJECT)])
    # One that was freed and allocated again meanwhile may have been met in both its places.
    order = np.lexsort((found["ts"], address))
    last = np.append(address[order][1:] != address[order][:-1], True)[: len(order)]
    newest = np.sort(order[last])
    return Objects(address[newest], found[newest], moving, share, entries)


def caches(store: Store) -> NDArray[np.void]:
    """The slab caches (`CACHE`) by slot; those that are empty or being written have an address of
    0 or an odd one."""
    fd = store.fd("object_caches")
    return map_array(fd, CACHE, store.bpf.map_info(fd).max_entries).copy()
