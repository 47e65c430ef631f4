"""Count the records of a dump by kind: all that most questions need, at a fraction of the work of
a table with a row for each. Neither NumPy nor Arrow is imported."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from itertools import islice, repeat
from operator import lt
from typing import TYPE_CHECKING

from pageowner.model.counts import Counted
from pageowner.sources.page_owner_kinds import columns, metadata
from pageowner.sources.page_owner_parser import NONE, Damage, Raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.sources.page_owner_kinds import Kind

__all__ = ["Folded", "Tally", "begin_again", "counted", "tally"]

_ORDERS = 20
_SAMPLE = 1000


@dataclass
class Tally:
    """A part of a dump: how many records of each kind (``blocks``), the times of the oldest and
    the newest (`NONE`: 0 and none is known), and what was wrong. ``listed`` and ``left_out`` as in
    `Raw`; ``pfns``: the lowest and the highest, ``again``: records of a page frame that another one
    is of, as far as they were looked at together; ``begins_again``: whether page frames of some lie
    among those of others that were not, so that these may be the same."""

    kinds: list[Kind]
    blocks: list[int]
    oldest: list[int]
    newest: list[int]
    pageblock_order: int | None
    damaged: int
    damage: list[Damage]
    unterminated: int
    decimal_pfn: bool
    free_ts: bool
    listed: dict[int, str]
    left_out: int
    pfns: tuple[int, int] | None
    again: int
    begins_again: bool = False


def _sample(raw: Raw) -> list[tuple[int, int]]:
    """The last records with a pfn, latest first: pfn and block."""
    sample: list[tuple[int, int]] = []
    if _has_no_blocks(raw):
        return sample
    at = len(raw.pfn)
    while at and len(sample) < _SAMPLE:
        at -= 1
        if raw.pfn[at] != NONE and raw.block[at] != NONE:
            sample.append((raw.pfn[at], raw.block[at]))
    return sample


def _has_no_blocks(raw: Raw) -> bool:
    """Whether many records came in columns, none of which says its block; false if that would take
    a while to tell."""
    if not raw.by_columns:
        return False
    from pageowner.sources.page_owner_sums import has_blocks

    return not has_blocks(raw)


def _pageblock_order(sample: list[tuple[int, int]]) -> int | None:
    """The order for which ``block == pfn >> order`` holds most, as in page_owner_columns.py."""
    if not sample:
        return None
    votes = [sum(pfn >> order == block for pfn, block in sample) for order in range(_ORDERS)]
    return votes.index(max(votes))


class Folded:
    """Sums up what a parser has read, again and again, so that memory holds no more than a part of
    a dump however long it is.

    Whether the pfn and the block of a line contradict each other is known only at the end, where
    the order of pageblocks is. So each part is summed up by the order that holds most so far, and
    the few records that may be judged differently by another are kept.
    """

    def __init__(self) -> None:
        self._parts: list[Tally] = []
        self._loose: list[tuple[Raw, int]] = []
        self._sample: list[tuple[int, int]] = []

    def take(self, raw: Raw) -> None:
        """Sum up the records in ``raw`` and take them out of it; what else it knows stays."""
        self._sample = (_sample(raw) + self._sample)[:_SAMPLE]
        order = _pageblock_order(self._sample)
        part = tally(raw, order)
        loose, others = Raw(raw.headers, raw.lines, raw.bodies, raw.kinds), 0
        if self._parts and self._parts[-1].pageblock_order == part.pageblock_order:
            _add(part, self._parts.pop())
            loose, others = self._loose.pop()
        self._parts.append(part)
        if order is not None:
            # A block of another number than 0 fits one order alone.
            chosen = [row for row, (pfn, block) in enumerate(zip(raw.pfn, raw.block, strict=True))
                      if not block or pfn >> order != block or pfn == NONE]
            others += len(raw.kind) - len(chosen)
            for name in ("kind", "pfn", "block", "ts"):
                getattr(loose, name).extend(map(getattr(raw, name).__getitem__, chosen))
            loose.free_ts.extend(map(raw.free_ts.__getitem__, chosen) if raw.free_ts else
                                 repeat(NONE, len(chosen)))
        self._loose.append((loose, others))
        for name in ("kind", "pfn", "block", "ts", "free_ts"):
            setattr(raw, name, array(getattr(raw, name).typecode))
        raw.damaged, raw.damage, raw.unterminated, raw.left_out = 0, [], 0, 0

    def parts(self) -> list[Tally]:
        """The sums, all by the order of pageblocks that the end of the dump has."""
        order = _pageblock_order(self._sample)
        for place, (part, (loose, others)) in enumerate(
                zip(self._parts, self._loose, strict=True)):
            if part.pageblock_order in (order, None):
                continue
            again = tally(loose, order)
            torn = len(loose.kind) - sum(part.blocks) + others
            self._parts[place] = again
            again.damaged += part.damaged - torn + others
            again.damage, again.unterminated = part.damage, part.unterminated
            again.decimal_pfn = part.decimal_pfn
            again.left_out, again.pfns, again.again = part.left_out, part.pfns, part.again
            again.begins_again = part.begins_again
        return self._parts


def _add(part: Tally, before: Tally) -> None:
    """To a part, the one before it; its kinds are among the part's, at the same places."""
    for place, (blocks, oldest, newest) in enumerate(
            zip(before.blocks, before.oldest, before.newest, strict=True)):
        part.blocks[place] += blocks
        part.oldest[place] = min(part.oldest[place], oldest)
        part.newest[place] = max(part.newest[place], newest)
    part.damaged += before.damaged
    part.damage = before.damage + part.damage
    part.unterminated += before.unterminated
    part.free_ts |= before.free_ts
    part.left_out += before.left_out
    part.again += before.again
    part.begins_again |= before.begins_again or _overlaps(before.pfns, part.pfns)
    part.pfns = _both(before.pfns, part.pfns)


def _overlaps(before: tuple[int, int] | None, behind: tuple[int, int] | None) -> bool:
    """Whether page frames begin again: a dump has them in their order."""
    return before is not None and behind is not None and behind[0] <= before[1]


def _both(before: tuple[int, int] | None,
          behind: tuple[int, int] | None) -> tuple[int, int] | None:
    if before is None or behind is None:
        return before or behind
    return min(before[0], behind[0]), max(before[1], behind[1])


def _pfns(raw: Raw) -> tuple[tuple[int, int] | None, int]:
    """The lowest and the highest page frame, and how many come again."""
    pfns = raw.pfn.tolist()
    if not pfns or (pfns[0] == NONE and pfns.count(NONE) == len(pfns)):
        return None, 0
    ordered = sorted(pfns)
    if ordered[-1] == NONE:
        del ordered[ordered.index(NONE):]
    again = 0 if all(map(lt, ordered, islice(ordered, 1, None))) else (
        len(ordered) - len(set(ordered)))
    return (ordered[0], ordered[-1]), again


def tally(raw: Raw, order: int | None = None) -> Tally:
    """Sum up one part; by the ``order`` of its own pageblocks, unless it is given."""
    kinds = [(raw.headers[header], raw.lines[line], raw.bodies[body])
             for header, line, body in raw.kinds]
    if order is None and _has_no_blocks(raw):
        from pageowner.sources.page_owner_sums import pfns, times

        records, first, last, free_ts = times(raw)
        return Tally(kinds, records, first, last, None, raw.damaged, raw.damage, raw.unterminated,
                     raw.decimal_pfn, free_ts, raw.listed, raw.left_out, *pfns(raw))
    kind, ts = raw.kind, raw.ts
    free_ts = any(ns != NONE for ns in raw.free_ts)
    if order is None:
        order = _pageblock_order(_sample(raw))
    damaged = raw.damaged
    if order is not None and (torn := {
            row for row, (pfn, block) in enumerate(zip(raw.pfn, raw.block, strict=True))
            if pfn >> order != block and NONE not in (pfn, block)}):
        # The pfn and the block of one line contradict each other: one of them is damaged.
        damaged += len(torn)
        kept = [row for row in range(len(kind)) if row not in torn]
        kind, ts = type(kind)("I", (kind[row] for row in kept)), type(ts)("Q", (
            ts[row] for row in kept))
        free_ts = any(raw.free_ts[row] != NONE for row in kept) if raw.free_ts else False
    blocks = Counter(kind)
    oldest, newest = [NONE] * len(raw.kinds), [0] * len(raw.kinds)
    for place, ns in zip(kind, ts, strict=True):
        if ns < oldest[place]:  # noqa: PLR1730 - min() takes twice as long
            oldest[place] = ns
        if ns > newest[place] and ns != NONE:
            newest[place] = ns
    return Tally(
        kinds, [blocks[place] for place in range(len(raw.kinds))], oldest, newest, order, damaged,
        raw.damage, raw.unterminated, raw.decimal_pfn, free_ts, raw.listed,
        raw.left_out, *_pfns(raw))


def counted(parts: Sequence[Tally], name: str) -> Counted | None:
    """The parts together; None if they contradict each other in the size of a pageblock, so that
    what one of them took for damaged may be good."""
    orders = {part.pageblock_order for part in parts} - {None}
    if len(orders) > 1:
        return None
    sums: dict[Kind, list[int]] = {}
    for part in parts:
        for kind, blocks, oldest, newest in zip(
                part.kinds, part.blocks, part.oldest, part.newest, strict=True):
            if not blocks:
                continue
            total = sums.setdefault(kind, [0, NONE, 0])
            total[0] += blocks
            total[1] = min(total[1], oldest)
            total[2] = max(total[2], newest)
    kinds = list(sums)
    times = [(oldest, newest) if oldest != NONE else (None, None)
             for _, oldest, newest in sums.values()]
    known = [newest for _, newest in times if newest is not None]
    return Counted(
        columns=columns(kinds), blocks=[blocks for blocks, _, _ in sums.values()],
        oldest_ns=[oldest for oldest, _ in times], newest_ns=[newest for _, newest in times],
        meta=metadata(
            name, kinds, pageblock_order=orders.pop() if orders else None,
            damaged=sum(part.damaged for part in parts),
            unknown_lines=sum(body.unknown * blocks
                              for (_, _, body), (blocks, _, _) in sums.items()),
            unterminated=sum(part.unterminated for part in parts),
            clock_ns=max(known, default=None),
            decimal_pfn=any(part.decimal_pfn for part in parts),
            free_ts=any(part.free_ts for part in parts),
            pfn_lines=any(number for _, (_, number, _, _), _ in kinds),
            damage=[place for part in parts for place in part.damage],
            left_out=sum(part.left_out for part in parts),
            again=None if begin_again(parts) else sum(part.again for part in parts)))


def begin_again(parts: Sequence[Tally]) -> bool:
    """Whether some of the page frames may be there again: see `Tally`."""
    behind = None
    for part in parts:
        if part.begins_again or _overlaps(behind, part.pfns):
            return True
        behind = _both(behind, part.pfns)
    return False
