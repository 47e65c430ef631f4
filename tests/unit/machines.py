"""Machines made up at random, small enough to look at frame by frame."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from pageowner.model.pfn_runs import joined, pack
from pageowner.model.snapshot import Metadata, Snapshot

FLAGS = {"cache": "0x28(uptodate|lru|node=0|zone=0)",
         "anonymous": "0x20028(uptodate|lru|swapbacked|node=0|zone=0)",
         "slab": "0x200(slab|node=0|zone=0)", "batch": "0x0(node=0|zone=0)",
         "buffer": "0x0(node=0|zone=0)"}
TYPES = {"cache": "Movable", "anonymous": "Movable", "slab": "Reclaimable", "batch": "Movable",
         "buffer": "Unmovable"}
STUCK = ("slab", "buffer")


@dataclass
class Page:
    """One allocation."""

    pfn: int
    order: int
    what: str
    comm: str


@dataclass
class Machine:
    """Memory of ``frames`` frames in zones (name, start, end); ``held`` frames are nobody's, each
    pageblock has a type."""

    frames: int
    pageblock_order: int
    zones: list[tuple[str, int, int]]
    pages: list[Page] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    types: dict[int, str] = field(default_factory=dict)

    def owner_at(self) -> list[Page | None]:
        found: list[Page | None] = [None] * self.frames
        for page in self.pages:
            for pfn in range(page.pfn, page.pfn + (1 << page.order)):
                assert found[pfn] is None
                assert pfn not in self.held
                found[pfn] = page
        return found

    def snapshot(self, kind: str = "tracker") -> Snapshot:
        """As a live capture tells it, which knows what is free, or a dump, which knows types."""
        pages = self.pages
        meta = Metadata(kind=kind, source="made up", pageblock_order=self.pageblock_order)
        if kind == "tracker":
            meta.zones = [{"node": 0, "name": name, "start_pfn": start, "spanned": end - start,
                           "present": end - start, "managed": end - start}
                          for name, start, end in self.zones]
            runs = joined((pfn, pfn + 1) for pfn in sorted(self.held))
            meta.extra = {"memory": {"held": pack(runs), "free": []}}
        zone = [next(name for name, start, end in self.zones if start <= page.pfn < end)
                for page in pages]
        return Snapshot.from_columns({
            "pfn": np.array([page.pfn for page in pages], np.uint64),
            "order": np.array([page.order for page in pages], np.uint8),
            "migratetype": [TYPES[page.what] for page in pages],
            "comm": [page.comm for page in pages],
            "tgid": [len(page.comm) for page in pages],
            "flags": [FLAGS[page.what] for page in pages],
            "state": ["owned"] * len(pages),
            "block_migratetype": [self.types.get(page.pfn >> self.pageblock_order)
                                  if kind != "tracker" else None for page in pages],
            "zone": zone, "node": [0] * len(pages),
        }, meta)


def machine(seed: int, frames: int = 1 << 10, pageblock_order: int = 4,
            kinds: tuple[str, ...] = tuple(FLAGS), largest: int | None = None) -> Machine:
    """A machine of two zones, with a hole, reserved frames and allocations of all orders."""
    rng = random.Random(seed)
    middle = frames // 4
    made = Machine(frames, pageblock_order, [("DMA", 1, middle), ("Normal", middle, frames - 5)])
    made.held = {0, *range(frames // 2, frames // 2 + 70), *range(frames - 5, frames)}
    made.held |= {rng.randrange(frames) for _ in range(3)}
    types = ("Unmovable", "Movable", "Movable", "Reclaimable", "CMA", "HighAtomic")
    made.types = {block: rng.choice(types) for block in range(frames >> pageblock_order)}
    pfn = 1
    largest = pageblock_order + 1 if largest is None else largest
    while pfn < frames - 5:
        order = min(rng.choice([0] * 6 + [1, 2, 3, largest]), (pfn & -pfn).bit_length() - 1)
        room = range(pfn, pfn + (1 << order))
        crosses = room.stop > frames - 5 or (pfn < middle < room.stop)
        if rng.random() < 0.55 or crosses or made.held & set(room):
            pfn += 1
            continue
        made.pages.append(Page(pfn, order, rng.choice(kinds), rng.choice("abcdefgh") * 3))
        pfn = room.stop
    return made
