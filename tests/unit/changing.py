"""A made-up machine that changes a little from capture to capture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pageowner.model.snapshot import SCHEMA, Metadata, Snapshot

BEGAN = 1_790_000_000.0


PAGES = 20_000


class Machine:
    """Rows of a machine that changes a little from capture to capture."""

    def __init__(self, seed: int = 3) -> None:
        self.random = np.random.default_rng(seed)
        self.pfn = np.sort(self.random.choice(4 * PAGES, PAGES, replace=False)).astype(np.uint64)
        self.ts = self.random.integers(0, 10**12, PAGES).astype(np.uint64)
        self.stack = self.random.integers(0, 300, PAGES)
        self.flags = self.random.integers(0, 9, PAGES).astype(np.uint64)
        self.clock = 10**12
        self.boot = "one"
        self.since = 1

    def step(self, part: float) -> None:
        """A part of the pages is freed, others are taken, of more the flags change."""
        self.clock += 10**10
        stay = self.random.random(len(self.pfn)) > part
        number = int(PAGES * part)
        fresh = self.random.choice(4 * PAGES, number, replace=False).astype(np.uint64)
        fresh = fresh[~np.isin(fresh, self.pfn[stay])]
        pfn = np.concatenate([self.pfn[stay], fresh])
        order = np.argsort(pfn)
        self.pfn = pfn[order]
        self.ts = np.concatenate([self.ts[stay], self.clock - np.sort(self.random.integers(
            0, 10**9, len(fresh))).astype(np.uint64)])[order]
        self.stack = np.concatenate([self.stack[stay], self.random.integers(
            0, 320, len(fresh))])[order]
        self.flags = np.concatenate([self.flags[stay], np.zeros(len(fresh), np.uint64)])[order]
        other = self.random.random(len(self.pfn)) < part
        self.flags[other] ^= np.uint64(1 << 20)  # unevictable

    def now(self) -> Snapshot:
        early = self.stack % 7 == 0
        texts = [f"alloc_{number}+0x1/0x9\ncaller_{number % 9}+0x2/0x8" for number in range(320)]
        # The order of a dictionary's texts is nobody's promise.
        turn = self.random.permutation(320)
        place = np.argsort(turn)
        stack = pa.DictionaryArray.from_arrays(
            pa.array(place[self.stack].astype(np.int32), mask=early),
            pa.array([texts[number] for number in turn]))
        return Snapshot.from_columns({
            "pfn": self.pfn, "order": (self.stack % 3).astype(np.uint8),
            "ts_ns": pa.array(self.ts // np.uint64(1000) * np.uint64(1000), mask=early),
            "stack": stack,
            "state": ["early" if one else "owned" for one in early],
            "comm": [f"task{number % 5}" for number in self.stack],
            "page_flags": self.flags.copy()}, Metadata(kind="tracker", boot_id=self.boot,
                                                clock_ns=self.clock, counters={"at": self.clock},
                                                extra={"since_ns": self.since}))


def same(one: Snapshot, other: Snapshot) -> None:
    assert one.meta == other.meta
    for name in SCHEMA.names:
        assert _plain(one.table[name]).equals(_plain(other.table[name])), name


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in place of a dictionary's numbers, whose order is nobody's promise."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column
