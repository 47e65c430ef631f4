"""The page owner in plain Python: what the in-kernel half must do to its store, event by event.

Slow and plain on purpose. Owners are any value; the tests give (task, stack, gfp_mask). The store
maps a block's first pfn to the block; early pages are a set of pfns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Block:
    order: int
    owner: object
    filtered: bool = False
    reason: int = 0
    moves: int = 0

    @property
    def pages(self) -> int:
        return 1 << self.order


@dataclass
class PageOwner:
    """Allocation and free of blocks of 2**order pages, aligned to their size."""

    blocks: dict[int, Block] = field(default_factory=dict)
    early: set[int] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, n: int = 1) -> None:
        if n:
            self.counts[what] = self.counts.get(what, 0) + n

    def alloc(self, pfn: int, order: int, owner: object, filtered: bool = False) -> None:
        """The pages are the owner's. What was known of a block at pfn, or of pages inside, is
        over; a block around it is left for the reader to find stale."""
        if filtered:
            self.count("filtered")
        if self.blocks.pop(pfn, None):
            self.count("overwritten")
        self.early.discard(pfn)
        self.clear(range(pfn + 1, pfn + (1 << order)))
        self.blocks[pfn] = Block(order, None if filtered else owner, filtered)

    def clear(self, pfns: range) -> None:
        for pfn in pfns:
            if self.blocks.pop(pfn, None):
                self.count("merges")
            if pfn in self.early:
                self.early.discard(pfn)
                self.count("early_freed")

    def free(self, pfn: int, order: int) -> None:
        """The pages are free: a larger block around them keeps the rest, smaller ones go."""
        block = self.blocks.get(pfn)
        if block and block.order == order:
            del self.blocks[pfn]
            return
        if pfn not in self.early and not (block and block.order < order):
            around = self.around(pfn, order)
            if around is not None:
                self.carve(around, pfn, order, keep=False)
                return
            self.count("unknown_frees")
        self.clear(range(pfn, pfn + (1 << order)))

    def around(self, pfn: int, order: int) -> int | None:
        """The first page of a larger block that holds these pages: the one that begins nearest."""
        for size in range(21):
            head = pfn >> size << size
            block = self.blocks.get(head)
            if block and block.order > order and head + block.pages > pfn:
                return head
        return None

    def carve(self, head: int, pfn: int, order: int, keep: bool) -> None:
        """Halve the block until the pages stand alone; each half left over is a block. Where
        there is a block already it is younger, and this one was stale there."""
        block = self.blocks.pop(head)
        self.count("carves")
        at, size = head, block.order
        while size > order:
            size -= 1
            low, high = at, at + (1 << size)
            at, other = (high, low) if pfn >= high else (low, high)
            self.blocks.setdefault(other, replace(block, order=size))
        if keep:
            self.blocks.setdefault(at, replace(block, order=order))

    def isolate(self, pfn: int, order: int) -> None:
        """The pages become a block of their own, with the owner that they have."""
        around = self.around(pfn, order)
        if around is not None:
            self.carve(around, pfn, order, keep=True)

    def split(self, pfn: int, order: int, to: int) -> None:
        """Every block that begins within these pages becomes blocks of order ``to``."""
        self.count("splits")
        first = self.blocks.get(pfn)
        if not first or first.order > order:
            self.isolate(pfn, order)
        at = pfn
        while at < pfn + (1 << order):
            block = self.blocks.get(at)
            if block and block.order > to:
                del self.blocks[at]
                for piece in range(at, at + block.pages, 1 << to):
                    self.blocks.setdefault(piece, replace(block, order=to))
            at += block.pages if block else 1 << to

    def migrate(self, to: int, pfn: int, order: int, reason: int) -> None:
        """The pages at ``to`` take over the owner of those at pfn, which keep it until freed."""
        block = self.blocks.get(pfn)
        if pfn not in self.early and not (block and block.order == order):
            self.isolate(pfn, order)
            block = self.blocks.get(pfn)
        self.count("migrated")
        self.blocks.pop(to, None)
        pages = range(to, to + (1 << order))
        if block is None:
            if pfn in self.early:
                for page in pages:
                    if self.blocks.pop(page, None):
                        self.count("merges")
                self.early.update(pages)
            else:
                self.clear(pages)
            return
        self.early.discard(to)
        self.clear(range(to + 1, to + (1 << order)))
        self.blocks[to] = replace(block, reason=reason, moves=min(block.moves + 1, 15))

    def bulk(self, pfn: int, owner: object) -> None:
        """One page of a bulk allocation, unless something is known of it."""
        if pfn not in self.blocks and pfn not in self.early:
            self.count("bulk")
            self.alloc(pfn, 0, owner)

    def contig(self, start: int, end: int, owner: object, compound: bool = False) -> None:
        """A range: one block if it is compound, else single pages."""
        self.count("contig")
        step = end - start if compound else 1
        for pfn in range(start, end, step):
            self.alloc(pfn, step.bit_length() - 1, owner)

    def exact(self, pfn: int, pages: int) -> None:
        """A block of which so many pages are kept, more than half, becomes single pages."""
        block = self.blocks.get(pfn)
        if block is None or not block.order or block.pages >= 2 * pages:
            return
        self.count("splits")
        at = pfn
        while at < pfn + pages:
            step = 1
            block = self.blocks.get(at)
            if block and block.order:
                step = block.pages
                del self.blocks[at]
                for piece in range(at, at + step):
                    self.blocks.setdefault(piece, replace(block, order=0))
            at += step
