"""Owners as a table for people, or as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.analysis.ranking import Shown, head, rows
from pageowner.model.handle_names import is_handle_name
from pageowner.model.source_kinds import OBJECTS, kind_of
from pageowner.model.unexplained import gone_owners, in_words
from pageowner.model.user_names import is_user_name, user_of
from pageowner.report.amounts import counts, for_programs, only_known
from pageowner.report.json_text import Json
from pageowner.report.key_columns import key_columns
from pageowner.report.objects_view import about_objects
from pageowner.report.table import Column, draw_table
from pageowner.report.text import UNKNOWN, age, count, count_of, printable, size, titled
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.analysis.ranking import Nameless
    from pageowner.model.metadata import Metadata
    from pageowner.report.terminal import Paper

__all__ = ["draw", "draw_full", "to_json"]

_WIDE, _WIDER = 100, 130


def summary(meta: Metadata, pages: int, blocks: int, owners: int, by: Sequence[str]) -> str:
    """One line on what is shown: where from, how much, by what."""
    return (f"{titled(meta)}: {size(pages * meta.page_size)} in"
            f" {counts(meta, pages, blocks)};"
            f" {count_of(owners, 'owner')} by {', '.join(by)}")


def draw(shown: Shown, by: Sequence[str], meta: Metadata, now_ns: int | None,
         paper: Paper) -> None:
    """A table that fits the paper: sizes first, the keys last, the rest and a total below."""
    table, width, kind = shown.owners, paper.width, kind_of(meta)
    pages, blocks = table["pages"], table["blocks"]
    all_pages, all_blocks = sum(pages) + shown.rest_pages, sum(blocks) + shown.rest_blocks
    columns = [
        Column("SIZE", [size(number * meta.page_size) for number in pages]),
        *([Column("PAGES", [count(number) for number in pages])] if kind.in_pages else []),
        Column("%", [f"{100 * share:.1f}" for share in table["share"]])]
    if "low" in table:
        columns.append(Column("BETWEEN", [
            f"{size(low)} and {size(high)}"
            for low, high in zip(table["low"], table["high"], strict=True)]))
    if width >= _WIDE and kind.block:
        columns.append(Column(f"{kind.block.upper()}S", [count(number) for number in blocks]))
    if width >= _WIDER and now_ns is not None:
        for title, name in (("OLDEST", "oldest_ns"), ("NEWEST", "newest_ns")):
            columns.append(Column(title, [
                UNKNOWN if ts is None else age(max(now_ns - ts, 0))
                for ts in table[name]]))
    columns += key_columns(table, by, meta.kind)
    prose(paper, summary(meta, all_pages, all_blocks, shown.number + shown.rest_owners, by))
    paper.line()
    draw_table(paper, columns)
    if shown.rest_owners:
        _rest(shown, all_pages, meta, paper)
    if meta.kind == "tracker" and None in table.get("stack", ()):
        prose(paper, "No stack: early pages (in use before tracking began), untracked pages (later,"
              " seen by no hook), and pages whose stack was lost (see status). To see what they"
              " are: --by subsystem; to hide early and untracked: --state owned", "dim")
    if kind.note:
        prose(paper, kind.note, "dim")
    if meta.kind == OBJECTS:
        for line in about_objects(meta):
            prose(paper, line, "dim")
    _doubts(meta, paper)


def _doubts(meta: Metadata, paper: Paper) -> None:
    """What may be wrong with what is shown."""
    for text in (in_words(meta.extra.get("unexplained"), meta.kernel, meta.counters),
                 gone_owners(meta.counters.get("missed_frees", 0))):
        if text:
            prose(paper, printable(text), "warn")


def _rest(shown: Shown, all_pages: int, meta: Metadata, paper: Paper) -> None:
    share = 100 * shown.rest_pages / all_pages if all_pages else 0.0
    pages = f" {count_of(shown.rest_pages, 'page')}," if kind_of(meta).in_pages else ""
    prose(paper, f"and {count_of(shown.rest_owners, 'more owner')}:"
                 f" {size(shown.rest_pages * meta.page_size)},{pages} {share:.1f} %", "dim")


def draw_full(shown: Shown, by: Sequence[str], meta: Metadata, now_ns: int | None,
              paper: Paper, without: Nameless) -> None:
    """Every owner with its whole stack, one below the other; ``without``: those of no known key."""
    from pageowner.analysis.subsystems import distinctive_frame, subsystem

    table = shown.owners
    total = sum(table["pages"]) + shown.rest_pages + without.pages
    blocks = sum(table["blocks"]) + shown.rest_blocks + without.blocks
    owners = shown.number + shown.rest_owners + without.owners
    prose(paper, summary(meta, total, blocks, owners, by))
    why = ": early, untracked, or lost" if kind_of(meta).live else " in the dump"
    if without.pages:
        more = "; what they are: --by subsystem" if meta.kind == "tracker" else ""
        paper.line()
        prose(paper, f"{size(without.pages * meta.page_size)}"
              f" ({100 * without.pages / total:.1f} %) in"
              f" {counts(meta, without.pages, without.blocks)} have no stack{why}{more}", "warn")
    for row in shown.rows():
        paper.line()
        times = "" if row["oldest_ns"] is None or now_ns is None else (
            f", {age(max(now_ns - row['newest_ns'], 0))} to"
            f" {age(max(now_ns - row['oldest_ns'], 0))} old")
        named = "".join(f", {name} {printable(str(row[name]))}" for name in by
                        if name != "stack" and row[name] is not None)
        paper.line(
            f"{size(row['pages'] * meta.page_size)} ({100 * row['share']:.1f} %) in"
            f" {counts(meta, row['pages'], row['blocks'])}{named}{times}",
            "bold")
        stack = row["stack"]
        if stack is None:
            prose(paper, f"no stack{why}", indent=2)
            continue
        if is_user_name(stack):
            state, user = user_of(stack)
            prose(paper, f"no stack: {state}; now {printable(user)}", indent=2)
            continue
        if is_handle_name(stack):
            paper.line(f"  {printable(stack)}, of an unknown stack")
            continue
        paper.line(f"  {printable(subsystem(stack))}")
        telling = distinctive_frame(stack)
        for frame in stack.split("\n"):
            here = distinctive_frame(frame)  # of one frame: it itself, in the same words
            paper.line(f"    {printable(frame)}", "telling" if here == telling else "")
    if shown.rest_owners:
        paper.line()
        _rest(shown, total, meta, paper)
    _doubts(meta, paper)


def to_json(owners: Any, top: int | None, by: Sequence[str], meta: Metadata) -> Json:
    """The same facts for programs: sizes in bytes, times in ns since boot, stacks as lists.
    ``owners`` as for `pageowner.analysis.ranking.head`."""
    rest = head(owners, 0 if top is None else top)
    pages, blocks = (sum(rest.owners[name]) + others for name, others in (
        ("pages", rest.rest_pages), ("blocks", rest.rest_blocks)))
    if top is None:
        rest = Shown({}, 0, 0, 0)

    def shown() -> Iterator[dict[str, Any]]:
        for owner in rows(owners, top):
            owner["bytes"] = owner["pages"] * meta.page_size
            if "low" in owner:
                owner |= {"bytes_low": owner.pop("low"), "bytes_high": owner.pop("high")}
            if is_user_name(owner.get("stack")):
                owner["state"], owner["user"] = user_of(owner["stack"])
                owner["stack"] = None
            if owner.get("stack") is not None:
                owner["stack"] = owner["stack"].split("\n")
            yield only_known(owner, meta)

    return Json({
        "source": meta.source, "kind": meta.kind, "kernel": meta.kernel,
        "page_size": meta.page_size, "by": list(by), **for_programs(meta, pages, blocks),
        "bytes": pages * meta.page_size, "owners": shown(),
        "rest": {"owners": rest.rest_owners,
                 **for_programs(meta, rest.rest_pages, rest.rest_blocks),
                 "bytes": rest.rest_pages * meta.page_size},
        "frames": meta.frames, **meta.as_read()}, rows="owners")
