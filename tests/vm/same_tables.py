"""What tools make of either side, compared: the kernel's own page_owner_sort over our dump and over
the kernel's, mixed pageblocks, and the types of pageblocks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import pageowner
from pageowner.analysis.memory import memory
from pageowner.analysis.mixed import mixed
from pageowner.kernel.zones import parse_pagetypeinfo
from pageowner.model.snapshot import Snapshot

DEPTH = 16
_ENTRY = re.compile(r"(asm_(exc|sysvec|common)_|__irqentry|error_entry)")
_ALLOCATOR = re.compile(r"(__alloc_(frozen_)?pages|alloc_contig_|alloc_pages_bulk|__folio_alloc)")
_FRAME = re.compile(r"([^+\s]+)\+(0x[0-9a-f]+)/0x[0-9a-f]+")
_MORE = 6
"""Frames that the kernel's stacks may have within the allocator, where ours have one."""


def compare(folder: Path, agreed: list[int], address: dict[str, int]) -> dict[str, str]:
    """Each comparison and what came out, beginning with ``same`` if it did. ``agreed``: pfns whose
    records are equal; ``address``: of each function."""
    return {"page_owner_sort, culled by stack": _culled(folder, agreed, address),
            "mixed pageblocks": _mixed(folder), "types of pageblocks": _types(folder)}


def _culled(folder: Path, equal: list[int], address: dict[str, int]) -> str:
    """The kernel's tool over both texts, cut down to records that both have.

    Records whose task has a line break in its name are left out: 7.3's tool ends at the first one
    with "Out of memory" (get_comm() in tools/mm/page_owner_sort.c finds no name there)."""
    ours = pageowner.read(folder / "after.parquet")
    broken = pc.match_substring(ours.table["comm"].cast(pa.string()), "\n").fill_null(False)
    keep = pa.array(np.isin(ours.table["pfn"].to_numpy(), equal)
                    & ~broken.to_numpy(zero_copy_only=False))
    agreed = set(ours.table["pfn"].filter(keep).to_pylist())
    mine = folder / "agreed.parquet"
    Snapshot(ours.table.filter(keep), ours.meta).save(mine)
    with (folder / "ours.txt").open("wb") as out:
        subprocess.run([sys.executable, "-m", "pageowner", "dump", mine], stdout=out, check=True)
    mine.unlink()
    with (folder / "theirs.txt").open("wb") as out:
        for record in (folder / "page_owner.txt").read_bytes().split(b"\n\n"):
            pfn = re.search(rb"^PFN (0x[0-9a-f]+|\d+) ", record, re.MULTILINE)
            if pfn and int(pfn[1], 0) in agreed:
                out.write(record.lstrip(b"\n") + b"\n\n")
    tables = [_table(folder, name, address) for name in ("ours", "theirs")]
    differ = {key for key in set(tables[0]) | set(tables[1]) if tables[0][key] != tables[1][key]}
    if not differ:
        return (f"same: {len(tables[0]):,} stacks,"
                f" {sum(times for times, _ in tables[0].values()):,} records")
    lines = [f"{' '.join(key[:6])}: {tables[0][key]} / {tables[1][key]}" for key in differ]
    return f"DIFFER in {len(differ)} of {len(tables[0]):,} stacks: " + "; ".join(lines[:5])


def _table(folder: Path, name: str, address: dict[str, int]) -> Counter:
    """What page_owner_sort --cull=stacktrace says: by stack, times and pages."""
    subprocess.run([folder / "page_owner_sort", "--cull=stacktrace", folder / f"{name}.txt",
                    folder / f"{name}.sorted"], check=True, stdout=subprocess.DEVNULL)
    table: dict[tuple[str, ...], list[int]] = {}
    for part in (folder / f"{name}.sorted").read_text(errors="replace").split("\n\n"):
        head = re.match(r"\s*(\d+) times, (\d+) pages", part)
        if head:
            row = table.setdefault(_stack(part.split("\n")[1:], address), [0, 0])
            row[0] += int(head[1])
            row[1] += int(head[2])
    return Counter({key: tuple(row) for key, row in table.items()})


def _stack(lines: list[str], address: dict[str, int]) -> tuple[str, ...]:
    """A stack from the allocator's caller on, as deep as both sides have it, without our own
    trampoline, which the kernel's has where we hook a function within the allocator."""
    frames = [line.strip() for line in lines if _FRAME.match(line.strip())]
    frames = [frame for frame in frames if not frame.startswith("bpf_trampoline_")]
    begin = next((place for place in reversed(range(len(frames)))
                  if _ALLOCATOR.match(frames[place])), -1) + 1
    kept = []
    for frame in frames[begin : begin + DEPTH - _MORE]:
        found = _FRAME.match(frame)
        place = address.get(found[1]) if found else None
        kept.append(frame if place is None or not found else f"{place + int(found[2], 16):#x}")
        if _ENTRY.match(frame):
            break
    return tuple(kept)


def _mixed(folder: Path) -> str:
    """A capture has no type of pages that are older than tracking: these are the kernel's."""
    ours, kernels = (pageowner.read(folder / name) for name in ("after.parquet", "page_owner.txt"))
    table = ours.table
    pfn = table["pfn"].to_numpy().astype(np.int64)
    theirs = kernels.table["pfn"].to_numpy().astype(np.int64)
    place = np.searchsorted(theirs, pfn, side="right") - 1
    size = np.left_shift(1, kernels.table["order"].to_numpy().astype(np.int64))
    held = (place >= 0) & (pfn < theirs[place] + size[place])
    own = table["migratetype"].to_pylist()
    others = kernels.table["migratetype"].to_pylist()
    filled = [mine if mine is not None else others[at] if there else None
              for mine, at, there in zip(own, place.tolist(), held.tolist(), strict=True)]
    number = table.schema.get_field_index("migratetype")
    column = pa.array(filled, pa.string()).dictionary_encode().cast(table.schema.types[number])
    whole = Snapshot(table.set_column(number, table.schema.field(number), column), ours.meta)
    seen = memory(whole)
    found: Counter[tuple[str, str]] = Counter()
    mixing = mixed(whole, seen)
    for (at, kind), blocks in mixing.counts.items():
        found[seen.stretches[at].name, kind] += blocks
    # The kernel counts every block of an allocation, ours the first: its type is what is known.
    large = int((seen.pages[mixing.foreign] - 1 >> seen.pageblock_order).clip(0).sum())
    near = []
    for name in ("pagetypeinfo-before", "pagetypeinfo"):
        said = parse_pagetypeinfo((folder / name).read_text()).mixed
        near.append({(f"node {node} {zone}", kind): blocks for (node, zone), kinds in said.items()
                     for kind, blocks in kinds.items()})
    wrong = [f"{zone} {kind}: {found[zone, kind]}, the kernel {low} and {near[1][zone, kind]}"
             for (zone, kind), low in near[0].items()
             if not min(low, near[1][zone, kind]) - large <= found[zone, kind]
             <= max(low, near[1][zone, kind])]
    beyond = sum(max(blocks, near[1][where]) for where, blocks in near[0].items())
    beyond -= sum(found.values())
    if not wrong and large and not 0 <= beyond - large <= large // 10:
        wrong = [f"{beyond:,} more in the kernel's, {large:,} of them within large allocations"]
    aside = f", {large:,} more within allocations larger than a block" if large else ""
    return ("DIFFER: " + "; ".join(wrong) if wrong
            else f"same: {sum(found.values()):,} mixed pageblocks{aside}")


def _types(folder: Path) -> str:
    """As each record of the kernel's names its block."""
    ours, kernels = (pageowner.read(folder / name) for name in ("after.parquet", "page_owner.txt"))
    if "no_block_types" in ours.meta.extra:
        return f"NOT READ: {ours.meta.extra['no_block_types']}"
    mine = dict(zip(ours.table["pfn"].to_pylist(), ours.table["block_migratetype"].to_pylist(),
                    strict=True))
    same, other = 0, []
    for pfn, kind in zip(kernels.table["pfn"].to_pylist(),
                         kernels.table["block_migratetype"].to_pylist(), strict=True):
        if pfn in mine:
            same += mine[pfn] == kind
            if mine[pfn] != kind:
                other.append(f"{pfn:#x} {mine[pfn]} / {kind}")
    return (f"DIFFER at {len(other):,} of {same + len(other):,} records: {'; '.join(other[:5])}"
            if other else f"same: {same:,} records")
