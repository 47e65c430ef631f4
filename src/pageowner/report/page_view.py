"""One page frame and all that is known of it, in the words of the kernel's dump_page()."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pageowner.report.text import age, count_of, printable, size
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.snapshot import Metadata
    from pageowner.model.tracking import LastFree
    from pageowner.report.terminal import Paper

__all__ = ["document", "draw"]


_STATES = {"early": "in use before tracking began",
           "untracked": "allocated since, past every hook"}

_TOLD = frozenset((
    "pfn", "order", "state", "pid", "tgid", "comm", "ts_ns", "free_ts_ns", "gfp_mask", "gfp_flags",
    "migratetype", "node", "zone", "block_migratetype", "flags", "page_flags", "memcg", "pod",
    "container", "migrate_reason", "handle", "user", "stack", "notes"))
"""Columns for which there are words; others are shown by their names."""


def draw(pfn: int, rows: list[dict[str, Any]], meta: Metadata, now_ns: int,
         paper: Paper, freed: LastFree | None = None,
         page_flags: Sequence[int] | None = None) -> None:
    """Write what the rows that cover ``pfn`` say, and who freed it last where that is known.
    ``page_flags``: of a frame without an owner, its flags, none where memory ends before it."""
    def line(text: str, style: str = "") -> None:
        bare = text.lstrip(" ")
        prose(paper, printable(bare), style, len(text) - len(bare))

    def free_side(allocated_ns: int | None) -> None:
        if freed is not None:
            line(f"  {_freed_line(freed, allocated_ns, now_ns)}")
            for frame in freed.stack.split("\n") if freed.stack else ():
                line(f"    {frame}")

    if not rows:
        line(f"pfn {pfn:#x} ({pfn}): {_ownerless(meta, freed is not None, page_flags)}", "bold")
        free_side(None)
        return
    for row in rows:
        line(f"pfn {pfn:#x} ({pfn}), physical address {pfn * meta.page_size:#x}", "bold")
        for text in _lines(pfn, row, meta, now_ns, freed is None):
            line(f"  {text}")
        if row["stack"] is not None:
            from pageowner.analysis.subsystems import distinctive_frame, subsystem

            line(f"  for: {subsystem(row['stack'])}")
            telling = distinctive_frame(row["stack"])
            for frame in row["stack"].split("\n"):
                line(f"    {frame}",
                     "telling" if distinctive_frame(frame) == telling else "")
        if row["notes"] is not None:
            for note in row["notes"].split("\n"):
                line(f"  {note}")
        free_side(row["ts_ns"])


def _ownerless(meta: Metadata, freed: bool, page_flags: Sequence[int] | None) -> str:
    """What a page without an owner is, as far as the source tells."""
    if meta.source:
        return f"no owner known to {meta.source}: free, or no page"
    if meta.kind != "tracker":
        return "no owner known to the kernel's page owner: free, or no page"
    if freed:
        return "free"
    if page_flags is None:
        return "no owner"
    if not page_flags:
        return "beyond the end of memory"
    from pageowner.kernel import flag_bits

    names = {name for name in ("nopage", "buddy", "reserved", "offline", "hwpoison")
             if page_flags[0] & flag_bits.mask(name)}
    if "nopage" in names:
        return "no page is there"
    if names - {"buddy"}:
        return f"{', '.join(sorted(names - {'buddy'}))}: not the page allocator's"
    if "buddy" in names:
        return "free"
    return "no owner: free on a CPU's own list, or not given to the page allocator"


def _freed_line(freed: LastFree, allocated_ns: int | None, now_ns: int) -> str:
    """Who freed the block that began here, before it was allocated as it is or afterwards."""
    when = "last freed" if allocated_ns is None else (
        "freed before that" if freed.ts_ns <= allocated_ns else "freed meanwhile")
    who = "" if freed.pid is None else f", by pid {freed.tgid}, tid {freed.pid} ({freed.comm})"
    ago = f", {age(now_ns - freed.ts_ns)} ago" if freed.ts_ns <= now_ns else ""
    return f"{when} at {freed.ts_ns / 1e9:.6f} s after boot{ago}{who}"


def _lines(pfn: int, row: dict[str, Any], meta: Metadata, now_ns: int,
           with_free: bool) -> list[str]:
    pages = 1 << row["order"]
    lines = [f"page {pfn - row['pfn'] + 1} of the block of order {row['order']} at"
             f" {row['pfn']:#x}: {count_of(pages, 'page')}, {size(pages * meta.page_size)}"]
    if row["state"] in _STATES:
        lines.append(_STATES[row["state"]])
    if row["pid"] is not None:
        process = "" if row["tgid"] is None else f"pid {row['tgid']}, "
        comm = "" if row["comm"] is None else f" ({row['comm']})"
        lines.append(f"allocated by {process}tid {row['pid']}{comm}")
    if row["ts_ns"] is not None:
        lines.append(f"at {row['ts_ns'] / 1e9:.6f} s after boot, {age(now_ns - row['ts_ns'])} ago")
    if row["free_ts_ns"] and with_free:
        lines.append(f"last freed before that at {row['free_ts_ns'] / 1e9:.6f} s")
    if row["gfp_mask"] is not None:
        names = f" ({row['gfp_flags']})" if row["gfp_flags"] else ""
        lines.append(f"gfp mask {row['gfp_mask']:#x}{names}, migratetype {row['migratetype']}")
    where = [f"{name} {row[column]}" for name, column in (
        ("node", "node"), ("zone", "zone"), ("pageblock type", "block_migratetype"))
        if row[column] is not None]
    if meta.pageblock_order is not None:
        where.append(f"pageblock {pfn >> meta.pageblock_order}")
    if where:
        lines.append(", ".join(where))
    if row["flags"]:
        lines.append(f"flags {row['flags']}")
    elif row["page_flags"] is not None:
        from pageowner.kernel import flag_bits

        lines.append(f"flags {flag_bits.names(row['page_flags']) or 'none'}")
    if row["memcg"] is not None and row["notes"] is None:
        lines.append(f"charged to memcg {row['memcg']}")
    lines += [f"{name} {row[name]}" for name in ("pod", "container") if row.get(name)]
    if row["migrate_reason"] is not None and row["notes"] is None:
        lines.append(f"migrated, last reason: {row['migrate_reason']}")
    lines += [f"{words} {row[name]}" for words, name in (
        ("stack depot handle", "handle"), ("now", "user")) if row[name] is not None]
    return lines + [f"{name} {value}" for name, value in row.items()
                    if name not in _TOLD and value is not None]


def document(pfn: int, rows: list[dict[str, Any]], freed: LastFree | None = None,
             page_flags: Sequence[int] | None = None) -> dict[str, Any]:
    """The same for JSON: ``{"pfn": N, "blocks": [row, …], "last_free": {…} or null, "page_flags":
    [name, …] or null}``, the last as of /proc/kpageflags: ``nopage`` where memory ends before."""
    from pageowner.kernel import flag_bits

    def apart(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "stack": None if row["stack"] is None else row["stack"].split("\n")}

    return {"pfn": pfn, "blocks": [apart(row) for row in rows],
            "last_free": None if freed is None else apart(asdict(freed)),
            "page_flags": None if page_flags is None else ["nopage"] if not page_flags else
            flag_bits.names(page_flags[0]).split("|") if page_flags[0] else []}
