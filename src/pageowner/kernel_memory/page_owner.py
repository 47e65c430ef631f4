"""The records of the kernel's own page owner, as its page_ext has them.

mm/page_owner.c of 4.18 to 7.3 (struct page_owner, read_page_owner): of every frame there is an
entry, whose flags say whether it was ever allocated (PAGE_EXT_OWNER) and whether it still is
(PAGE_EXT_OWNER_ALLOCATED since 5.4, before that the first flag was cleared). The kernel's reader
leaves out free blocks (PageBuddy), frames that are no multiple of their block's size, which are
tails, and records without a stack. So does this.

The kernel changes a record without a lock, and not at once. So each is read twice, with the struct
page between the two; one that is not the same both times is read again, and left out if it does not
come to rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.limits import HIGHEST_ORDER
from pageowner.kernel_memory.access import member, offset, symbol, word
from pageowner.kernel_memory.page_structs import PageStructs
from pageowner.kernel_memory.runs import copy_run
from pageowner.kernel_memory.sections import page_ext_size, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory
    from pageowner.kernel_memory.sections import Pieces

__all__ = ["Records", "is_on", "records"]

_AT_ONCE = 1 << 14
"""Frames. No free block lies in two such pieces: pageblocks have 8,192 at most (arm64 with pages of
64 KiB)."""
_TRIES = 4
_ABSENT = 256
"""Pieces of which nothing is there, after which nothing is looked for."""

_FIELDS = (("order", "order", "<u2"), ("reason", "last_migrate_reason", "<i2"),
           ("gfp_mask", "gfp_mask", "<u4"), ("handle", "handle", "<u4"))
_LATER = (("ts", "ts_nsec", "<u8"), ("free_ts", "free_ts_nsec", "<u8"), ("comm", "comm", "V16"),
          ("pid", "pid", "<i4"), ("tgid", "tgid", "<i4"))
"""Since 5.11 (ts_nsec, pid), 5.13 (free_ts_nsec) and 5.18 (comm, tgid)."""


@dataclass
class Records:
    """Blocks that are allocated, in order of their frames ``pfn``.

    - ``owner``: their struct page_owner, as a structured array with the fields of this kernel out
      of order, reason, gfp_mask, handle, ts, free_ts, comm (16 bytes), pid, tgid
    - ``flags``, ``charge``: of the struct page, flags and memcg_data
    - ``counters``: ``changed`` records were read again, ``unsettled`` ones left out, ``damaged``
      ones have an order that no block has, ``unreadable`` frames are not in memory, and
      ``without_page_ext`` are pieces of memory of which nothing is kept
    """

    pfn: NDArray[np.uint64]
    owner: NDArray[Any]
    flags: NDArray[np.uint64]
    charge: NDArray[np.uint64]
    pieces: Pieces
    counters: dict[str, int] = field(default_factory=dict)


def is_on(memory: Memory) -> bool:
    """Whether this kernel keeps page owner (page_owner_inited, a struct static_key_false whose
    first word counts who enabled it). Raises PageownerError if that cannot be read."""
    address = memory.symbol("page_owner_inited")
    return address is not None and word(memory, address, "<u4") != 0


def records(memory: Memory) -> Records:
    """All records. Raises PageownerError where the kernel does not keep page owner, or its
    structures are not as said above."""
    if not is_on(memory):
        raise PageownerError("this kernel keeps no page owner: it was booted without page_owner=on")
    return _Reader(memory).read()


class _Reader:
    def __init__(self, memory: Memory) -> None:
        types = memory.types
        self.memory = memory
        self.size = page_ext_size(memory)
        self.pages = PageStructs(memory)
        ops = symbol(memory, "page_owner_ops")
        self.at = word(memory, ops + offset(types, "page_ext_operations", "offset"))
        length = types.size("page_owner")
        if length is None:
            raise PageownerError("the kernel's types (BTF) do not have struct page_owner")
        if self.at + length > self.size:
            raise PageownerError(f"page owner has {length} bytes at {self.at} of a page_ext entry"
                                 f" of {self.size}, which do not fit")
        self.length = length
        names, kinds, offsets = ["flags"], ["<u8"], [offset(types, "page_ext", "flags")]
        for name, path, kind in (*_FIELDS, *_LATER):
            if (name, path, kind) in _LATER and types.member("page_owner", path) is None:
                continue
            place = member(types, "page_owner", path)
            if place.size != np.dtype(kind).itemsize:
                raise PageownerError(f"the kernel's page_owner.{path} has {place.size} bytes")
            names.append(name)
            kinds.append(kind)
            offsets.append(self.at + place.offset)
        self.kind = np.dtype({"names": names, "formats": kinds, "offsets": offsets,
                              "itemsize": self.size})
        ever = types.enumerator("page_ext_flags", "PAGE_EXT_OWNER")
        now = next((bit for name in ("PAGE_EXT_OWNER_ALLOCATED", "PAGE_EXT_OWNER_ACTIVE")
                    if (bit := types.enumerator("page_ext_flags", name)) is not None), None)
        if ever is None:
            raise PageownerError("the kernel's types (BTF) do not have PAGE_EXT_OWNER")
        self.first, self.second = (np.empty((_AT_ONCE, self.size), np.uint8) for _ in range(2))
        self.owned = np.uint64(1 << ever | (0 if now is None else 1 << now))
        self.absent = 0
        self.counters = {"changed": 0, "unsettled": 0, "damaged": 0, "unreadable": 0}

    def read(self) -> Records:
        found = pieces(self.memory)
        parts = [part for place in range(len(found.first)) for part in self._piece(found, place)]
        none = (np.zeros(0, np.uint64), np.zeros(0, self.kind), np.zeros(0, np.uint64),
                np.zeros(0, np.uint64))
        pfn, owner, flags, charge = (np.concatenate(column)
                                     for column in zip(none, *parts, strict=True))
        return Records(pfn, owner, flags, charge, found,
                       self.counters | {"without_page_ext": found.without})

    def _piece(self, found: Pieces, place: int) -> Iterator[tuple[NDArray[Any], ...]]:
        first, end = int(found.first[place]), int(found.end[place])
        ext, pages = found.page_ext[place], found.pages[place]
        for start in range(first // _AT_ONCE * _AT_ONCE, end, _AT_ONCE):
            low, high = max(start, first), min(start + _AT_ONCE, end)
            before, good = self._entries(ext, low, high, self.first)
            self.counters["unreadable"] += int((~good).sum())
            self.absent += not good.any()
            if self.absent > _ABSENT:
                raise PageownerError("the entries of page_ext are not in memory")
            kept = good & (before["flags"] & self.owned == self.owned)
            if not kept.any():
                continue
            structs = self.pages.read(pages, low, high)
            kept &= ~structs.free
            rows = np.flatnonzero(kept)
            rows = rows[self._wanted(before[rows], rows.astype(np.uint64) + np.uint64(low))]
            pfn = rows.astype(np.uint64) + np.uint64(low)
            raw = before.view(np.uint8).reshape(-1, self.size)[rows]
            flags, charge = structs.flags[rows], structs.charge[rows]
            if self.memory.live and len(rows):
                after, _ = self._entries(ext, low, high, self.second)
                moved = ~self._same(raw, after.view(np.uint8).reshape(-1, self.size)[rows])
                if moved.any():
                    pfn, raw, flags, charge = self._settle(
                        (pfn, raw, flags, charge), moved, ext, pages)
            yield pfn, raw.view(self.kind).ravel(), flags, charge

    def _settle(self, columns: tuple[NDArray[Any], ...], moved: NDArray[np.bool_],
                ext: np.uint64, pages: np.uint64) -> tuple[NDArray[Any], ...]:
        """The same rows, those that moved read again until they are at rest."""
        pfn, owners, flags, charge = columns
        self.counters["changed"] += int(moved.sum())
        left = np.flatnonzero(moved)
        kept = ~moved
        for _ in range(_TRIES):
            entries = ext + pfn[left] * np.uint64(self.size)
            raw, good = self.memory.copy(entries, self.size)
            structs = self.pages.read_some(pages, pfn[left])
            after, still = self.memory.copy(entries, self.size)
            rest = good & still & self._same(raw, after)
            mine = left[rest]
            owners[mine], flags[mine], charge[mine] = (
                raw[rest], structs.flags[rest], structs.charge[rest])
            now = raw[rest].view(self.kind).ravel()
            kept[mine] = ((now["flags"] & self.owned == self.owned)
                          & ~structs.free[rest] & self._wanted(now, pfn[mine]))
            left = left[~rest]
            if not len(left):
                break
        self.counters["unsettled"] += len(left)
        return pfn[kept], owners[kept], flags[kept], charge[kept]

    def _wanted(self, owner: NDArray[Any], pfn: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which have a stack and are the first of their block; those of an order that no block has
        are counted."""
        order = owner["order"]
        possible: NDArray[np.bool_] = order <= HIGHEST_ORDER
        self.counters["damaged"] += int((~possible).sum())
        tail = pfn & ((np.uint64(1) << np.minimum(order, HIGHEST_ORDER).astype(np.uint64))
                      - np.uint64(1)) != 0
        wanted: NDArray[np.bool_] = possible & ~tail & (owner["handle"] != 0)
        return wanted

    def _same(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether entries, as bytes, have the same record; what other users of page_ext keep is
        not looked at."""
        width = 8 if (self.at | self.length | self.size) % 8 == 0 else 4
        kept = slice(self.at // width, (self.at + self.length) // width)
        words = [entries.view(f"<u{width}")[:, kept] for entries in (before, after)]
        same: NDArray[np.bool_] = ~(words[0] != words[1]).any(axis=1)
        flags = [entries.view(self.kind).ravel()["flags"] for entries in (before, after)]
        same &= (flags[0] ^ flags[1]) & self.owned == 0
        return same

    def _entries(self, ext: np.uint64, low: int, high: int, out: NDArray[np.uint8]) -> tuple[
            NDArray[Any], NDArray[np.bool_]]:
        """The entries of these frames, in ``out``, and which are there."""
        raw, good = copy_run(self.memory, int(ext) + low * self.size, high - low, self.size, out)
        return raw.view(self.kind).ravel(), good
