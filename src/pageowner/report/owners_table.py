"""Owners as a table for people, or as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.report.grid import prose
from pageowner.report.text import age, count, count_of, printable, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.analysis.ranking import Nameless, Shown
    from pageowner.metadata import Metadata
    from pageowner.report.terminal import Paper

__all__ = ["draw", "draw_full", "to_json"]

UNKNOWN = "-"
_WHAT = "WHAT"

_WIDE, _WIDER = 100, 130
_NARROW = ("pid", "tgid", "order", "zone", "node", "state", "migratetype", "block")


def _titles(names: Sequence[str]) -> list[str]:
    return [name.upper() for name in names]


def _cells(values: list[Any], name: str, kind: str) -> list[str]:
    if name == "stack":
        # A stack in one line: the frame that explains it, then who called that.
        missing = ("(no stack: allocated before tracking, or past every hook)"
                   if kind == "tracker" else "(no stack in the dump)")
        from pageowner.analysis.subsystems import short_stack

        values = [missing if stack is None else short_stack(stack, 6) for stack in values]
    return [UNKNOWN if value is None else printable(str(value)) for value in values]


def summary(meta: Metadata, pages: int, blocks: int, owners: int, by: Sequence[str]) -> str:
    """One line on what is shown: where from, how much, by what."""
    what = {"page_owner": "page_owner dump", "tracker": "live"}.get(meta.kind, meta.kind)
    kernel = f", kernel {meta.kernel}" if meta.kernel else ""
    named = meta.source if meta.kind != "tracker" else (meta.host or "this machine")
    return (f"{printable(f'{named} ({what}{kernel})')}: {size(pages * meta.page_size)} in"
            f" {count_of(pages, 'page')}, {count_of(blocks, 'block')};"
            f" {count_of(owners, 'owner')} by {', '.join(by)}")


def draw(shown: Shown, by: Sequence[str], meta: Metadata, now_ns: int | None,
         paper: Paper) -> None:
    """A table that fits the paper: sizes first, the keys last, the rest and a total below."""
    table, width = shown.owners, paper.width
    pages, blocks = table["pages"], table["blocks"]
    all_pages, all_blocks = sum(pages) + shown.rest_pages, sum(blocks) + shown.rest_blocks
    columns: list[tuple[str, str, list[str]]] = [
        ("SIZE", "right", [size(n * meta.page_size) for n in pages]),
        ("PAGES", "right", [count(n) for n in pages]),
        ("%", "right", [f"{100 * share:.1f}" for share in table["share"]])]
    if width >= _WIDE:
        columns.append(("BLOCKS", "right", [count(n) for n in blocks]))
    if width >= _WIDER and now_ns is not None:
        for title, name in (("OLDEST", "oldest_ns"), ("NEWEST", "newest_ns")):
            columns.append((title, "right", [
                UNKNOWN if ts is None else age(max(now_ns - ts, 0))
                for ts in table[name]]))
    if "stack" in by and "subsystem" not in by:
        from pageowner.analysis.subsystems import subsystem

        columns.append((_WHAT, "left", [
            UNKNOWN if stack is None else printable(subsystem(stack))
            for stack in table["stack"]]))
    columns += [(title, "right" if name in ("pid", "tgid", "order", "node") else "left",
                 _cells(table[name], name, meta.kind))
                for title, name in zip(_titles(by), by, strict=True)]

    widths = _widths(columns, by, width)
    prose(paper, summary(meta, all_pages, all_blocks, shown.number + shown.rest_owners, by))
    paper.line()
    paper.line(_line([title for title, _, _ in columns], columns, widths), "bold underline")
    for row in zip(*(cells for _, _, cells in columns), strict=True):
        paper.line(_line(row, columns, widths))
    if shown.rest_owners:
        share = 100 * shown.rest_pages / all_pages if all_pages else 0.0
        paper.line(
            f"and {count_of(shown.rest_owners, 'more owner')}:"
            f" {size(shown.rest_pages * meta.page_size)},"
            f" {count_of(shown.rest_pages, 'page')}, {share:.1f} %", "dim")


    if meta.kind == "tracker" and None in table.get("stack", ()):
        prose(paper, "Pages without a stack by what they are: --by subsystem; without them:"
              " --state owned", "dim")


def _line(cells: Sequence[str], columns: Sequence[tuple[str, str, list[str]]],
          widths: Sequence[int]) -> str:
    """One row, every cell cut or filled to its column's width in terminal cells."""
    from rich.cells import cell_len, set_cell_size

    parts = []
    for cell, (_, side, _), wide in zip(cells, columns, widths, strict=True):
        if cell_len(cell) > wide:
            cell = set_cell_size(cell, max(wide - 1, 0)) + "…"
        space = " " * (wide - cell_len(cell))
        parts.append(space + cell if side == "right" else cell + space)
    return "  ".join(parts).rstrip()


def _widths(columns: Sequence[tuple[str, str, list[str]]], by: Sequence[str],
            width: int) -> list[int]:
    """Numbers get what they need; what is left is shared by the texts, the longest giving way."""
    from rich.cells import cell_len

    wanted = [max([len(title), *map(cell_len, cells)]) for title, _, cells in columns]
    texts = [place for place, (title, _, _) in enumerate(columns)
             if title == _WHAT or (title.lower() in by and title.lower() not in _NARROW)]
    left = width - 2 * (len(columns) - 1) - sum(
        wide for place, wide in enumerate(wanted) if place not in texts)
    for place in sorted(texts, key=lambda place: wanted[place]):
        title = columns[place][0]
        share = max(left // max(len(texts), 1), 8)
        if title == _WHAT:
            share = min(share, max(16, width // 6))
        wanted[place] = min(wanted[place], share)
        left -= wanted[place]
        texts = texts[1:]
    return wanted


def draw_full(shown: Shown, by: Sequence[str], meta: Metadata, now_ns: int | None,
              paper: Paper, without: Nameless) -> None:
    """Every owner with its whole stack, one below the other; ``without``: those of no known key."""
    from pageowner.analysis.subsystems import distinctive_frame, subsystem

    table = shown.owners
    total = sum(table["pages"]) + shown.rest_pages + without.pages
    blocks = sum(table["blocks"]) + shown.rest_blocks + without.blocks
    owners = shown.number + shown.rest_owners + without.owners
    prose(paper, summary(meta, total, blocks, owners, by))
    why = (": allocated before tracking, or past every hook" if meta.kind == "tracker" else
           " in the dump")
    if without.pages:
        more = "; what they are: --by subsystem" if meta.kind == "tracker" else ""
        paper.line()
        prose(paper, f"{size(without.pages * meta.page_size)}, {count_of(without.pages, 'page')}"
              f" ({100 * without.pages / total:.1f} %) in {count_of(without.blocks, 'block')} have"
              f" no stack{why}{more}", "yellow")
    for row in shown.rows():
        paper.line()
        times = "" if row["oldest_ns"] is None or now_ns is None else (
            f", {age(max(now_ns - row['newest_ns'], 0))} to"
            f" {age(max(now_ns - row['oldest_ns'], 0))} old")
        named = "".join(f", {name} {printable(str(row[name]))}" for name in by
                        if name != "stack" and row[name] is not None)
        paper.line(
            f"{size(row['pages'] * meta.page_size)}, {count_of(row['pages'], 'page')}"
            f" ({100 * row['share']:.1f} %) in {count_of(row['blocks'], 'block')}{named}{times}",
            "bold")
        stack = row["stack"]
        if stack is None:
            prose(paper, f"no stack{why}", indent=2)
            continue
        paper.line(f"  {printable(subsystem(stack))}")
        telling = distinctive_frame(stack)
        for frame in stack.split("\n"):
            here = distinctive_frame(frame)  # of one frame: it itself, in the same words
            paper.line(f"    {printable(frame)}", "bold yellow" if here == telling else "")
    if shown.rest_owners:
        paper.line()
        paper.line(f"and {count_of(shown.rest_owners, 'more owner')}:"
                   f" {count_of(shown.rest_pages, 'page')}")


def to_json(shown: Shown, by: Sequence[str], meta: Metadata) -> dict[str, Any]:
    """The same facts for programs: sizes in bytes, times in ns since boot, stacks as lists."""
    table = shown.owners
    owners = shown.rows()
    for owner in owners:
        owner["bytes"] = owner["pages"] * meta.page_size
        if owner.get("stack") is not None:
            owner["stack"] = owner["stack"].split("\n")
    pages = sum(table["pages"]) + shown.rest_pages
    return {
        "source": meta.source, "kind": meta.kind, "kernel": meta.kernel,
        "page_size": meta.page_size, "by": list(by), "pages": pages,
        "blocks": sum(table["blocks"]) + shown.rest_blocks,
        "bytes": pages * meta.page_size, "owners": owners,
        "rest": {"owners": shown.rest_owners, "pages": shown.rest_pages,
                 "blocks": shown.rest_blocks},
        "frames": meta.frames, "counters": meta.counters}
