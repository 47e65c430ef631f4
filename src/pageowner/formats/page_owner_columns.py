"""Turn the plain columns of a parsed dump into a snapshot's Arrow table.

Every kind of record, that is all but its numbers, is looked at once; rows are made by taking from
these by number.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.formats.page_owner import NONE, Raw
from pageowner.snapshot import Metadata, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pageowner.formats.page_owner_grammar import Body, Header

    _Line = tuple[str | None, str, str, bool | None]
    _Kind = tuple[Header, _Line, Body]

__all__ = ["to_snapshot"]

_ZONE = re.compile(r"\bzone=(\d+)")
_NODE = re.compile(r"\bnode=(\d+)")
_EARLY = ("register_early_stack", "init_early_allocated_pages", "init_pages_in_zone")
# include/linux/gfp_types.h: these two bits tell the migratetype; since 4.4 they stand side by side.
_MOVABLE, _RECLAIMABLE, _RECLAIMABLE_BEFORE_4_4 = 0x08, 0x10, 0x80000
_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")
_NAMES_BEFORE_4_4 = ("Unmovable", "Reclaimable", "Movable", "Reserve", "CMA", "Isolate")


def _joined(parts: Sequence[Raw], name: str) -> np.ndarray:
    """A column of numbers; `NONE` in the rows of parts where no record says it."""
    return np.concatenate([
        np.frombuffer(column, np.uint64) if (column := getattr(part, name))
        else np.full(len(part.kind), NONE, np.uint64) for part in parts])


def _kinds(parts: Sequence[Raw]) -> tuple[list[_Kind], np.ndarray]:
    """The distinct kinds of record in all parts, and each row's place among them."""
    places: dict[_Kind, int] = {}
    rows = []
    for part in parts:
        here = [places.setdefault(
            (part.headers[header], part.lines[line], part.bodies[body]), len(places))
            for header, line, body in part.kinds]
        rows.append(np.array(here, np.int64)[np.frombuffer(part.kind, np.uint32)])
    return list(places), np.concatenate(rows)


def _text(values: Sequence[str | None], rows: np.ndarray) -> pa.Array | None:
    """A dictionary column: ``values[rows]``, null where the value is None; None if all are."""
    places: dict[str, int] = {}
    codes = np.array([-1 if value is None else places.setdefault(value, len(places))
                      for value in values], np.int32)
    if not places:
        return None
    labels = pa.array(list(places), pa.string())
    if codes.min() >= 0:
        return pa.DictionaryArray.from_arrays(pa.array(codes[rows]), labels)
    return pa.DictionaryArray.from_arrays(
        pa.array(codes[rows], mask=(codes < 0)[rows]), labels)


def _numbers(values: Sequence[int | None], rows: np.ndarray, dtype: str) -> pa.Array | None:
    """``values[rows]``, null where the value is None; None if all are."""
    missing = np.array([value is None for value in values], bool)
    if missing.all():
        return None
    numbers = np.array([value or 0 for value in values], dtype)[rows]
    return pa.array(numbers, mask=missing[rows]) if missing.any() else pa.array(numbers)


def _optional(column: np.ndarray) -> pa.Array:
    missing = column == NONE
    return pa.array(column, mask=missing) if missing.any() else pa.array(column)


def _pageblock_order(pfn: np.ndarray, block: np.ndarray) -> tuple[int | None, np.ndarray]:
    """The order for which ``block == pfn >> order`` holds most, and the rows where it does not."""
    known = pfn != NONE
    if not known.any():
        return None, np.zeros(len(pfn), bool)
    sample = np.flatnonzero(known)[-1000:]
    votes = [int((pfn[sample] >> np.uint64(order) == block[sample]).sum()) for order in range(20)]
    order = int(np.argmax(votes))
    return order, known & (pfn >> np.uint64(order) != block)


def _of_mask(header: Any, old: bool) -> str | None:
    flags = header.gfp_flags
    if flags is None and old and header.gfp_mask & _RECLAIMABLE_BEFORE_4_4:
        return "Reclaimable"
    if header.gfp_mask & _MOVABLE:
        return "Movable"
    return "Reclaimable" if header.gfp_mask & _RECLAIMABLE and not old else "Unmovable"


def _numbering(kinds: Iterable[_Kind]) -> tuple[str, ...] | None:
    """Before 4.6 the block's type is a number whose meaning changed in 4.4.

    A page not marked Fallback lies in a block of its own type, so movable pages tell which
    numbering it is. None if no page tells.
    """
    for header, (kind, number, _, fallback), _ in kinds:
        if (kind is None and fallback is False and number.isdigit()
                and header.gfp_mask & _MOVABLE):
            return {"1": _NAMES, "2": _NAMES_BEFORE_4_4}.get(number)
    return None


def to_snapshot(parts: Sequence[Raw], name: str) -> Snapshot:
    """The parts of a dump, in its order, as a snapshot; ``name`` says where it came from."""
    kinds, kind = _kinds(parts)
    pfn, block = _joined(parts, "pfn"), _joined(parts, "block")
    ts, free_ts = _joined(parts, "ts"), _joined(parts, "free_ts")
    pageblock_order, torn = _pageblock_order(pfn, block)
    damaged = sum(part.damaged for part in parts)
    if torn.any():
        # The pfn and the block of one line contradict each other: one of them is damaged.
        kept = ~torn
        damaged += int(torn.sum())
        kind, pfn, ts, free_ts = (column[kept] for column in (kind, pfn, ts, free_ts))

    headers = [header for header, _, _ in kinds]
    lines = [line for _, line, _ in kinds]
    bodies = [body for _, _, body in kinds]
    numbered = any(said is None and number.isdigit() for said, number, _, _ in lines)
    numbering = _numbering(kinds[place] for place in np.unique(kind)) if numbered else None
    block_types = [
        None if not number else
        (numbering[int(number)] if numbering and int(number) < len(numbering) else None)
        if number.isdigit() else number for _, number, _, _ in lines]
    old = numbering is _NAMES_BEFORE_4_4
    own = [said or _of_mask(header, old) for header, (said, _, _, _) in zip(headers, lines,
                                                                           strict=True)]
    has_line = np.array([bool(number) for _, number, _, _ in lines], bool)[kind]
    flags = [said or None for _, _, said, _ in lines]
    nodes = [int(found[1]) if said and (found := _NODE.search(said)) else None for said in flags]
    zones = [found[1] if said and (found := _ZONE.search(said)) else None for said in flags]
    early = ["early" if one.stack and one.stack.startswith(_EARLY) else "owned" for one in bodies]
    unknown = np.array([one.unknown for one in bodies], np.int64)[kind]

    counters = {"damaged": damaged,
                "unknown_lines": int(unknown.sum()),
                "unterminated": sum(part.unterminated for part in parts)}
    timed = ts != NONE
    damage = sorted(place for part in parts for place in part.damage)
    meta = Metadata(
        source=name, kind="page_owner", pageblock_order=pageblock_order, counters=counters,
        clock_ns=int(ts[timed].max()) if timed.any() else None,
        dump_format={"decimal_pfn": any(part.decimal_pfn for part in parts),
                     "free_ts": bool((free_ts != NONE).any()),
                     "pfn_lines": bool(has_line.any())},
        extra={"damage": [[place.offset, place.reason] for place in damage[:10]]})
    return Snapshot.from_columns({
        "pfn": _optional(pfn),
        "order": _numbers([one.order for one in headers], kind, "u1"),
        "gfp_mask": _numbers([one.gfp_mask for one in headers], kind, "u4"),
        "gfp_flags": _text([one.gfp_flags for one in headers], kind),
        "migratetype": _text(own, kind),
        "pid": _numbers([one.pid for one in headers], kind, "i4"),
        "tgid": _numbers([one.tgid for one in headers], kind, "i4"),
        "comm": _text([one.comm for one in headers], kind),
        "ts_ns": _optional(ts),
        "free_ts_ns": _optional(free_ts),
        "stack": _text([one.stack for one in bodies], kind),
        "state": _text(early, kind),
        "block_migratetype": _text(block_types, kind),
        "zone": _text(zones, kind),
        "node": _numbers(nodes, kind, "i2"),
        "flags": _text(flags, kind),
        "memcg": _text([one.memcg for one in bodies], kind),
        "migrate_reason": _text([one.migrate_reason for one in bodies], kind),
        "handle": _numbers([one.handle for one in bodies], kind, "u4"),
        "notes": _text([one.notes for one in bodies], kind),
    }, meta)
