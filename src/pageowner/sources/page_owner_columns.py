"""Turn the plain columns of a parsed dump into a snapshot's Arrow table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.model.schema import COLUMNS
from pageowner.model.snapshot import Snapshot
from pageowner.sources.page_owner_kinds import columns, metadata
from pageowner.sources.page_owner_parser import NONE, Raw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.sources.page_owner_kinds import Kind

__all__ = ["column_of", "text_of", "to_snapshot"]


def _joined(parts: Sequence[Raw], name: str) -> np.ndarray:
    """A column of numbers; `NONE` in the rows of parts where no record says it."""
    return np.concatenate([
        np.frombuffer(column, np.uint64) if (column := getattr(part, name))
        else np.full(len(part.kind), NONE, np.uint64) for part in parts])


def _kinds(parts: Sequence[Raw]) -> tuple[list[Kind], np.ndarray]:
    """The distinct kinds of record in all parts, and each row's place among them."""
    places: dict[Kind, int] = {}
    rows = []
    for part in parts:
        here = [places.setdefault(
            (part.headers[header], part.lines[line], part.bodies[body]), len(places))
            for header, line, body in part.kinds]
        rows.append(np.array(here, np.int64)[np.frombuffer(part.kind, np.uint32)])
    return list(places), np.concatenate(rows)


def text_of(values: Sequence[str | None], rows: np.ndarray) -> pa.Array | None:
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


def numbers_of(values: Sequence[int | None], rows: np.ndarray, dtype: str) -> pa.Array | None:
    """``values[rows]``, null where the value is None; None if all are."""
    missing = np.array([value is None for value in values], bool)
    if missing.all():
        return None
    numbers = np.array([value or 0 for value in values], dtype)[rows]
    return pa.array(numbers, mask=missing[rows]) if missing.any() else pa.array(numbers)


def column_of(name: str, values: Sequence[Any], rows: np.ndarray) -> pa.Array | None:
    """``values[rows]`` as the type that the column of this name has; None if all are None."""
    column = COLUMNS[name]
    return numbers_of(values, rows, column.type) if column.is_number else text_of(values, rows)


def _optional(column: np.ndarray) -> pa.Array:
    missing = column == NONE
    return pa.array(column, mask=missing) if missing.any() else pa.array(column)


def _pageblock_order(pfn: np.ndarray, block: np.ndarray) -> tuple[int | None, np.ndarray]:
    """The order for which ``block == pfn >> order`` holds most, and the rows where it does not."""
    known = (pfn != NONE) & (block != NONE)
    if not known.any():
        return None, np.zeros(len(pfn), bool)
    sample = np.flatnonzero(known)[-1000:]
    votes = [int((pfn[sample] >> np.uint64(order) == block[sample]).sum()) for order in range(20)]
    order = int(np.argmax(votes))
    return order, known & (pfn >> np.uint64(order) != block)


def _again(pfn: np.ndarray) -> int:
    """How many records are of a page frame that another one is of."""
    known = pfn[pfn != NONE]
    return 0 if (known[1:] > known[:-1]).all() else len(known) - len(np.unique(known))


def to_snapshot(parts: Sequence[Raw], name: str) -> Snapshot:
    """The parts of a dump, in its order, as a snapshot; ``name`` says where it came from."""
    kinds, kind = _kinds(parts)
    pfn, block = _joined(parts, "pfn"), _joined(parts, "block")
    ts, free_ts = _joined(parts, "ts"), _joined(parts, "free_ts")
    pageblock_order, torn = _pageblock_order(pfn, block)
    again = _again(pfn)
    damaged = sum(part.damaged for part in parts)
    if torn.any():
        # The pfn and the block of one line contradict each other: one of them is damaged.
        kept = ~torn
        damaged += int(torn.sum())
        kind, pfn, ts, free_ts = (column[kept] for column in (kind, pfn, ts, free_ts))
        # What only damaged records say is not said.
        present, kind = np.unique(kind, return_inverse=True)
        kinds = [kinds[place] for place in present.tolist()]
    has_line = np.array([bool(number) for _, (_, number, _, _), _ in kinds], bool)[kind]
    unknown = np.array([body.unknown for _, _, body in kinds], np.int64)[kind]
    timed = ts != NONE
    meta = metadata(
        name, kinds, pageblock_order=pageblock_order, damaged=damaged,
        unknown_lines=int(unknown.sum()),
        unterminated=sum(part.unterminated for part in parts),
        clock_ns=int(ts[timed].max()) if timed.any() else None,
        decimal_pfn=any(part.decimal_pfn for part in parts),
        free_ts=bool((free_ts != NONE).any()), pfn_lines=bool(has_line.any()),
        damage=(place for part in parts for place in part.damage),
        left_out=sum(part.left_out for part in parts), again=again)
    said = {column: column_of(column, values, kind) for column, values in columns(kinds).items()}
    return Snapshot.from_columns({
        "pfn": _optional(pfn), "ts_ns": _optional(ts), "free_ts_ns": _optional(free_ts), **said,
    }, meta)
