"""Answers about a fleet, as tables for people, or as JSON for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pageowner.report.json_text import Json
from pageowner.report.key_columns import key_columns
from pageowner.report.table import Column, draw_table
from pageowner.report.text import UNKNOWN, age, count, count_of, printable, size
from pageowner.report.wrapping import prose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.fleet.answers import FleetAnswer
    from pageowner.report.terminal import Paper

__all__ = ["draw_diff", "draw_leaks", "draw_machines", "draw_report", "facts", "to_json"]

_WIDE, _WIDER = 100, 140
_NO_STACK = "tracker"
"""The kind of source whose rows without a stack are called so."""


def _keys(rows: Sequence[dict[str, Any]], by: Sequence[str]) -> list[Column]:
    return key_columns({name: [row[name] for row in rows] for name in by}, by, _NO_STACK)


def _numbers(rows: Sequence[dict[str, Any]], name: str, shown: Callable[[Any], str],
             ) -> list[str]:
    return [shown(row[name]) for row in rows]


def draw_report(rows: list[dict[str, Any]], by: Sequence[str], machines: int, page_size: int,
                top: int | None, paper: Paper) -> None:
    """Owners across machines, and who stands out."""
    small = [row for row in rows if row["small"]]
    rows = [row for row in rows if not row["small"]]
    total = sum(row["pages"] for row in rows) + sum(row["pages"] for row in small)
    prose(paper, f"{count_of(machines, 'machine')}, each as captured last:"
                 f" {size(total * page_size)}; {count_of(len(rows), 'owner')} by {', '.join(by)}")
    paper.line()
    shown = rows[:top]

    def bytes_of(pages: int) -> str:
        return size(pages * page_size)

    columns = [Column("MEDIAN", _numbers(shown, "p50", bytes_of)),
               Column("P99", _numbers(shown, "p99", bytes_of)),
               Column("OUT", [count(row["out"]) if row["out"] else "-" for row in shown])]
    if paper.width >= _WIDE:
        columns.insert(2, Column("MOST", _numbers(shown, "most", bytes_of)))
        columns.insert(0, Column("ALL", _numbers(shown, "pages", bytes_of)))
        columns.insert(1, Column("MACHINES", _numbers(shown, "machines", count)))
    if shown:
        draw_table(paper, columns + _keys(shown, by))
    if len(rows) > len(shown):
        rest = rows[len(shown):]
        prose(paper, f"and {count_of(len(rest), 'more owner')}:"
                     f" {size(sum(row['pages'] for row in rest) * page_size)}", "dim")
    if small:
        prose(paper, f"and owners too small for a row:"
                     f" {size(sum(row['pages'] for row in small) * page_size)}", "dim")
    standing = [row for row in shown if row["out"]]
    if standing:
        paper.line()
        prose(paper, "OUT: machines with far more of it than the others", "bold")
        _outliers(standing, by, page_size, paper)


def _outliers(rows: list[dict[str, Any]], by: Sequence[str], page_size: int,
              paper: Paper) -> None:
    names = _keys(rows, by)[-1].cells
    for row, name in zip(rows, names, strict=True):
        hosts = ", ".join(f"{printable(out['host'])} {size(out['pages'] * page_size)}"
                          for out in row["outliers"])
        more = f", and {row['out'] - len(row['outliers']):,} more" if (
            row["out"] > len(row["outliers"])) else ""
        paper.line(f"  {hosts}{more}")
        paper.line(f"    {name}", "dim")


def draw_leaks(rows: list[dict[str, Any]], by: Sequence[str], machines: int, page_size: int,
               top: int | None, paper: Paper) -> None:
    """Which machines leak, then what grows and can be reclaimed."""
    kinds = {kind: [row for row in rows if row["kind"] == kind]
             for kind in ("leak", "reclaimable")}
    hosts = len({row["host"] for row in kinds["leak"]})
    prose(paper, f"{count_of(machines, 'machine')} judged: {count_of(len(kinds['leak']), 'leak')}"
                 f" on {count_of(hosts, 'machine')}, owners by {', '.join(by)}")
    for kind, title in (("leak", ""), ("reclaimable", "Cache that the kernel can reclaim")):
        found = kinds[kind]
        if not found:
            continue
        paper.line()
        if title:
            prose(paper, title, "bold")
        shown = found[:top]
        columns = [
            Column("PER HOUR", _numbers(shown, "rate", lambda rate: size(rate * page_size))),
            Column("GAINED", _numbers(shown, "gained", lambda pages: size(pages * page_size))),
            Column("IN", _numbers(shown, "hours", lambda hours: age(hours * 3.6e12)))]
        if paper.width >= _WIDE:
            columns.append(Column("CONFIDENCE", _numbers(
                shown, "confidence", lambda share: f"{100 * share:.0f} %")))
        columns.append(Column("HOST", _numbers(shown, "host", printable), text=True))
        if paper.width >= _WIDER:
            columns.append(Column("KERNEL", [printable(row["kernel"] or UNKNOWN) for row in shown],
                                  text=True))
        draw_table(paper, columns + _leak_keys(shown, by))
        if len(found) > len(shown):
            prose(paper, f"and {count_of(len(found) - len(shown), 'more')}"
                         if kind != "leak" else
                         f"and {count_of(len(found) - len(shown), 'more leak')}", "dim")


def _leak_keys(rows: list[dict[str, Any]], by: Sequence[str]) -> list[Column]:
    """The keys; whose private memory it is stands with what it is, or with the last key."""
    columns = _keys(rows, by)
    place = 0 if columns[0].title == "WHAT" else -1
    cells = [cell + (f" of {printable(row['program'])}" if row["program"] else
                     f" ({printable(row['note'])})" if row["note"] else "")
             for cell, row in zip(columns[place].cells, rows, strict=True)]
    columns[place] = columns[place]._replace(cells=cells, refit=None)
    return columns


def draw_diff(rows: list[dict[str, Any]], by: Sequence[str], sides: tuple[str, str],
              page_size: int, top: int | None, paper: Paper) -> None:
    """Before against after: what is sure, and how many of the others there are."""
    sure = [row for row in rows if row["sure"]]
    prose(paper, f"{printable(sides[0])} against {printable(sides[1])}:"
                 f" {count_of(len(sure), 'owner')} by {', '.join(by)} with a difference that is"
                 " hardly chance; sizes of a machine in the mean")
    shown = sure[:top]
    if shown:
        paper.line()

        def bytes_of(pages: float) -> str:
            return size(pages * page_size)

        columns = [
            Column("CHANGE", [("+" if row["change"] >= 0 else "-")
                              + bytes_of(abs(row["change"])) for row in shown]),
            Column("BEFORE", _numbers(shown, "before", bytes_of)),
            Column("AFTER", _numbers(shown, "after", bytes_of)),
            Column("MORE", _numbers(shown, "more", lambda share: f"{100 * share:.0f} %"))]
        if paper.width >= _WIDE:
            columns += [Column("HAD", _numbers(shown, "had", count)),
                        Column("HAVE", _numbers(shown, "have", count))]
        draw_table(paper, columns + _keys(shown, by))
    if len(sure) > len(shown):
        prose(paper, f"and {count_of(len(sure) - len(shown), 'more owner')}", "dim")
    if shown:
        prose(paper, "MORE: of pairs of a machine before and one after, how often the one after has"
                     " more", "dim")


def draw_machines(rows: list[dict[str, Any]], machines: int, page_size: int, top: int | None,
                  paper: Paper) -> None:
    """Machines that have something, most pages first."""
    hosts = len({row["host"] for row in rows})
    prose(paper, f"{count(hosts)} of {count_of(machines, 'machine')}")
    if not rows:
        return
    paper.line()
    shown = rows[:top]
    columns = [Column("NOW", _numbers(shown, "pages", lambda pages: size(pages * page_size))),
               Column("MOST", _numbers(shown, "most", lambda pages: size(pages * page_size))),
               Column("HOST", _numbers(shown, "host", printable), text=True),
               Column("KERNEL", [printable(row["kernel"] or UNKNOWN) for row in shown], text=True),
               Column("FIRST", _numbers(shown, "first_s", _moment), text=True, flexible=False),
               Column("LAST", _numbers(shown, "last_s", _moment), text=True, flexible=False)]
    if paper.width >= _WIDE:
        columns.append(Column("LABELS", _numbers(shown, "labels", _labels), text=True))
    draw_table(paper, columns)
    if len(rows) > len(shown):
        prose(paper, f"and {count_of(len(rows) - len(shown), 'more row')}", "dim")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _labels(text: str | None) -> str:
    import json

    try:
        found = json.loads(text or "{}")
    except ValueError:
        return printable(text or "")
    return printable(" ".join(f"{key}={value}" for key, value in found.items())
                     if isinstance(found, dict) else str(text))


def facts(answer: FleetAnswer) -> dict[str, Any]:
    """What an answer is about, for `to_json`."""
    return {"by": list(answer.by), "machines": answer.machines, "captures": answer.captures,
            "page_size": answer.page_size, "notes": answer.notes}


def to_json(rows: list[dict[str, Any]], top: int | None, about: dict[str, Any]) -> Json:
    """The same facts for programs: sizes in pages, stacks as lists of functions."""
    shown = []
    for row in rows[:top]:
        row = dict(row)
        if row.get("stack") is not None:
            row["stack"] = row["stack"].split("\n")
        shown.append(row)
    return Json({**about, "rows": shown})
