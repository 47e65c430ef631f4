"""Turn groups of allocations with counts into a snapshot: a row a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.kernel.early_pages import is_early
from pageowner.model.metadata import Metadata
from pageowner.model.schema import LINES
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import KINDS
from pageowner.sources import page_size
from pageowner.sources.page_owner_columns import column_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pageowner.sources.group_columns import Groups, Line
    from pageowner.sources.page_owner_body import Body
    from pageowner.sources.page_owner_parser import Damage

__all__ = ["metadata", "to_snapshot"]

# include/linux/gfp_types.h: these bits tell the migratetype. Which is Reclaimable changed in 4.4,
# so that a mask without names, which are printed since 4.6, tells only that it is none of both.
_MOVABLE, _RECLAIMABLE, _EITHER = 0x08, 0x10, 0x80010


def _migratetype(line: Line) -> str | None:
    if line.gfp_mask is None:
        return None
    if line.gfp_mask & _MOVABLE:
        return "Movable"
    if line.gfp_flags is None and line.gfp_mask & _EITHER:
        return None
    return "Reclaimable" if line.gfp_mask & _RECLAIMABLE else "Unmovable"


def _migratetypes(lines: Sequence[Line]) -> list[str | None]:
    known: dict[tuple[int | None, bool], str | None] = {}
    masks = [(line.gfp_mask, line.gfp_flags is None) for line in lines]
    for mask, line in zip(masks, lines, strict=True):
        if mask not in known:
            known[mask] = _migratetype(line)
    return [known[mask] for mask in masks]


def _state(body: Body, mask: int) -> str:
    # One of these is in the names of all functions that tell; frames are looked at only then.
    stack = body.stack or ""
    told = "init" in stack or "early" in stack or "start_kernel" in stack
    return "early" if told and is_early(stack, mask) else "owned"


def _states(groups: Groups, line: np.ndarray, body: np.ndarray) -> pa.Array:
    """Whether a page is early is told by its stack, and whether there is a mask."""
    masked = np.array([each.gfp_mask != 0 for each in groups.lines], np.int64)
    codes = 2 * body + masked[line]
    pairs = np.flatnonzero(np.bincount(codes, minlength=2 * len(groups.bodies)))
    place = np.zeros(2 * len(groups.bodies), np.int64)
    place[pairs] = np.arange(len(pairs))
    place = place[codes]
    return text_of([_state(groups.bodies[pair // 2], -(pair % 2)) for pair in pairs.tolist()],
                   place)


def metadata(source: str, kind: str, damaged: int, unknown_lines: int,
             damage: Iterable[Damage]) -> Metadata:
    """What is known about a text of groups as a whole."""
    return Metadata(
        source=source, kind=kind, counters={"damaged": damaged, "unknown_lines": unknown_lines},
        extra={"damage": [[place.offset, place.reason] for place in damage],
               "page_size_from": page_size.ASSUMED})


def to_snapshot(groups: Groups, name: str, kind: str) -> Snapshot:
    """The groups as a snapshot, in their order; ``name`` says where they came from, ``kind`` is one
    of `pageowner.model.source_kinds.KINDS`."""
    line, body = (np.frombuffer(column, np.int64) for column in (groups.line, groups.body))
    order, ts = np.frombuffer(groups.order, np.int8), np.frombuffer(groups.ts, np.uint64)
    pages, blocks = (np.frombuffer(column, np.int64) for column in (groups.pages, groups.blocks))
    lines: Sequence[Line] = groups.lines
    bodies: Sequence[Body] = groups.bodies
    several = order < 0
    unknown = int(np.array([each.unknown for each in bodies], np.int64)[body].sum())
    meta = metadata(name, kind, groups.damaged, unknown, groups.damage)
    if groups.unterminated:
        meta.counters["unterminated"] = 1
    columns: dict[str, Any] = {
        "order": pa.array(np.maximum(order, 0).astype(np.uint8), mask=several),
        "blocks": pa.array(blocks.astype(np.uint64),
                           mask=None if KINDS[kind].block else np.ones(len(blocks), bool)),
        "amount": pa.array(pages.astype(np.uint64), mask=~several),
        "ts_ns": pa.array(ts, mask=ts == 0),
        "state": _states(groups, line, body),
        "migratetype": text_of(_migratetypes(lines), line),
        **{column: column_of(column, [each.said(column) for each in bodies], body)
           for column in LINES},
        **{column: column_of(column, [getattr(each, column) for each in bodies], body)
           for column in ("stack", "notes", "handle")},
        **{column: column_of(column, [getattr(each, column) for each in lines], line)
           for column in ("gfp_mask", "gfp_flags", "pid", "tgid", "comm")}}
    known = ts[ts > 0]
    meta.clock_ns = int(known.max()) if len(known) else None
    return Snapshot.from_columns(columns, meta)
