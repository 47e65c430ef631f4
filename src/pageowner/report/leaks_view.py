"""What leaks, as a table for people, or as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pageowner.analysis.leak_rules import STEADY
from pageowner.analysis.leaks import KINDS
from pageowner.report.json_text import Json
from pageowner.report.leak_suspects import growth, stays, why_no_leak
from pageowner.report.stack_lines import one_line_each
from pageowner.report.table import Column, draw_table
from pageowner.report.terminal import PIPE_WIDTH
from pageowner.report.text import UNKNOWN, age, count_of, printable, size
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from pageowner.analysis.leaks import Watched
    from pageowner.report.terminal import Paper

__all__ = ["draw", "to_json"]

_WIDE, _WIDER = 100, 140
_FRAMES = 8
_REASON = 30
"""Characters of reasons that are shown whole, also where there is little room."""
_SHARE = 5
"""Per cent: who has less of a leak is not named."""


def _full_in(row: dict[str, Any], watched: Watched) -> float | None:
    """Hours until memory is exhausted at this rate."""
    if watched.available is None or row["rate"] <= 0:
        return None
    return float(watched.available / row["rate"])


def _names(rows: list[dict[str, Any]], name: str, tell_program: bool) -> list[str]:
    values = [row[name] for row in rows]
    names = one_line_each(values, "", PIPE_WIDTH) if name == "stack" else [
        printable(str(value)) for value in values]
    return [(printable(f"({row['note']})") if row["note"] and value is None else
             UNKNOWN if value is None else shown)
            + (printable(_of_program(row)) if tell_program else "")
            for row, value, shown in zip(rows, values, names, strict=True)]


def _what(row: dict[str, Any]) -> str:
    from pageowner.analysis.subsystems import subsystem

    if row["stack"] is None:
        return UNKNOWN
    return printable(subsystem(row["stack"]) + _of_program(row))


def _of_program(row: dict[str, Any]) -> str:
    return f" of {row['program']}" if row["program"] else ""


def _table(rows: list[dict[str, Any]], watched: Watched, paper: Paper) -> None:
    unit = watched.page_size
    columns = [
        Column("PER HOUR", [size(row["rate"] * unit) for row in rows]),
        Column("GAINED", [size(row["gained"] * unit) for row in rows]),
        Column("CONFIDENCE", [f"{100 * row['confidence']:.0f} %" for row in rows])]
    if paper.width >= _WIDER:
        columns.insert(1, Column("95 % INTERVAL", [
            f"{size(row['rate_low'] * unit)} to {size(row['rate_high'] * unit)}" for row in rows]))
    if paper.width >= _WIDE:
        columns += [
            Column("SURVIVAL", [UNKNOWN if row["survival"] is None else
                             f"{100 * row['survival']:.0f} %" for row in rows]),
            Column("SIZE", [size(row["pages"] * unit) for row in rows])]
    if watched.available is not None and rows[0]["kind"] == "leak":
        full_in = [_full_in(row, watched) for row in rows]
        columns.append(Column("FULL IN", [
            UNKNOWN if hours is None else _far(hours) for hours in full_in]))
    draw_table(paper, [*columns, *_owner_columns(rows, watched)])


def _more(rows: list[dict[str, Any]], watched: Watched, paper: Paper) -> None:
    """Below a table, what it has no room for."""
    if rows:
        rate = size(sum(row["rate"] for row in rows) * watched.page_size)
        paper.line(f"and {count_of(len(rows), 'more owner')}: {rate} an hour", "dim")


def _owner_columns(rows: list[dict[str, Any]], watched: Watched) -> list[Column]:
    """What it is, and the keys."""
    columns: list[Column] = []
    # Whose memory it is stands with what it is, else with the last key.
    if "stack" in watched.by and "subsystem" not in watched.by:
        columns.append(Column("WHAT", [_what(row) for row in rows], True))
        tell = None
    else:
        tell = watched.by[-1]
    return columns + [Column(name.upper(), _names(rows, name, name == tell), True)
                      for name in watched.by]


def _suspects(rows: list[dict[str, Any]], watched: Watched, top: int, paper: Paper) -> None:
    """Who grew and fails a rule, those of whom most stays first."""
    shown = rows[:top]
    paper.line()
    prose(paper, f"{count_of(len(rows), 'suspect')}: {'it' if len(rows) == 1 else 'they'} grew, but"
                 " not as a leak does", "bold")
    columns = [Column("GAINED", [size(row["gained"] * watched.page_size) for row in shown]),
               Column("STAYS", [stays(row, watched.page_size) for row in shown])]
    if paper.width >= _WIDE:
        columns.append(Column("GROWTH", [growth(row["series"]) for row in shown], True, False))
    reasons = [why_no_leak(row) for row in shown]
    columns.append(Column("WHY NO LEAK", reasons, True, max(map(len, reasons)) > _REASON))
    draw_table(paper, columns + _owner_columns(shown, watched))
    if len(rows) > top:
        gained = sum(row["gained"] for row in rows[top:])
        paper.line(f"and {count_of(len(rows) - top, 'more suspect')}:"
                   f" {size(gained * watched.page_size)}", "dim")


def _each(rows: list[dict[str, Any]], watched: Watched, paper: Paper, full: bool) -> None:
    """Below the table: who allocated what leaks, and from where, as far as columns have no room."""
    paths = one_line_each([row.get("stack") for row in rows], "", PIPE_WIDTH, _FRAMES)
    for row, path in zip(rows, paths, strict=True):
        stack = row.get("stack")
        tasks = _by_whom(row, watched)
        if stack is None and not tasks:
            continue
        paper.line()
        what = f", {_what(row)}" if "stack" in watched.by else ""
        if row["steady"] < STEADY:
            what += f", in {count_of(row['bursts'], 'burst')}"
        prose(paper, f"{size(row['rate'] * watched.page_size)} an hour{what}", "bold")
        if tasks:
            prose(paper, tasks, indent=4)
        if stack is not None and full:
            for frame in stack.split("\n"):
                paper.line(f"    {printable(frame)}")
        elif stack is not None:
            prose(paper, path, indent=4)
        if row.get("with"):
            prose(paper, _with(row, watched), "dim", indent=4)


def _with(row: dict[str, Any], watched: Watched) -> str:
    """What else is part of a leak (`pageowner.analysis.one_leak`)."""
    from pageowner.analysis.subsystems import distinctive_frame, subsystem

    parts = [f"{subsystem(part['stack'])} of {distinctive_frame(part['stack'])}"
             f" ({size(part['gained'] * watched.page_size)})" for part in row["with"]]
    return printable(f"with it: {', '.join(parts)}")


def _by_whom(row: dict[str, Any], watched: Watched) -> str:
    """The tasks that allocated what came since, with their share of it."""
    if {"pid", "tid"} & set(watched.by):
        return ""
    tasks = []
    for task in row["tasks"]:
        if task["tgid"] is None:
            continue
        share = 100 * task["pages"] / row["came"]
        if share < _SHARE:
            continue
        command = (watched.commands or {}).get(task["tgid"])
        tasks.append(f"{printable(task['comm'] or '?')} (pid {task['tgid']}"
                     + (f": {printable(command)}" if command else "") + f") {share:.0f} %")
    return f"by {', '.join(tasks)}" if tasks else ""


def _far(hours: float) -> str:
    return "years" if hours > 24 * 365 else age(hours * 3600e9)


def draw(rows: list[dict[str, Any]], watched: Watched, top: int, full: bool, paper: Paper) -> None:
    """Leaks; then growing cache that can be reclaimed; then suspects."""
    unit = watched.page_size
    room = ("" if watched.available is None else
            f"; {size(watched.available * unit)} {watched.room}")
    earlier = ("" if not watched.earlier else
               f"; {count_of(watched.earlier, 'earlier capture')}, of another boot or time of"
               " tracking, left out")
    times = f"; times from {watched.times_from}" if watched.times_from else ""
    prose(paper, f"{printable(watched.name)}: {count_of(watched.looks, 'look')} in"
                 f" {age(watched.seconds * 1e9)}, {count_of(watched.owners, 'owner')} by"
                 f" {', '.join(watched.by)}{room}{times}{earlier}")
    paper.line()
    leaks = [row for row in rows if row["kind"] == "leak"]
    if not leaks:
        prose(paper, "No leak: no owner's pages grew steadily or in bursts, and stayed.", "bold")
    else:
        _table(leaks[:top], watched, paper)
        _more(leaks[top:], watched, paper)
        if len(leaks) > 1:
            together = {"rate": sum(row["rate"] for row in leaks)}
            hours = _full_in(together, watched)
            paper.line(f"Together {size(together['rate'] * unit)} an hour"
                       + ("" if hours is None else f"; memory is full in {_far(hours)}"))
        _each(leaks[:top], watched, paper, full)
        if any(row["program"] for row in leaks):
            paper.line()
            prose(paper, "Growth of a process's own memory can be intended: a program that is"
                         " still filling its caches looks like a leak. Watch longer than that"
                         " takes.", "dim")
    if watched.untracked and any(row["note"] for row in leaks):
        kinds = ", ".join(f"{what} {size(pages * unit)}" for what, pages in
                          sorted(watched.untracked.items(), key=lambda kind: -kind[1])[:4] if pages)
        prose(paper, f"Untracked pages now, by page flags: {kinds}", "dim")
    cache = [row for row in rows if row["kind"] == "reclaimable"]
    if cache:
        paper.line()
        paper.line("Also grows, but is cache that the kernel reclaims when memory is short:",
                   "bold")
        _table(cache[:top], watched, paper)
        _more(cache[top:], watched, paper)
    suspects = [row for row in rows if row["kind"] == "grows"]
    if suspects:
        _suspects(suspects, watched, top, paper)


def to_json(rows: list[dict[str, Any]], watched: Watched, top: int | None = None) -> Json:
    """The same facts, and the series, for programs: sizes in bytes, rates per hour; the first
    ``top`` owners of each kind (all if None)."""
    if top is not None:
        rows = [row for kind in KINDS for row in [row for row in rows if row["kind"] == kind][:top]]
    owners = []
    for row in rows:
        owner = {name: row[name] for name in watched.by}
        if owner.get("stack") is not None:
            owner["stack"] = owner["stack"].split("\n")
        for name in ("pages", "gained"):
            owner[name] = row[name]
        owner["bytes"] = row["pages"] * watched.page_size
        for name in ("rate", "rate_low", "rate_high"):
            owner[f"bytes_per_hour{name[4:]}"] = row[name] * watched.page_size
        hours = _full_in(row, watched)
        owner["exhausted_in_s"] = None if hours is None else hours * 3600
        for name in ("settled", "stayed"):
            owner[f"{name}_bytes"] = (None if row[name] is None else
                                      row[name] * watched.page_size)
        for name in ("kind", "failed", "note", "program", "came", "tasks", "p", "tau", "survival",
                     "steady", "bursts", "confidence", "series", "settled_series"):
            owner[name] = row[name]
        owner["with"] = [{"stack": part["stack"].split("\n"), "gained": part["gained"]}
                         for part in row.get("with") or ()]
        owners.append(owner)
    return Json({"source": watched.name, "seconds": watched.seconds,
            "times_from": watched.times_from or None, "looks": watched.looks,
            "earlier": watched.earlier, "watched_owners": watched.owners,
            "by": list(watched.by), "page_size": watched.page_size,
            "available": None if watched.available is None else
            watched.available * watched.page_size,
            "untracked": watched.untracked, "owners": owners})
