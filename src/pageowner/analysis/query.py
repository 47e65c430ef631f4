"""SQL over snapshots, by DuckDB: tables in, a table out, and nothing else within its reach.

The SQL may come from somebody else. It sees the rows of the snapshots given and no more: no file,
no network, no extension, no variable of this process, and no setting can be changed.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import blocks_pages, key, times
from pageowner.analysis.select import newest_ns
from pageowner.errors import PageownerError, UsageError
from pageowner.model.amounts import row_blocks
from pageowner.model.schema import DERIVED, OF_PATH, OF_STACK
from pageowner.model.source_kinds import kind_of
from pageowner.system import memory_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pageowner.model.snapshot import Snapshot

__all__ = ["TABLE", "Answer", "check", "memory_config", "open_duckdb", "query", "rows_of"]

TABLE = "pages"
"""The table of all rows."""

_BATCH = 4096
_LOOK = 0.1  # seconds

_CONFIG = {
    "enable_external_access": "false",  # no files, no network, no ATTACH, COPY or INSTALL
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # a name in FROM is no variable of ours
    "temp_directory": "",  # what does not fit memory fails; it is not written to a disk
}


_LEAST_MEMORY = 256  # MiB


def memory_config() -> dict[str, str]:
    """Half of the memory that is available: by itself DuckDB takes four fifths of all there is,
    whoever has it."""
    mib = memory_limit.available(swap=False) >> 20
    return {"memory_limit": f"{max(mib // 2, _LEAST_MEMORY)}MiB"}


class Answer:
    """``columns``: the names, made unique if the SQL used one twice. `rows` or `table` give the
    rows, only once."""

    def __init__(self, connection: Any, sql: str) -> None:
        self._connection = connection
        self._wait_for(lambda: connection.execute(sql))
        self.columns = _distinct([str(column[0]) for column in connection.description])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows. Raises PageownerError if the query fails while it runs."""
        while True:
            batch = self._wait_for(lambda: self._connection.fetchmany(_BATCH))
            if not batch:
                return
            yield from batch

    def table(self) -> pa.Table:
        """All rows as one table, with the types of their values (int64, float64, string, …; null if
        there are none). Raises the same errors as `rows`, and PageownerError for values that Arrow
        cannot store, such as numbers of more than 64 bits."""
        values = zip(*self.rows(), strict=True)
        columns = list(values) or [()] * len(self.columns)
        try:
            return pa.table([pa.array(column) for column in columns], self.columns)
        except (pa.ArrowException, OverflowError) as error:
            raise PageownerError(f"SQL: the result is not an Arrow table: {error}") from error

    def _wait_for(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns. Ctrl-C and SIGTERM end it: a call into DuckDB lets no signal
        through until it is done, which may be never."""
        done: list[Any] = []
        failed: list[Exception] = []

        def run() -> None:
            try:
                done.append(work())
            except Exception as error:
                failed.append(error)
            ended.set()

        # An event, for a join() that a signal cuts short takes the thread for ended. No daemon: the
        # interpreter would end such a thread inside DuckDB's own code, which aborts the process.
        ended = threading.Event()
        threading.Thread(target=run).start()
        try:
            while not ended.wait(_LOOK):
                pass
        except BaseException:
            self._connection.interrupt()
            # a thread that is left at work takes the process down with it: a second signal waits
            while not ended.is_set():
                with suppress(KeyboardInterrupt):
                    ended.wait(_LOOK)
            raise
        with _errors():
            for error in failed:
                raise error
        return done[0]


class _errors:
    """DuckDB's errors as ours, in one line: the question's own are of usage."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import duckdb

        if not isinstance(error, duckdb.Error):
            return
        wrong = isinstance(error, (duckdb.ParserException, duckdb.BinderException,
                                   duckdb.CatalogException, duckdb.PermissionException))
        # below an empty line, or from "LINE 1:" on, the question is drawn with an arrow
        lines = [line.strip() for line in str(error).partition("\nLINE ")[0].split("\n")]
        message = " ".join(line for line in lines if line)
        raise (UsageError if wrong else PageownerError)(f"SQL: {message}") from error


def open_duckdb() -> Any:
    """The module. Raises PageownerError if it is not installed."""
    try:
        import duckdb
    except ImportError as error:
        raise PageownerError("query needs DuckDB, which is not installed: pip install duckdb"
                             ) from error
    return duckdb


def check(sql: str) -> None:
    """Raises UsageError for what is not one SELECT or EXPLAIN, before anything is read."""
    duckdb = open_duckdb()
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise UsageError("SQL: the question is not UTF-8") from error
    with duckdb.connect(":memory:", config=_CONFIG) as connection, _errors():
        statements = connection.extract_statements(sql)
    kinds = duckdb.StatementType
    # PIVOT is several statements in one
    allowed = (kinds.SELECT, kinds.EXPLAIN, kinds.MULTI)
    if len(statements) != 1 or statements[0].type not in allowed:
        raise UsageError(f"SQL: give one SELECT; this has {len(statements)} statements"
                         if len(statements) != 1 else
                         f"SQL: give a SELECT; {statements[0].type.name} is not allowed")


def query(sql: str, snapshots: Mapping[str, Snapshot]) -> Answer:
    """The answer to one SELECT over snapshots by name.

    Each snapshot is a table of its name, with the columns of `pageowner.model.schema`; `TABLE` has
    the rows of all of them, and where they are several the name in the column ``source``. Raises
    UsageError for wrong SQL, PageownerError for what fails otherwise.
    """
    check(sql)
    names = list(snapshots)
    several = len(names) > 1
    if several and TABLE in map(str.lower, names):
        raise UsageError(f"of several snapshots none can be named {TABLE!r}, which is all of them")
    connection = open_duckdb().connect(":memory:", config=_CONFIG | memory_config())
    for name, snapshot in snapshots.items():
        connection.register(name, rows_of(snapshot))
    if names != [TABLE]:
        parts = " UNION ALL ".join(
            "SELECT {}* FROM {}".format(f"{_quoted(name, chr(39))} AS source, " if several else "",
                                        _quoted(name, '"')) for name in names)
        connection.execute(f"CREATE TEMP VIEW {TABLE} AS {parts}")
    connection.execute("SET lock_configuration = true")
    return Answer(connection, sql)


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, 2 * quote) + quote


def rows_of(snapshot: Snapshot) -> pa.Table:
    """The snapshot's table with the columns of `pageowner.model.schema.DERIVED` but ``source``:
    pages, bytes (int64), age_s (float64, null where no time is known), subsystem, module, frame."""
    pages = blocks_pages(snapshot)
    found, known = times(snapshot)
    ages = (np.int64(newest_ns(snapshot)) - found.astype(np.int64)) / 1e9
    columns = {"pages": pa.array(pages), "bytes": pa.array(pages * snapshot.meta.page_size),
               "age_s": pa.array(ages, mask=~known)}
    blocks = row_blocks(snapshot.table)
    kind = kind_of(snapshot.meta)
    if not kind.in_pages:
        columns["pages"] = pa.nulls(len(pages), pa.int64())
    counted = (pa.nulls(len(pages), pa.uint64()) if not kind.block else
               pa.array(np.ones(len(pages), np.uint64) if blocks is None else
                        blocks.astype(np.uint64)))
    for name in OF_STACK:
        labelled = key(snapshot, name)
        null = labelled.labels.is_null().to_numpy(zero_copy_only=False)
        codes = pa.array(labelled.codes.astype(np.int32),
                         mask=null[labelled.codes] if len(null) else None)
        columns[name] = pa.DictionaryArray.from_arrays(codes, labelled.labels.fill_null(""))
    for name in ("memcg_state", *OF_PATH):
        charged = key(snapshot, name)
        columns[name] = charged.labels.take(pa.array(charged.codes)).dictionary_encode()
    table = snapshot.table.unify_dictionaries()
    table = table.set_column(table.column_names.index("blocks"), "blocks", counted)
    for name in DERIVED:
        if name in columns:
            table = table.append_column(name, columns[name])
    return table


def _distinct(names: list[str]) -> list[str]:
    result: dict[str, None] = {}
    for name in names:
        number, distinct = 2, name
        while distinct in result:
            distinct, number = f"{name}_{number}", number + 1
        result[distinct] = None
    return list(result)
