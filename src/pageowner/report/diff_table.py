"""What changed between two moments, as a table for people, or as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.analysis.diff import BECAME
from pageowner.model.handle_names import is_handle_name
from pageowner.model.source_kinds import kind_of
from pageowner.report.amounts import counts, for_programs, only_known
from pageowner.report.json_text import Json
from pageowner.report.key_columns import key_columns
from pageowner.report.objects_view import estimated
from pageowner.report.table import Column, draw_table
from pageowner.report.text import count, count_of, printable, size
from pageowner.report.wrapping import entry, prose

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pageowner.analysis.diff import Side
    from pageowner.model.metadata import Metadata
    from pageowner.report.terminal import Paper

__all__ = ["draw", "to_json"]

_WIDE = 100


def signed(pages: int, page_size: int) -> str:
    """``+1.5 MiB``, ``-4 KiB``, ``0 B``."""
    return ("+" if pages > 0 else "-" if pages < 0 else "") + size(abs(pages) * page_size)


def _sums(changes: dict[str, list[Any]], rows: slice) -> dict[str, int]:
    """Owners, and pages gained and lost, of some rows; how many owners of each fate."""
    became = changes["became"][rows]
    return {"owners": len(became), "gained": sum(changes["gained"][rows]),
            "lost": sum(changes["lost"][rows]), **{fate: became.count(fate) for fate in BECAME}}


def draw(changes: pa.Table, top: int | None, by: Sequence[str], before: Side, after: Side,
         full: bool, paper: Paper) -> None:
    """The first ``top`` owners that changed (all if None) and the sum of the others."""
    table, page_size = changes.to_pydict(), after.meta.page_size
    for title, side in (("before", before), ("after", after)):
        entry(paper, f"{title + ':':8}", f"{side.name}: {size(side.pages * page_size)} in"
              f" {counts(side.meta, side.pages, side.blocks)}")
    every = _sums(table, slice(None))
    if not every["owners"]:
        paper.line(f"no owner has more or fewer pages, by {', '.join(by)}")
        return
    fates = ", ".join(f"{count(every[fate])} {fate}" for fate in BECAME if every[fate])
    prose(paper, f"change: {signed(every['gained'] - every['lost'], page_size)}:"
          f" {size(every['gained'] * page_size)} gained, {size(every['lost'] * page_size)}"
          f" lost; {count_of(every['owners'], 'owner')} by {', '.join(by)}: {fates}")
    for text in dict.fromkeys(map(estimated, (before.meta, after.meta))):
        if text:
            prose(paper, f"{text}.", "dim")
    paper.line()
    shown = {name: column[:top] for name, column in table.items()}
    if full:
        _draw_full(shown, by, before.meta, after.meta, paper)
    else:
        _draw_rows(shown, by, before.meta, after.meta, paper)
    rest = _sums(table, slice(len(shown["became"]), None))
    if rest["owners"]:
        if full:
            paper.line()
        prose(paper, f"and {count_of(rest['owners'], 'more owner')}:"
                     f" {size(rest['gained'] * page_size)} gained,"
                     f" {size(rest['lost'] * page_size)} lost", "dim")


def _draw_rows(table: dict[str, list[Any]], by: Sequence[str], old: Metadata, meta: Metadata,
               paper: Paper) -> None:
    change = [gained - lost for gained, lost in zip(table["gained"], table["lost"], strict=True)]
    columns = [
        Column("CHANGE", [signed(pages, meta.page_size) for pages in change]),
        Column("BEFORE", [size(pages * meta.page_size) for pages in table["pages_before"]]),
        Column("AFTER", [size(pages * meta.page_size) for pages in table["pages_after"]])]
    if paper.width >= _WIDE:
        if kind_of(meta).in_pages:
            columns.insert(1, Column("PAGES", [f"{pages:+,}" for pages in change]))
        if kind_of(meta).block and kind_of(old).block:
            columns.append(Column(f"{kind_of(meta).block.upper()}S", [
                f"{new - old:+,}" for old, new in zip(
                    table["blocks_before"], table["blocks_after"], strict=True)]))
    columns.append(Column("NOW", table["became"], text=True, flexible=False))
    draw_table(paper, [*columns, *key_columns(table, by, meta.kind)])


def _draw_full(table: dict[str, list[Any]], by: Sequence[str], old: Metadata, meta: Metadata,
               paper: Paper) -> None:
    from pageowner.analysis.subsystems import distinctive_frame, subsystem

    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    for number, row in enumerate(rows):
        if number:
            paper.line()
        named = "".join(f", {name} {printable(str(row[name]))}" for name in by
                        if name != "stack" and row[name] is not None)
        paper.line(f"{signed(row['gained'] - row['lost'], meta.page_size)} ({row['became']}):"
                   f" {counts(old, row['pages_before'], row['blocks_before'])} before,"
                   f" {counts(meta, row['pages_after'], row['blocks_after'])} after{named}",
                   "bold")
        if row["stack"] is None:
            paper.line("  no stack known")
            continue
        if is_handle_name(row["stack"]):
            paper.line(f"  {printable(row['stack'])}, of an unknown stack")
            continue
        paper.line(f"  {printable(subsystem(row['stack']))}")
        telling = distinctive_frame(row["stack"])
        for frame in row["stack"].split("\n"):
            paper.line(f"    {printable(frame)}", "telling" if frame == telling else "")


def to_json(changes: pa.Table, top: int | None, by: Sequence[str], before: Side,
            after: Side) -> Json:
    """The same facts for programs: sizes in pages and bytes, stacks as lists of functions."""
    table, page_size = changes.to_pydict(), after.meta.page_size
    in_pages = kind_of(after.meta).in_pages
    owners = [dict(zip(table, row[:], strict=True))
              for row in list(zip(*table.values(), strict=True))[:top]]
    for owner in owners:
        owner["bytes"] = (owner["gained"] - owner["lost"]) * page_size
        if owner.get("stack") is not None:
            owner["stack"] = owner["stack"].split("\n")
        if not in_pages:
            owner |= {f"bytes_{when}": owner[f"pages_{when}"] * page_size
                      for when in ("before", "after")}
        only_known(only_known(owner, before.meta, "_before"), after.meta, "_after")
        if not in_pages:
            owner |= {"gained": None, "lost": None}

    def sums(rows: slice) -> dict[str, Any]:
        found = _sums(table, rows)
        if not in_pages:
            found |= {f"bytes_{what}": found[what] * page_size for what in ("gained", "lost")}
        return only_known(found, after.meta)

    return Json({
        **{title: {"name": side.name, "source": side.meta.source, "kind": side.meta.kind,
                   "kernel": side.meta.kernel, "taken_at": side.meta.taken_at,
                   **for_programs(side.meta, side.pages, side.blocks),
                   "bytes": side.pages * page_size, **side.meta.as_read()}
           for title, side in (("before", before), ("after", after))},
        "page_size": page_size, "by": list(by), **sums(slice(None)),
        "changes": owners, "rest": sums(slice(len(owners), None))})
