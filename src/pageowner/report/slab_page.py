"""An object and its slab, as text for people, or as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.report.stack_lines import one_line_each
from pageowner.report.table import Column, draw_table
from pageowner.report.terminal import PIPE_WIDTH
from pageowner.report.text import UNKNOWN, age, count_of, printable, size
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from pageowner.model.slab_at import SlabAt
    from pageowner.report.terminal import Paper

__all__ = ["document", "draw"]

_MAKER = ("state", "pid", "tgid", "comm", "ts_ns")
"""What is told of whose allocation a slab's pages were."""


def draw(found: SlabAt, paper: Paper, top: int) -> None:
    """The object at an address, its slab, and at most ``top`` of the others in it."""
    now_ns = found.meta.clock_ns or 0
    row = found.object
    if row is None:
        prose(paper, f"address {found.address:#x}: {_untracked(found)}", "bold")
    else:
        inside = found.address - row["address"]
        prose(paper, f"object {row['address']:#x}{f', byte {inside} of it' if inside else ''}",
              "bold")
        for text in _lines(row, found, now_ns):
            prose(paper, printable(text), indent=2)
        for frame in row["stack"].split("\n") if row["stack"] else ():
            paper.line(f"    {printable(frame)}")
    room = f" of {found.room}" if found.room else ""
    followed = len(found.others) + (row is not None)
    prose(paper, f"slab at {found.start:#x}: {count_of(found.pages, 'page')} from pfn"
                 f" {found.first:#x} on, {followed}{room}"
                 f" {'object' if followed == 1 else 'objects'} tracked{_share(found)}", "bold")
    for block in found.made:
        made = ("made before tracking began" if block["state"] == "early" else
                f"made by {_task(block)}{_when(block, now_ns)}")
        prose(paper, printable(made), indent=2)
    if found.others:
        paper.line()
        _others(found.others[:top], found, now_ns, paper)
        if len(found.others) > top:
            paper.line(f"and {count_of(len(found.others) - top, 'more object')}", "dim")


def _untracked(found: SlabAt) -> str:
    if found.share > 1:
        return f"no tracked object; one in {found.share} is tracked"
    return "no tracked object: free, or allocated before tracking began or past every hook"


def _share(found: SlabAt) -> str:
    return "" if found.share == 1 else f" (one in {found.share} is)"


def _lines(row: dict[str, Any], found: SlabAt, now_ns: int) -> list[str]:
    from pageowner.analysis.subsystems import subsystem

    asked = f", {row['requested']} asked for" if row["requested"] else ""
    lines = [f"cache {row['cache'] or UNKNOWN}, {count_of(row['amount'] // found.share, 'byte')}"
             f"{asked}", f"allocated by {_task(row)}{_when(row, now_ns)}"]
    if row["gfp_mask"]:
        lines.append(f"gfp mask {row['gfp_mask']:#x} ({row['gfp_flags']})")
    return [*lines, f"for: {subsystem(row['stack'] or '')}"]


def _task(row: dict[str, Any]) -> str:
    if row["pid"] is None:
        return "an unknown task"
    return f"pid {row['tgid']}, tid {row['pid']} ({row['comm']})"


def _when(row: dict[str, Any], now_ns: int) -> str:
    return "" if row["ts_ns"] is None else (
        f" at {row['ts_ns'] / 1e9:.6f} s after boot, {age(now_ns - row['ts_ns'])} ago")


def _others(rows: list[dict[str, Any]], found: SlabAt, now_ns: int, paper: Paper) -> None:
    draw_table(paper, [
        Column("OFFSET", [str(row["address"] - found.start) for row in rows]),
        Column("SIZE", [size(row["amount"] // found.share) for row in rows]),
        Column("AGE", [age(now_ns - row["ts_ns"]) for row in rows]),
        Column("TASK", [printable(row["comm"] or UNKNOWN) for row in rows], True),
        Column("STACK", one_line_each([row["stack"] for row in rows], UNKNOWN, PIPE_WIDTH), True)])


def document(found: SlabAt) -> dict[str, Any]:
    """The same for JSON; addresses as hexadecimal texts, since most readers of JSON round numbers
    of 64 bits."""
    def apart(row: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if row is None else {
            "address": f"{row['address']:#x}", "cache": row["cache"],
            "bytes": row["amount"] // found.share, "requested": row["requested"],
            "pid": row["pid"], "tgid": row["tgid"], "comm": row["comm"], "ts_ns": row["ts_ns"],
            "gfp_flags": row["gfp_flags"],
            "stack": None if row["stack"] is None else row["stack"].split("\n")}

    return {"address": f"{found.address:#x}", "object": apart(found.object), "share": found.share,
            "slab": {"address": f"{found.start:#x}", "pfn": found.first, "pages": found.pages,
                     "room": found.room or None,
                     "made": [{name: block[name] for name in _MAKER} for block in found.made]},
            "others": [apart(row) for row in found.others]}
