"""One question to a store: find its files, open the engine, ask, and leave out what is damaged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pageowner.errors import PageownerError
from pageowner.fleet import reading
from pageowner.fleet.engine import EngineFailed
from pageowner.fleet.engines import open_engine
from pageowner.fleet.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.fleet.engine import Engine

__all__ = ["Asked", "Window", "ask", "window"]

_AHEAD_S = 86400.0
"""So far in the future captures are looked for: clocks may be ahead."""

_Found = TypeVar("_Found")


class Window(NamedTuple):
    """From ``since`` to ``until``, seconds since 1970."""

    since: float
    until: float


class Asked(NamedTuple):
    """How a store is asked: by which ``engine`` (see `open_engine`), with how many
    bytes of ``memory``."""

    place: str
    window: Window
    engine: str = "duckdb"
    memory: int | None = None
    locked: bool = False


def window(since: float, until: float | None) -> Window:
    """The time to look at; without an end until now, and captures from the future too."""
    return Window(since, time.time() + _AHEAD_S if until is None else until)


def ask(asked: Asked, work: Callable[[Engine], _Found]) -> tuple[_Found, list[str]]:
    """What ``work`` finds with an engine over the store's files, and what is to be said of them.

    Damaged files are left out, each with a line, where the engine fails on them. Raises
    PageownerError if there is nothing in the time, or the engine fails otherwise.
    """
    store = Store(asked.place)
    notes = [note] if (note := reading.check_versions(store)) else []
    files = reading.find(store, *asked.window)
    notes += files.notes
    if not files.owners:
        raise PageownerError(f"{store.place}: no captures from"
                             f" {_moment(asked.window.since)} to {_moment(asked.window.until)}"
                             + (f"; {notes[0]}" if notes else ""))
    while True:
        try:
            engine = open_engine(asked.engine, store, files, asked.memory, asked.locked)
            try:
                return work(engine), [*notes, *engine.notes]
            finally:
                engine.close()
        except EngineFailed:
            damaged = reading.unreadable(store, [*files.owners, *files.stacks])
            if not damaged:
                raise
            notes += [f"{store.name(path)}: damaged, left out: {reason}"
                      for path, reason in damaged.items()]
            files = files.without(damaged)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(seconds, 0.0)))
