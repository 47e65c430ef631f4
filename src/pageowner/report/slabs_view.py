"""Slabs that few objects keep, as a table for people, or as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.report.json_text import Json
from pageowner.report.objects_view import about_objects
from pageowner.report.stack_lines import one_line_each
from pageowner.report.table import Column, draw_table
from pageowner.report.terminal import PIPE_WIDTH
from pageowner.report.text import UNKNOWN, count, count_of, printable, size, titled
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from pageowner.analysis.sparse_slabs import Sparse
    from pageowner.model.metadata import Metadata
    from pageowner.report.terminal import Paper

__all__ = ["draw", "to_json"]


def draw(found: Sparse, meta: Metadata, unit: int, top: int, paper: Paper) -> None:
    """Whose objects keep which slabs, most pages first; a page has ``unit`` bytes."""
    rows = found.owners.to_pylist()
    pages, number = (sum(row[name] for row in rows) for name in ("pages", "slabs"))
    prose(paper, f"{titled(meta)}: {size(pages * unit)} in {count_of(number, 'slab')} that"
                 " are at most half full and kept by objects of one owner each")
    shown = rows[:top]
    if shown:
        paper.line()
        draw_table(paper, [
            Column("SIZE", [size(row["pages"] * unit) for row in shown]),
            Column("SLABS", [count(row["slabs"]) for row in shown]),
            Column("OBJECTS", [count(row["objects"]) for row in shown]),
            Column("FULL", [f"{100 * row['objects'] / row['room']:.0f} %" for row in shown]),
            Column("CACHE", [printable(row["cache"] or UNKNOWN) for row in shown], True),
            Column("STACK", one_line_each([row["stack"] for row in shown], UNKNOWN, PIPE_WIDTH),
                   True)])
        if len(rows) > top:
            rest = sum(row["pages"] for row in rows[top:])
            paper.line(f"and {count_of(len(rows) - top, 'more owner')}: {size(rest * unit)}", "dim")
    for pages, what in ((found.shared, "at most half full with objects of several owners"),
                        (found.full, "more than half full"),
                        (found.early, "older than tracking, so that not all their objects are"
                                      " known")):
        if pages:
            prose(paper, f"{size(pages * unit)} in slabs that are {what}", "dim")
    for line in about_objects(meta):
        prose(paper, line, "dim")


def to_json(found: Sparse, meta: Metadata, unit: int, top: int | None = None) -> Json:
    """The same facts for programs, of all owners if ``top`` is None: sizes in bytes, stacks as
    lists."""
    owners = [{"cache": row["cache"],
               "stack": None if row["stack"] is None else row["stack"].split("\n"),
               "bytes": row["pages"] * unit, **{name: row[name] for name in (
                   "slabs", "pages", "objects", "room")}} for row in found.owners.to_pylist()[:top]]
    return Json({"page_size": unit, "owners": owners, "owners_in_all": found.owners.num_rows,
                 "shared_pages": found.shared, "full_pages": found.full,
                 "early_pages": found.early, **meta.as_read()},
                rows="owners")
