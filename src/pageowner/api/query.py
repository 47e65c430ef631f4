"""SQL about one source or several: ``pageowner query``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pageowner.analysis import query as by_sql
from pageowner.api import sources
from pageowner.sources import live_users
from pageowner.sources.source import read as read_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.analysis.query import Answer
    from pageowner.api.sources import Source
    from pageowner.model.snapshot import Snapshot

__all__ = ["query"]


def query(sql: str, *named: Source | Mapping[str, Source],
          read: Callable[[str | None], Snapshot] = read_source) -> Answer:
    """The answer to one SELECT (in DuckDB's SQL) about sources, or about this machine.

    The table ``pages`` has a row for each allocation of all sources, with the columns of
    `pageowner.model.schema.COLUMNS`. Each source is also a table, with the name of its file, or the
    name that a mapping gives it. The SQL cannot read or write anything else. ``read``: the function
    that reads a source given by name.

    Raises UsageError for invalid SQL, PageownerError if a source cannot be read or the query fails
    while it runs.
    """
    by_sql.check(sql)  # before the sources are read, which may take a while
    tables: list[tuple[str, Source]] = []
    for source in named or (None,):
        tables += source.items() if isinstance(source, Mapping) else [("", source)]
    with live_users.using(_shows_users(sql)):
        found = {name: sources.snapshot(source, read) for name, source in _with_names(tables)}
    return by_sql.query(sql, found)


_NAMES = re.compile(r"user|\*|\$\$|\b(?:columns|table|summarize|describe|struct_\w+)\b",
                    re.IGNORECASE)
"""What may name the column, in a text too, or show all."""
_WORDS = re.compile(r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | [()] | \w+""",
                    re.VERBOSE | re.DOTALL)


def _shows_users(sql: str) -> bool:
    """Whether SQL may show the column ``user``: it names it or all columns, or begins with FROM, as
    DuckDB's may, which shows all. To say so wrongly only takes time."""
    if _NAMES.search(sql):
        return True
    has_select = [False]
    for word in _WORDS.findall(sql):
        match word.upper():
            case "(":
                has_select.append(False)
            case ")" if len(has_select) > 1:
                has_select.pop()
            case "SELECT":
                has_select[-1] = True
            case "FROM" if not has_select[-1]:
                return True
            case "UNION" | "EXCEPT" | "INTERSECT":
                has_select[-1] = False
    return False


def _with_names(tables: list[tuple[str, Source]]) -> list[tuple[str, Source]]:
    """A table's name for each source that has none: that of its file without the endings, and a
    number where SQL would take two names for the same."""
    found: dict[str, Source] = {}
    names = {by_sql.TABLE, *(name.lower() for name, _ in tables if name)}
    for given, source in tables:
        name = stem = given or _stem(source)
        number = 2
        while not given and name.lower() in names:
            name, number = f"{stem}_{number}", number + 1
        names.add(name.lower())
        found[name] = source
    return list(found.items())


def _stem(source: Source) -> str:
    if source is None:
        return "live"
    if not isinstance(source, (str, os.PathLike)):
        return "snapshot"
    path = os.fspath(source)
    if path == "-":
        return "stdin"
    name = re.sub(r"(\.(parquet|txt|gz|xz|zst))+$", "", os.path.basename(path.rstrip("/")))
    return (name or "source").encode(errors="backslashreplace").decode()
