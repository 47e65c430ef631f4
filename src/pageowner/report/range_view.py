"""A range of page frames: a line for each block that has a part in it, and what lies between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.report import page_view
from pageowner.report.table import Column, draw_table
from pageowner.report.text import UNKNOWN, count, count_of, printable, size
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from pageowner.model.snapshot import Metadata
    from pageowner.report.terminal import Paper

__all__ = ["document", "draw"]


def draw(first: int, last: int, rows: list[dict[str, Any]], meta: Metadata, paper: Paper,
         top: int) -> None:
    """Write the blocks from ``first`` to ``last``, both included, at most ``top`` of them, in the
    order of their frames, and sums by state."""
    rows = sorted(rows, key=lambda row: row["pfn"])
    pages = last + 1 - first
    sums: dict[str, int] = {}
    for row in rows:
        state = row["state"] or "owned"
        sums[state] = sums.get(state, 0) + _inside(row, first, last)
    sums["without an owner"] = pages - sum(sums.values())
    states = ", ".join(f"{count(number)} {printable(state)}" for state, number in sums.items()
                       if number > 0)
    prose(paper, f"pfn {first:#x} to {last:#x}, both included: {count_of(pages, 'page')},"
                 f" {size(pages * meta.page_size)}: {states}", "bold")
    if not rows:
        return
    from pageowner.analysis.subsystems import distinctive_frame, subsystem

    shown = rows[:top]
    # Dumps before 5.18 know the thread alone.
    known = any(row["tgid"] is not None for row in shown)
    task, column = ("PID", "tgid") if known else ("TID", "pid")
    draw_table(paper, [
        Column("PFN", [f"{row['pfn']:#x}" for row in shown]),
        Column("PAGES", [count(1 << row["order"]) for row in shown]),
        Column("STATE", [printable(row["state"] or "owned") for row in shown], True),
        Column(task, [UNKNOWN if row[column] is None else str(row[column]) for row in shown]),
        Column("COMM", [UNKNOWN if row["comm"] is None else printable(row["comm"])
                        for row in shown], True),
        Column("FOR", [_use(row, subsystem) for row in shown], True),
        Column("FRAME", [
            UNKNOWN if row["stack"] is None else printable(distinctive_frame(row["stack"]))
            for row in shown], True),
        *([Column("NOW", [UNKNOWN if row["user"] is None else printable(row["user"])
                          for row in shown], True)]
          if any(row["user"] is not None for row in shown) else [])])
    if len(rows) > top:
        rest = sum(_inside(row, first, last) for row in rows[top:])
        prose(paper, f"and {count_of(len(rows) - top, 'block')} more: {count_of(rest, 'page')}"
                     f" (--top {len(rows)} shows all)")


def _inside(row: dict[str, Any], first: int, last: int) -> int:
    begin, end = max(row["pfn"], first), min(row["pfn"] + (1 << row["order"]), last + 1)
    return int(end - begin)


def _use(row: dict[str, Any], subsystem: Any) -> str:
    if row["stack"] is not None:
        return printable(subsystem(row["stack"]))
    if row["page_flags"] is not None:
        from pageowner.kernel import pageflags

        return printable(pageflags.names(row["page_flags"]) or UNKNOWN)
    return UNKNOWN


def document(first: int, last: int, rows: list[dict[str, Any]],
             top: int | None = None) -> dict[str, Any]:
    """The same for JSON: ``{"first": N, "last": N, "blocks": [row, …], "blocks_in_all": N}``, with
    the first ``top`` blocks."""
    return {"first": first, "last": last, "blocks_in_all": len(rows),
            "blocks": page_view.document(first, rows[:top])["blocks"]}
