"""The one reader of what the programs write meanwhile: whole records, or said to be in motion.

records.h has the protocol. Every reading of a record, of the free side and of the task table goes
through here. Alone a single byte may be taken from the live arrays as it is (such as ``state``).
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.tracker.read.layout import FREED_WRITTEN
from pageowner.tracker.read.maps import RECORD
from pageowner.tracker.read.records import DIVIDED, EARLY, FILTERED, OWNED, TASK_SLOT, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Span

__all__ = ["in_order", "known_tasks", "pages_by_state", "pages_of", "same", "whole", "whole_at",
           "whole_freed", "whole_freed_at"]

_NAMES = {"owned": OWNED, "early": EARLY, "filtered": FILTERED, "in_motion": WRITTEN}

_CHUNK = 1 << 13
"""Records that are copied before they are read again: 192 KiB, which the cache still holds then."""

_TRIES, _AT_ONCE, _PAUSE = 40, 8, 50e-6
"""How often a record that does not stand still is looked at again, how often of that without a
pause, and its seconds. A writer is done in a microsecond, unless its CPU was taken away."""

_MEMBARRIER = {"aarch64": 283, "riscv64": 283, "loongarch64": 283, "ppc64le": 365}
_GLOBAL_EXPEDITED = 2
_IN_ORDER = frozenset({"x86_64"})


def _ordering() -> Any:
    """What keeps later reads from being made before earlier ones, where the machine may do that.

    membarrier(2) begins with a full barrier on the CPU that calls it (kernel/sched/membarrier.c,
    membarrier_global_expedited), and no other process has to be registered. Where it is refused,
    sched_yield(2) has one too (kernel/sched/core.c, __schedule: smp_mb__after_spinlock).
    """
    machine = platform.machine()
    if machine in _IN_ORDER:
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)
    number = _MEMBARRIER.get(machine)
    if number is not None and libc.syscall(number, _GLOBAL_EXPEDITED, 0) == 0:
        return lambda: libc.syscall(number, _GLOBAL_EXPEDITED, 0)
    return os.sched_yield


in_order = _ordering()
"""Keeps reads behind it from being made before those in front of it."""

_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def whole(live: NDArray[np.void], out: NDArray[np.void] | None = None) -> NDArray[np.void]:
    """A copy of records (`maps.RECORD`, contiguous), each as it was at one moment.

    What did not stand still has the state `maps.WRITTEN`, the order that its block has or gets, and
    nothing else. ``out``: where to, of the same length. Twice the time of a copy.
    """
    return _copy(live, np.empty_like(live) if out is None else out, _Records)


def whole_at(live: NDArray[np.void], places: NDArray[np.int64]) -> NDArray[np.void]:
    """The same of some places."""
    return _copy_at(live, places, _Records)


def whole_freed(live: NDArray[np.void]) -> NDArray[np.void]:
    """The same of the free side (`maps.FREED`); ``ts`` is `maps.FREED_WRITTEN` of what did not
    stand still."""
    return _copy(live, np.empty_like(live), _Freed)


def whole_freed_at(live: NDArray[np.void], places: NDArray[np.int64]) -> NDArray[np.void]:
    """The same of some places."""
    return _copy_at(live, places, _Freed)


def same(live: NDArray[np.void], place: int, record: np.void) -> bool:
    """Whether a record is still the one that was read before, and was not written meanwhile."""
    return bool(np.array_equal(live[place], record))


def pages_of(records: NDArray[np.void], state: int) -> int:
    """Base pages of the blocks of a copy whose records have this state."""
    order = records["order"][records["state"] == state]
    return int((np.int64(1) << order.astype(np.int64)).sum())


def pages_by_state(spans: Iterable[Span]) -> dict[str, int]:
    """Base pages that records speak for: ``owned``, ``early``, ``filtered``, and ``in_motion`` if
    records did not stand still."""
    pages = dict.fromkeys(_NAMES, 0)
    for span in spans:
        # Order and state lie in one word, which is written as one: no need for whole records.
        words = _words(span.records)[:, 2]
        kinds = np.bincount((words >> np.uint64(_KIND_SHIFT)).astype(np.uint16))
        if len(kinds) > DIVIDED << 8:
            records = whole(span.records)
            kinds = np.bincount(records["state"] * np.uint16(256) + records["order"])
        for name, state in _NAMES.items():
            for order, count in enumerate(kinds[state * 256:(state + 1) * 256].tolist()):
                pages[name] += count << order
    if not pages["in_motion"]:
        del pages["in_motion"]
    return pages


def known_tasks(table: NDArray[np.void],
                ids: NDArray[np.uint32]) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """The entry (`maps.TASK`) of each task id, and whether it is still that task's.

    ``id`` is 0 while an entry is written, and carries a generation: the same before and after, it
    vouches for what was read between.
    """
    slots = np.minimum(ids & np.uint32(TASK_SLOT), np.uint32(len(table) - 1)).astype(np.int64)
    before = table["id"][slots]
    in_order()
    entries = table[slots]
    in_order()
    known: NDArray[np.bool_] = (ids != 0) & (before == ids) & (table["id"][slots] == ids)
    return entries, known


# -- copies --------------------------------------------------------------------------------------


_STATE = RECORD.fields["state"][1] if RECORD.fields else 0
_KIND_SHIFT = 8 * (RECORD.fields["order"][1] - 16) if RECORD.fields else 0
"""Where order, and above it the state, begin in the third word of a record."""


class _Records:
    """How words of records show that a CPU is at work on them, and what is left of those that never
    stand still."""

    @staticmethod
    def held(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = words.view(np.uint8)[:, _STATE] >= DIVIDED
        return found

    @staticmethod
    def left(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        rest = np.zeros_like(words)
        rest[:, 2] = words[:, 2] & np.uint64(0xFF << 32) | np.uint64(WRITTEN << 40)
        return rest


class _Freed:
    """The same for the free side."""

    @staticmethod
    def held(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = words[:, 0] == np.uint64(FREED_WRITTEN)
        return found

    @staticmethod
    def left(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        rest = np.zeros_like(words)
        rest[:, 0] = FREED_WRITTEN
        return rest


_Kind = type[_Records] | type[_Freed]


def _words(array: NDArray[np.void]) -> NDArray[np.uint64]:
    """A row of words a record; each of them is read in one."""
    return array.view(np.uint64).reshape(len(array), array.dtype.itemsize // 8)


def _copy(live: NDArray[np.void], out: NDArray[np.void], kind: _Kind) -> NDArray[np.void]:
    for start in range(0, len(live), _CHUNK):
        now, copy = _words(live[start:start + _CHUNK]), _words(out[start:start + _CHUNK])
        np.copyto(copy, now)
        in_order()
        wrong = kind.held(copy)
        if _compare(copy.ctypes.data, now.ctypes.data, copy.nbytes):
            wrong |= (copy != now).any(axis=1)
        if wrong.any():
            places = np.flatnonzero(wrong)
            copy[places] = _look_again(now, places, kind)
    return out


def _copy_at(live: NDArray[np.void], places: NDArray[np.int64],
             kind: _Kind) -> NDArray[np.void]:
    now = _words(live)
    copy, good = _look(now, places, kind)
    if not good.all():
        copy[~good] = _look_again(now, places[~good], kind)
    found: NDArray[np.void] = copy.view(live.dtype).reshape(len(places))
    return found


def _look(now: NDArray[np.uint64], places: NDArray[np.int64],
          kind: _Kind) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    copy = now[places]
    in_order()
    return copy, (now[places] == copy).all(axis=1) & ~kind.held(copy)


def _look_again(now: NDArray[np.uint64], places: NDArray[np.int64],
                kind: _Kind) -> NDArray[np.uint64]:
    copy, good = _look(now, places, kind)
    for turn in range(_TRIES):
        left = np.flatnonzero(~good)
        if not len(left):
            return copy
        if turn >= _AT_ONCE:
            time.sleep(_PAUSE)
        copy[left], good[left] = _look(now, places[left], kind)
    copy[~good] = kind.left(copy[~good])
    return copy
