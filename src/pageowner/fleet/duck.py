"""DuckDB in this process, over the files as they are."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.fleet.arrow import OWNERS_SCHEMA, STACKS_SCHEMA
from pageowner.fleet.columns import OWNERS, PARTITIONS, STACKS
from pageowner.fleet.engine import CAPTURES_VIEW, ONCE, TWICE, EngineFailed, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.fleet.reading import Files
    from pageowner.fleet.store import Store

__all__ = ["Duck"]

_SQL_TYPES = {"text": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE",
              "timestamp": "TIMESTAMP WITH TIME ZONE"}


class Duck:
    """DuckDB in this process, over the files as they are."""

    def __init__(self, store: Store, files: Files, memory: int | None = None,
                 locked: bool = False) -> None:
        """``memory``: its limit in bytes; half of what is available by default. ``locked``:
        SQL may be another's; it can reach nothing but the tables."""
        from pageowner.analysis.query import memory_config, open_duckdb

        self._errors = open_duckdb().Error
        limit = memory_config() if memory is None else {"memory_limit": f"{memory >> 20}MiB"}
        with ExitStack() as stack:
            with self._errors_in_one_line():
                self._connection = open_duckdb().connect(":memory:", config={
                    "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
                    "python_enable_replacements": "false", "preserve_insertion_order": "false",
                    "temp_directory": _spilled(stack), **limit})
            stack.callback(self._connection.close)
            self._tables(store, files, locked)
            self._held = stack.pop_all()

    def _tables(self, store: Store, files: Files, locked: bool) -> None:
        prefix = "" if store.is_local else _through_arrow(self._connection, store)
        reached = []
        for table, columns, paths in (("owners", OWNERS, files.owners),
                                      ("stacks", STACKS, files.stacks)):
            names = [prefix + store.name(path) for path in paths]
            reached += names
            self._view(table, columns, names)
        self._execute("CREATE VIEW owners AS SELECT * FROM owners_all")
        self._execute(f"CREATE VIEW captures AS {CAPTURES_VIEW}")
        self.notes: list[str] = []
        twice = self.sql(TWICE)
        if twice.num_rows:
            self.register("twice", twice)
            self._execute(f"CREATE OR REPLACE VIEW owners AS {ONCE}")
            self.notes.append(said(twice.num_rows))
        if locked:
            self._execute(f"SET allowed_paths = [{', '.join(map(_quoted, reached))}]")
            self._execute("SET enable_external_access = false")
            self._execute("SET lock_configuration = true")

    def _view(self, table: str, columns: dict[str, Any], names: Sequence[str]) -> None:
        if not names:
            schema = OWNERS_SCHEMA if table == "owners" else STACKS_SCHEMA
            empty = schema.empty_table()
            if table == "owners":
                for name in PARTITIONS:
                    empty = empty.append_column(name, pa.array([], pa.string()))
            self.register(f"no_{table}", empty)
            source, there = f"no_{table}", set(empty.column_names)
        else:
            partitions = ", hive_partitioning = true, hive_types = {day: VARCHAR, hour: VARCHAR}"
            source = (f"read_parquet([{', '.join(map(_quoted, names))}], union_by_name = true"
                      f"{partitions if table == 'owners' else ''})")
            there = {row[0] for row in self._execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        declared = {**columns, **(PARTITIONS if table == "owners" else {})}
        # files of an older version may lack columns
        shown = [name if name in there else f"CAST(NULL AS {_SQL_TYPES[column.type]}) AS {name}"
                 for name, column in declared.items()]
        if table == "owners":
            shown.append("epoch_us(taken) / 1e6 AS taken_s")
            self._execute(f"CREATE VIEW owners_all AS SELECT {', '.join(shown)} FROM {source}")
        else:
            self._execute(f"CREATE TABLE stacks AS SELECT DISTINCT ON (stack_id)"
                          f" {', '.join(shown)} FROM {source} ORDER BY stack_id, stack")

    def register(self, name: str, table: pa.Table) -> None:
        self._connection.register(name, table)

    def sql(self, text: str) -> pa.Table:
        with self._errors_in_one_line():
            return self._connection.sql(text).to_arrow_table().combine_chunks()

    def _execute(self, text: str) -> Any:
        with self._errors_in_one_line():
            return self._connection.execute(text)

    @contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise EngineFailed(f"DuckDB: {' '.join(str(error).split())[:300]}") from error

    def close(self) -> None:
        self._held.close()


def _spilled(stack: ExitStack) -> str:
    """A folder of its own for what does not fit into memory, which DuckDB else writes to the
    current directory: not in /tmp, which is memory on many machines, if there is another place.
    Empty, so that it fails instead, where there is nowhere to write to."""
    for place in (os.environ.get("TMPDIR") or "/var/tmp", None):
        with suppress(OSError):
            return stack.enter_context(TemporaryDirectory(
                prefix="pageowner.", dir=place, ignore_cleanup_errors=True))
    return ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _through_arrow(connection: Any, store: Store) -> str:
    """Have DuckDB read a bucket as this process does, with the same credentials; returns what the
    names of files begin with. DuckDB's own way to buckets is an extension that it downloads."""
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
    except ImportError as error:
        raise PageownerError("reading a bucket needs fsspec, which is not installed: pip install"
                             " 'pageowner[fleet]'") from error

    class Bucket(ArrowFSWrapper):  # type: ignore[misc]
        protocol = "fleet"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix("fleet://")

    connection.register_filesystem(Bucket(store.files))
    return "fleet://"
