"""The kernel's own page owner as a snapshot, out of its memory: what reading its text gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.kernel.early_pages import is_early
from pageowner.kernel.gfp import MIGRATETYPES
from pageowner.kernel.task_names import to_text
from pageowner.kernel_memory import name_tables
from pageowner.kernel_memory.access import version
from pageowner.kernel_memory.charges import charges
from pageowner.kernel_memory.page_owner import records
from pageowner.kernel_memory.pageblocks import BlockTypes
from pageowner.kernel_memory.stack_depot import StackDepot
from pageowner.model.snapshot import Metadata, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory
    from pageowner.kernel_memory.page_owner import Records

__all__ = ["Names", "page_owner"]

_HEX_PFN = (6, 5)
"""Since then the text has page frame numbers in hex (print_page_owner)."""
_WITHOUT_FREE_TS = (6, 7)
"""Since then it does not have the time of the last free."""


class Names(Protocol):
    """Names of addresses, as `pageowner.kernel.kallsyms.Kallsyms` has them."""

    def stacks(self, rows: NDArray[np.uint64], skip: int = 0) -> list[str]:
        """The text of stacks, one row of addresses each, ended by a zero."""


def page_owner(memory: Memory, symbols: Names, source: str) -> Snapshot:
    """All records of the kernel's own page owner; ``source`` names it.

    The rows and columns are those of its text. ``meta.counters`` has those of
    `page_owner.Records`, and ``unknown_stacks``, the number of stacks whose frames could not be
    had, and ``unknown_charges``, that of cgroups; ``meta.dump_format`` says how this kernel's text
    is written. Raises PageownerError where the kernel does not keep page owner or its structures
    are not as they should be.
    """
    found = records(memory)
    if not len(found.pfn):
        raise PageownerError("the kernel's page owner has no record")
    counters = found.counters
    owner = found.owner
    columns: dict[str, Any] = {"pfn": found.pfn, "order": owner["order"].astype(np.uint8)}
    for name, column in (("ts", "ts_ns"), ("pid", "pid"), ("tgid", "tgid")):
        if name in (owner.dtype.names or ()):
            columns[column] = np.ascontiguousarray(owner[name])
    before_free_ts = version(memory) < _WITHOUT_FREE_TS
    has_free_ts = "free_ts" in (owner.dtype.names or ())
    if has_free_ts:
        columns["free_ts_ns"] = np.ascontiguousarray(owner["free_ts"])
    if "comm" in (owner.dtype.names or ()):
        columns["comm"] = _comms(owner["comm"])
    columns |= _masks(memory, owner["gfp_mask"])
    columns |= _stacks(memory, symbols, owner, counters)
    columns |= _flags(memory, found)
    columns |= _notes(memory, found, counters)
    blocks = BlockTypes(memory, found.pieces)
    if not blocks.why_none:
        columns["block_migratetype"] = _text(blocks.codes(found.pfn), blocks.names)
    meta = Metadata(
        source=source, kind="page_owner", kernel=memory.release, page_size=memory.page_size,
        pageblock_order=blocks.order, counters=counters,
        clock_ns=int(owner["ts"].max()) if "ts" in (owner.dtype.names or ()) else None,
        dump_format={"decimal_pfn": version(memory) < _HEX_PFN, "pfn_lines": True,
                     "free_ts": has_free_ts and before_free_ts})
    if blocks.why_none:
        meta.extra["no_block_types"] = blocks.why_none
    return Snapshot.from_columns(columns, meta)


def _encoded(values: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Each value's place among the distinct ones, and these. Neighbours are mostly alike."""
    values = np.ascontiguousarray(values)
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))[:len(values)]
    encoded = pa.array(values[starts]).dictionary_encode()
    codes = np.repeat(encoded.indices.to_numpy(), np.diff(starts, append=len(values)))
    return codes.astype(np.int32), encoded.dictionary.to_numpy()


def _text(codes: NDArray[np.int32], values: Sequence[str]) -> pa.Array:
    """A dictionary column; null where the code is below 0."""
    return pa.DictionaryArray.from_arrays(
        pa.array(np.maximum(codes, 0), pa.int32(), mask=codes < 0),
        pa.array(list(values) or [""], pa.string()))


def _coded(values: Sequence[str | None], codes: NDArray[np.int32]) -> pa.Array:
    """``values[codes]``, equal texts joined, null where the value is None."""
    places: dict[str, int] = {}
    table = np.array([-1 if value is None else places.setdefault(value, len(places))
                      for value in values] or [-1], np.int32)
    return _text(table[codes], list(places))


def _comms(raw: NDArray[Any]) -> pa.Array:
    """Names of tasks: up to the first zero byte, behind which an older name may have left more."""
    whole = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(raw), [None, pa.py_buffer(np.ascontiguousarray(raw))])
    encoded = whole.dictionary_encode()
    texts = [to_text(name.as_py().partition(b"\0")[0]) for name in encoded.dictionary]
    return _coded(texts, encoded.indices.to_numpy())


def _masks(memory: Memory, masks: NDArray[np.uint32]) -> dict[str, Any]:
    names = name_tables.gfp_flags(memory)
    codes, distinct = _encoded(masks)
    kinds = names.migratetype(distinct).astype(np.int32)
    return {"gfp_mask": np.ascontiguousarray(masks),
            "gfp_flags": _coded([names.decode(int(mask)) for mask in distinct], codes),
            "migratetype": _text(kinds[codes], MIGRATETYPES)}


def _stacks(memory: Memory, symbols: Names, owner: NDArray[Any], counters: dict[str, int]
            ) -> dict[str, Any]:
    """Stacks, each decoded once; the handles of those that could not be had; which are of pages
    from before page owner was ready."""
    codes, handles = _encoded(owner["handle"])
    addresses, known = StackDepot(memory).stacks(handles)
    if not known.any() or known.sum() * 2 < len(known):
        raise PageownerError(f"{len(known) - int(known.sum()):,} of {len(known):,} handles lead to"
                             " no stack: the kernel's stack depot is not as expected")
    texts: list[str | None] = [text or None if good else None for text, good in zip(
        symbols.stacks(addresses), known.tolist(), strict=True)]
    counters["unknown_stacks"] = int((~known).sum())
    columns: dict[str, Any] = {"stack": _coded(texts, codes)}
    if not known.all():
        unknown = ~known[codes]
        columns["handle"] = pa.array(np.ascontiguousarray(owner["handle"]), mask=~unknown)
    pairs, distinct = _encoded(codes.astype(np.uint64) << np.uint64(32)
                               | owner["gfp_mask"].astype(np.uint64))
    early = np.array([is_early(texts[pair >> 32] or "", pair & 0xFFFFFFFF)
                      for pair in distinct.tolist()], np.int32)
    columns["state"] = _text(early[pairs], ("owned", "early"))
    return columns


def _flags(memory: Memory, found: Records) -> dict[str, Any]:
    """Flags of pages, their zones (by number, as in the text) and nodes."""
    names = name_tables.page_flags(memory)
    codes, distinct = _encoded(found.flags)
    columns: dict[str, Any] = {
        "flags": _coded([names.text(int(flags)) for flags in distinct.tolist()], codes)}
    if (zones := names.field("zone", distinct)) is not None:
        columns["zone"] = _coded([str(zone) for zone in zones.tolist()], codes)
    if (nodes := names.field("node", distinct)) is not None:
        columns["node"] = nodes.astype(np.int16)[codes]
    return columns


def _notes(memory: Memory, found: Records, counters: dict[str, int]) -> dict[str, Any]:
    """What follows the stack: why the page was migrated last, and the cgroup charged."""
    reasons, never = name_tables.migrate_reasons(memory)
    moved, numbers = _encoded(found.owner["reason"])
    moves = [None if number == never or not 0 <= number < len(reasons) else reasons[number]
             for number in numbers.tolist()]
    charged, data = _encoded(found.charge)
    known, counters["unknown_charges"] = charges(memory, data)
    pairs, distinct = _encoded(moved.astype(np.uint64) << np.uint64(32)
                               | charged.astype(np.uint64))
    notes: list[str | None] = []
    for pair in distinct.tolist():
        move, charge = moves[int(pair) >> 32], known[int(pair) & 0xFFFFFFFF]
        lines = [] if move is None else [f"Page has been migrated, last migrate reason: {move}"]
        lines += [] if charge.line is None else [charge.line]
        notes.append("\n".join(lines) or None)
    return {"migrate_reason": _coded(moves, moved), "notes": _coded(notes, pairs),
            "memcg": _coded([charge.name for charge in known], charged)}
