"""Send captures of this machine, or of files, to a fleet's store: ``pageowner fleet push``."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError, UsageError
from pageowner.fleet.capture import Machine, capture_of, taken_by
from pageowner.fleet.pushing import CLOCK_S, Pushed
from pageowner.fleet.pushing import push as send
from pageowner.fleet.spool import Spool
from pageowner.fleet.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.model.snapshot import Snapshot

__all__ = ["labels_of", "pushes"]

_MACHINE_ID = Path("/etc/machine-id")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_LONGEST = 256
_RESERVED = frozenset({"host", "machine", "boot", "kernel"})


def labels_of(words: tuple[str, ...]) -> dict[str, str]:
    """``("rack=7", …)`` as a mapping. Raises UsageError for other words."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _LABEL.fullmatch(key) or len(value) > _LONGEST:
            raise UsageError(f"{word!r} is not a label; write KEY=VALUE, the key in letters,"
                             " digits, '_', '-' and '.', such as rack=7")
        if key in _RESERVED:
            raise UsageError(f"a label cannot be named {key!r}: every capture has that of its own")
        found[key] = value
    return found


def pushes(place: str, name: str | None, given: Machine, least: int, whole: bool,
           all_captures: bool, step: float | None, count: int | None, spool: Spool,
           read: Callable[[str | None], Snapshot]) -> Iterator[Pushed | PageownerError]:
    """Send captures of the source ``name`` to the store ``place``, one each ``step`` seconds or
    only one: see `pageowner.Fleet.push`. ``given``: what the source does not contain."""
    store = Store(place)
    if all_captures:
        from pageowner.storage import series

        captures = series.captures(Path(str(name)))
        each = series.each([capture.path for capture in captures])
        for capture, snapshot in zip(captures, each, strict=True):
            # what it says itself comes first, as where it is pushed alone: else it has two numbers
            when = given.taken
            if when is None and taken_by(snapshot.meta) is None:
                when = capture.taken
            yield _push(snapshot, store, spool, replace(given, taken=when), least, whole, False)
        return
    number, due = 0, time.monotonic()
    while True:
        try:
            yield _push(read(name), store, spool, given, least, whole, name is None)
        except (PageownerError, OSError, MemoryError) as error:
            if number == 0:
                raise
            yield error if isinstance(error, PageownerError) else PageownerError(
                str(error) or "out of memory")
        number += 1
        if step is None or (count is not None and number >= count):
            return
        due = max(due + step, time.monotonic() - step)
        time.sleep(max(due - time.monotonic(), 0))


def _push(snapshot: Snapshot, store: Store, spool: Spool, given: Machine, least: int,
          whole: bool, just_taken: bool) -> Pushed:
    ahead = None
    of_this_machine = (snapshot.meta.kind == "tracker" and given.host is None
                       and snapshot.meta.host == socket.gethostname())
    # Only of what is taken now is the clock known; and what is in a file may be sent again when it
    # is another: then the capture would lie in two hours.
    if of_this_machine and just_taken:
        with spool.locked():
            ahead = spool.remembered().clock_ahead_s
    machine = replace(given, machine=_machine() if of_this_machine else None, clock_ahead_s=ahead)
    capture = capture_of(snapshot, machine, least)
    if ahead is not None and abs(ahead) > CLOCK_S:
        capture = capture.moved(-ahead)
    return send(capture, store, spool, _saved(snapshot) if whole else None)


def _saved(snapshot: Snapshot) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "snapshot.parquet")
        snapshot.save(path)
        return path.read_bytes()


def _machine() -> str | None:
    """A hash of this machine's id, which itself is nobody else's to know (machine-id(5))."""
    try:
        number = _MACHINE_ID.read_bytes().strip()
    except OSError:
        return None
    return blake2b(number, key=b"pageowner.fleet", digest_size=8).hexdigest() if number else None
