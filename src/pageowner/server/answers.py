"""What a worker answers about a snapshot: each question is a function of words and a source, and
gives the type and the bytes of a document that other verbs write as well."""

from __future__ import annotations

import io
import json
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pageowner.analysis.filters import check_sort, key_names
from pageowner.analysis.judging import judged
from pageowner.analysis.leaks import LEAST_SAMPLES
from pageowner.errors import PageownerError, UsageError
from pageowner.model.schema import AGE, FILTERS, NUMBERS, Filter
from pageowner.report.json_text import Json
from pageowner.report.text import printable
from pageowner.server.sources import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pageowner.model.snapshot import Snapshot
    from pageowner.report.writer import Writer
    from pageowner.server.sources import Served

__all__ = ["ANSWERS", "Answer", "Context", "answer"]

JSON, HTML = "application/json", "text/html; charset=utf-8"
_MOST_ROWS = 10_000
_FRAMES = 5


class Answer(NamedTuple):
    """A document. ``file``: the name under which it is saved, if it is for that."""

    type: str
    body: bytes
    file: str = ""


class Context(NamedTuple):
    """What is asked about: the source, and the folder of its history, if there is one."""

    source: Served
    history: Series | None

    def snapshot(self, words: Mapping[str, str], name: str = "at") -> Snapshot:
        """The source's state, or its history's at the time that ``words[name]`` is, with the
        filters that the words are."""
        when = words.get(name) or None
        if when is None:
            found = self.source.snapshot()
        elif self.history is None:
            raise UsageError(f"{name}: there is no history; serve a directory of 'pageowner"
                             " record', or name one with --history")
        else:
            found = self.history.at(_time(when))
        chosen = _filter(words)
        return found.where(chosen) if chosen else found


def _time(text: str) -> float:
    try:
        when = float(text)
    except ValueError:
        when = math.nan
    if not math.isfinite(when):
        raise UsageError(f"{text!r} is not a time; times are seconds since 1970")
    return when


def _filter(words: Mapping[str, str]) -> Filter:
    given: dict[str, Any] = {}
    for name, about in FILTERS.items():
        text = words.get(name, "")
        if not text:
            continue
        try:
            given[name] = (text if about.takes == AGE else
                           tuple(int(part, 0) for part in text.split(","))
                           if about.takes == NUMBERS else (text,))
        except ValueError as error:
            raise UsageError(f"{name}={text!r} is not a number") from error
    return Filter(**given)


def _names(words: Mapping[str, str], default: str = "stack") -> list[str]:
    return key_names(words.get("by") or default)


def _number(words: Mapping[str, str], name: str, default: int, most: int = _MOST_ROWS) -> int:
    text = words.get(name) or str(default)
    # no more digits than the largest has: int() takes long for thousands of them
    if text.isdecimal() and len(text) <= len(str(most)) and 1 <= (number := int(text)) <= most:
        return number
    raise UsageError(f"{name}={text!r} is not a number from 1 to {most:,}")


def _bytes(writer: Writer) -> bytes:
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def _document(found: Any) -> Answer:
    return Answer(JSON, json.dumps(found, separators=(",", ":")).encode())


# -- questions -----------------------------------------------------------------------------------


def owners(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``report --json``; owners by stack also have ``line`` and ``what``, which tell it short.
    """
    from pageowner.analysis.keys import check_users
    from pageowner.analysis.owners import owners as of_rows
    from pageowner.report import owners_table

    names, sort = _names(words), words.get("sort") or "pages"
    check_sort(sort, names)
    snapshot = context.snapshot(words)
    if "user" in names:
        check_users(snapshot)
    table = of_rows(snapshot, names, sort=sort, encoded=True, users=True)
    document = owners_table.to_json(table, _number(words, "top", 200), names, snapshot.meta)
    document.document["owners"] = list(_told(document.document["owners"]))
    document.document.update(taken_at=snapshot.meta.taken_at, host=snapshot.meta.host)
    return _document(document.document)


def _told(owners: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows, those with a stack with what it is in a line."""
    from pageowner.analysis.subsystems import short_stack, subsystem

    for row in owners:
        if row.get("stack"):
            stack = "\n".join(row["stack"])
            row |= {"line": printable(short_stack(stack, _FRAMES)),
                    "what": printable(subsystem(stack))}
        yield row


def diff(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``diff --json``, from ``before`` to ``after``, or to now."""
    from pageowner.analysis.diff import check_sort as check
    from pageowner.api.diff import diff as difference
    from pageowner.report import diff_table

    names, sort = _names(words), words.get("sort") or "change"
    check(sort, names)
    if not words.get("before"):
        raise UsageError("before: name the time of a capture, in seconds since 1970")
    found = difference(context.snapshot(words, "before"), context.snapshot(words, "after"), names,
                       sort=sort)
    document = diff_table.to_json(found.changes, _number(words, "top", 200), names, found.before,
                                  found.after).document
    document["changes"] = list(_told(document["changes"]))
    return _document(document)


def leaks(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``leaks --json``, with the times of the looks in seconds from the first."""
    from pageowner.report import leaks_view
    from pageowner.report.leak_suspects import why_no_leak

    least = _number(words, "min", 1, 1 << 50) if words.get("min") else None
    watch, about = context.source.watched()
    if watch is None and context.history is not None:
        watch, about = context.history.watched()
    if watch is None or about is None:
        return _document({"source": context.source.name, "looks": 0, "owners": [], "times_s": [],
                          "note": f"a trend takes at least {LEAST_SAMPLES} looks at one boot and"
                                  " one time of tracking"})
    rows = judged(watch, about.page_size, least).to_pylist()
    document = leaks_view.to_json(rows, about).document
    document["owners"] = [owner | {"why": why_no_leak(row)} for owner, row in zip(
        _told(document["owners"]), rows, strict=True)]
    document["times_s"] = [(when - watch.times[0]) / 1e9 for when in watch.times]
    return _document(document)


def balance(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``balance --json``, of this machine, if it is what is served."""
    from pageowner.api.balance import balance as of_machine
    from pageowner.report.balance_json import to_json

    if not _is_here(context):
        return _document({"rows": [], "note": "the balance is of this machine, and another source"
                                              " is served"})
    return Answer(JSON, _bytes(Json(to_json(of_machine()))))


def _is_here(context: Context) -> bool:
    from pageowner.server.sources import Machine

    return isinstance(context.source, Machine)


def frag(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``frag --json``."""
    from pageowner.api.frag import frag as of_snapshot
    from pageowner.report import fragmentation_view

    order = None if not words.get("order") else _number(words, "order", 9, 30)
    names = _names(words, "stack" if order is None else "comm,pid")
    snapshot = context.snapshot(words)
    top = _number(words, "top", 50)
    found = vars(of_snapshot(snapshot, names, top=top) if order is None else
                 of_snapshot(snapshot, names, order=order, top=top))
    document = fragmentation_view.to_json(found, names, snapshot.meta).document
    for name in ("polluters", "blockers"):
        if name in document:
            document[name] = list(_told(document[name]))
    return _document(document)


def captures(context: Context, words: Mapping[str, str]) -> Answer:
    """The times of the history's captures, seconds since 1970, oldest first."""
    there = [] if context.history is None else context.history.captures()
    return _document({"captures": [capture.taken for capture in there]})


def memory_map(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``map --html``."""
    from pageowner.analysis.filters import colouring
    from pageowner.analysis.memory import memory
    from pageowner.report.map_html import MapHtml
    from pageowner.sources.kpageflags import page_flags

    by, order = colouring(words.get("by") or "subsystem"), words.get("order") or "row"
    if order not in ("row", "hilbert"):
        raise UsageError(f"order={order!r} is not row or hilbert")
    snapshot = context.snapshot(words)
    return Answer(HTML, _bytes(MapHtml([(snapshot, memory(snapshot, page_flags(snapshot, None)))],
                                       by, order)))


def flame(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``flame --html``; with ``before``, of what changed since then."""
    from pageowner.api.flame import flame as of_snapshots
    from pageowner.report.flame_html import FlameHtml

    names = key_names(words["by"]) if words.get("by") else []
    now = context.snapshot(words)
    graph = of_snapshots(context.snapshot(words, "before"), now, by=names) if words.get(
        "before") else of_snapshots(now, by=names)
    return Answer(HTML, _bytes(FlameHtml(graph.chains, graph.page_size, graph.title,
                                         graph.difference, False, False)))


def pprof(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``export pprof``."""
    from pageowner.api.export import export

    file = io.BytesIO()
    export(context.snapshot(words), file, "pprof", by=words.get("by") or None)
    return Answer("application/octet-stream", file.getvalue(), "pages.pprof")


def parquet(context: Context, words: Mapping[str, str]) -> Answer:
    """As ``save``."""
    from pageowner.storage.parquet import write_to

    file = io.BytesIO()
    write_to(context.snapshot(words), file)
    return Answer("application/vnd.apache.parquet", file.getvalue(), "snapshot.parquet")


def figures(context: Context, words: Mapping[str, str]) -> Answer:
    """`Figures`, gathered now."""
    from pageowner.server.figures import Figures
    from pageowner.server.gathering import of_balance

    began, wall = time.process_time(), time.monotonic()
    found = dict(context.source.figures())  # a source may keep its own
    notes = list(found.pop("notes", []))
    here: dict[str, Any] = {}
    if _is_here(context):
        from pageowner.api.balance import balance as of_machine

        try:
            here = of_balance(of_machine())
        except PageownerError as error:
            notes.append(str(error))
    return _document(Figures(
        source=context.source.name, tracking=context.source.tracking, **found, **here, notes=notes,
        took=time.process_time() - began, waited=time.monotonic() - wall).plain())


ANSWERS: dict[str, Callable[[Context, Mapping[str, str]], Answer]] = {
    "figures": figures, "owners": owners, "diff": diff, "leaks": leaks, "balance": balance,
    "frag": frag, "captures": captures, "map": memory_map, "flame": flame, "pprof": pprof,
    "parquet": parquet}
"""Every question by its name."""


def answer(context: Context, question: str, words: Mapping[str, str]) -> Answer:
    """Raises PageownerError, in one line, for what cannot be answered, and UsageError for wrong
    words."""
    return ANSWERS[question](context, words)
