"""Turn the plain columns of a parsed dump into a snapshot's Arrow table.

Every distinct header, PFN line tail and body is looked at once; rows are made by taking from
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
    from collections.abc import Hashable, Iterable, Sequence

__all__ = ["to_snapshot"]

_ZONE = re.compile(r"\bzone=(\d+)")
_NODE = re.compile(r"\bnode=(\d+)")
_EARLY = ("register_early_stack", "init_early_allocated_pages", "init_pages_in_zone")
# include/linux/gfp_types.h: these two bits tell the migratetype; since 4.4 they stand side by side.
_MOVABLE, _RECLAIMABLE, _RECLAIMABLE_BEFORE_4_4 = 0x08, 0x10, 0x80000
_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate")
_NAMES_BEFORE_4_4 = ("Unmovable", "Reclaimable", "Movable", "Reserve", "CMA", "Isolate")


def _joined(parts: Sequence[Raw], name: str, dtype: str) -> np.ndarray:
    return np.concatenate([np.frombuffer(getattr(part, name), dtype) for part in parts])


def _merged(parts: Sequence[Raw], table: str, column: str) -> tuple[list[Any], np.ndarray]:
    """The distinct values of all parts in one list, and each row's place in it."""
    places: dict[Hashable, int] = {}
    rows = []
    for part in parts:
        here = [places.setdefault(value, len(places)) for value in getattr(part, table)]
        numbers = np.frombuffer(getattr(part, column), np.uint32)
        rows.append(np.array(here or [0], np.uint32)[numbers])
    return list(places), np.concatenate(rows)


def _text(values: Iterable[str | None], rows: np.ndarray) -> pa.Array:
    """A dictionary column: ``values[rows]``, null where the value is None."""
    places: dict[str, int] = {}
    codes = np.array([-1 if value is None else places.setdefault(value, len(places))
                      for value in values] or [-1], np.int32)[rows]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=codes < 0), pa.array(list(places), pa.string()))


def _numbers(values: Sequence[int | None], rows: np.ndarray, dtype: str) -> pa.Array:
    numbers = np.array([0 if value is None else value for value in values] or [0], dtype)[rows]
    if not any(value is None for value in values):
        return pa.array(numbers)
    missing = np.array([value is None for value in values], bool)[rows]
    return pa.array(numbers, mask=missing)


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


def _numbering(headers: Sequence[Any], lines: Sequence[Any], header: np.ndarray,
               line: np.ndarray) -> tuple[str, ...] | None:
    """Before 4.6 the block's type is a number whose meaning changed in 4.4.

    A page not marked Fallback lies in a block of its own type, so movable pages tell which
    numbering it is. None if no page tells.
    """
    for place, (kind, number, _, fallback) in enumerate(lines):
        if kind is None and fallback is False and number.isdigit():
            for one in np.unique(header[line == place]):
                if headers[one].gfp_mask & _MOVABLE:
                    return {"1": _NAMES, "2": _NAMES_BEFORE_4_4}.get(number)
    return None


def to_snapshot(parts: Sequence[Raw], name: str) -> Snapshot:
    """The parts of a dump, in its order, as a snapshot; ``name`` says where it came from."""
    headers, header = _merged(parts, "headers", "header")
    lines, line = _merged(parts, "lines", "line")
    bodies, body = _merged(parts, "bodies", "body")
    pfn, block = _joined(parts, "pfn", "u8"), _joined(parts, "block", "u8")
    ts, free_ts = _joined(parts, "ts", "u8"), _joined(parts, "free_ts", "u8")
    pageblock_order, torn = _pageblock_order(pfn, block)
    damaged = sum(part.damaged for part in parts)
    if torn.any():
        # The pfn and the block of one line contradict each other: one of them is damaged.
        kept = ~torn
        damaged += int(torn.sum())
        header, line, body, pfn, ts, free_ts = (
            column[kept] for column in (header, line, body, pfn, ts, free_ts))

    numbered = any(kind is None and number.isdigit() for kind, number, _, _ in lines)
    numbering = _numbering(headers, lines, header, line) if numbered else None
    block_types = [
        None if not number else
        (numbering[int(number)] if numbering and int(number) < len(numbering) else None)
        if number.isdigit() else number for _, number, _, _ in lines]
    has_line = line != next((i for i, one in enumerate(lines) if not one[1]), -1)
    own = _text([kind for kind, _, _, _ in lines], line)
    if own.null_count:
        old = numbering is _NAMES_BEFORE_4_4
        from_mask = _text([_of_mask(one, old) for one in headers], header)
        own = _either(own, from_mask)
    flags = [said or None for _, _, said, _ in lines]
    nodes = [int(found[1]) if said and (found := _NODE.search(said)) else None for said in flags]
    zones = [found[1] if said and (found := _ZONE.search(said)) else None for said in flags]
    early = ["early" if one.stack and one.stack.startswith(_EARLY) else "owned" for one in bodies]
    unknown = np.array([one.unknown for one in bodies] or [0])[body]

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
        "order": _numbers([one.order for one in headers], header, "u1"),
        "gfp_mask": _numbers([one.gfp_mask for one in headers], header, "u4"),
        "gfp_flags": _text([one.gfp_flags for one in headers], header),
        "migratetype": own,
        "pid": _numbers([one.pid for one in headers], header, "i4"),
        "tgid": _numbers([one.tgid for one in headers], header, "i4"),
        "comm": _text([one.comm for one in headers], header),
        "ts_ns": _optional(ts),
        "free_ts_ns": _optional(free_ts),
        "stack": _text([one.stack for one in bodies], body),
        "state": _text(early, body),
        "block_migratetype": _text(block_types, line),
        "zone": _text(zones, line),
        "node": _numbers(nodes, line, "i2"),
        "flags": _text(flags, line),
        "memcg": _text([one.memcg for one in bodies], body),
        "migrate_reason": _text([one.migrate_reason for one in bodies], body),
        "handle": _numbers([one.handle for one in bodies], body, "u4"),
        "notes": _text([one.notes for one in bodies], body),
    }, meta)


def _either(first: pa.Array, second: pa.Array) -> pa.Array:
    """``first`` where it is not null, else ``second``; both dictionary columns."""
    import pyarrow.compute as pc

    both = pc.coalesce(first.cast(pa.string()), second.cast(pa.string()))
    return both.dictionary_encode()
