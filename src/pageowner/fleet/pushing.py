"""Send captures to a store: stacks first, then owners, so that none is without its stacks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pageowner.fleet import layout
from pageowner.fleet.arrow import as_parquet
from pageowner.fleet.store import StoreAway

if TYPE_CHECKING:
    from pageowner.fleet.capture import Capture
    from pageowner.fleet.spool import Memory, Spool
    from pageowner.fleet.store import Store

__all__ = ["CLOCK_S", "Pushed", "push"]

CLOCK_S = 60.0
"""A clock that is further from the store's is said, and what is captured now is filed by the
store's."""

_COMPARED_S = 86400.0


class Pushed(NamedTuple):
    """The result of one capture: ``path`` of its rows and their ``size`` in bytes; ``sent``: how
    many objects were sent, including those that had waited; ``waiting``: how many objects wait, and
    ``away``, the reason (empty if all were sent); ``dropped``: captures that did not fit into the
    spool; ``clock_ahead_s``: how far this machine's clock is ahead of the store's."""

    path: str
    size: int
    sent: int
    waiting: int = 0
    away: str = ""
    dropped: int = 0
    clock_ahead_s: float | None = None


def push(capture: Capture, store: Store, spool: Spool, snapshot: bytes | None = None) -> Pushed:
    """Send one capture, and before it what waits; what cannot be sent waits in the spool.

    ``snapshot``: the whole of it as a file, to be kept too. Raises PageownerError if it can be
    neither sent nor kept.
    """
    with spool.locked():
        memory = spool.remembered()
        objects = _objects(capture, memory, snapshot)
        path = layout.incoming(capture.number, capture.taken)
        size = next(len(content) for name, content in objects if name == path)
        sent, away, filed = 0, "", 0.0
        try:
            for name in spool.waiting():
                store.put(spool.path(name), spool.content(name))
                spool.sent(name)
                sent += 1
            while objects:
                store.put(*objects[0])
                if objects.pop(0)[0] == path:
                    filed = time.time()  # a snapshot after it may take long
                sent += 1
            memory.stacks.update(capture.stacks["stack_id"].to_pylist())
            _compare_clocks(memory, store, path, filed)
            spool.remember(memory)
        except StoreAway as error:
            away = str(error)
        dropped = sum(spool.add(name, content) for name, content in objects)
        return Pushed(path, size, sent, len(spool.waiting()), away, dropped, memory.clock_ahead_s)


def _objects(capture: Capture, memory: Memory, snapshot: bytes | None,
             ) -> list[tuple[str, bytes]]:
    new = capture.stacks.filter(pc.invert(pc.is_in(
        capture.stacks["stack_id"], pa.array(sorted(memory.stacks), pa.int64()))))
    objects = []
    if new.num_rows:
        objects.append((layout.incoming_stacks(capture.number), as_parquet(new)))
    objects.append((layout.incoming(capture.number, capture.taken), as_parquet(capture.owners)))
    if snapshot is not None:
        objects.append((layout.snapshot(capture.number, capture.taken), snapshot))
    return objects


def _compare_clocks(memory: Memory, store: Store, path: str, now: float) -> None:
    """How far this machine's clock is ahead of the store's, once a day, and while it is far off
    each time, since it may be set right: by an object that was written ``now``. Where that cannot
    be read, what is known stays: all is sent by then, and who may send may not be allowed to
    read."""
    known = memory.clock_ahead_s
    if 0 <= now - memory.compared < _COMPARED_S and (known is None or abs(known) <= CLOCK_S):
        return
    try:
        written = store.changed(path)
    except StoreAway:
        return  # it is tried again with the next one
    if written:
        memory.clock_ahead_s, memory.compared = now - written, now
