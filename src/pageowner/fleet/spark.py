"""Spark: the same views over the same files, on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.errors import PageownerError
from pageowner.fleet import layout
from pageowner.fleet.columns import OWNERS, PARTITIONS, STACKS
from pageowner.fleet.engine import CAPTURES_VIEW, ONCE, TWICE, EngineFailed, said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pageowner.fleet.columns import Column
    from pageowner.fleet.reading import Files
    from pageowner.fleet.store import Store

__all__ = ["Spark"]

_TYPES = {"text": "STRING", "int32": "INT", "int64": "BIGINT", "double": "DOUBLE",
          "timestamp": "TIMESTAMP"}


class Spark:
    """A session on a cluster; its workers read the store themselves, so they must reach it under
    the same path or URL (s3:// is read as s3a://, with hadoop-aws on the cluster)."""

    def __init__(self, master: str, store: Store, files: Files, memory: int | None = None) -> None:
        """``memory``: bytes of each executor. Raises PageownerError if PySpark is not
        installed, EngineFailed if the cluster cannot be reached."""
        try:
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise PageownerError("this engine needs PySpark, which is not installed: pip install"
                                 " 'pageowner[spark]'") from error
        self._errors: tuple[type[BaseException], ...] = (PySparkException, RuntimeError)
        builder = SparkSession.builder.appName("pageowner fleet")
        builder = (builder.remote(master) if master.startswith("sc://") else
                   builder.master(master).config("spark.ui.enabled", "false"))
        if memory and not master.startswith("sc://"):
            builder = builder.config("spark.executor.memory", f"{memory >> 20}m")
        try:
            self._session: Any = builder.getOrCreate()
            self._session.conf.set("spark.sql.session.timeZone", "UTC")
            self._session.conf.set("spark.sql.ansi.enabled", "true")
            if not master.startswith("sc://"):
                self._session.sparkContext.setLogLevel("ERROR")
        except self._errors as error:
            raise EngineFailed(f"Spark: {_line(error)}") from error
        self._view("owners_read", {**OWNERS, **PARTITIONS}, store, files.owners)
        self._view("stacks_read", STACKS, store, files.stacks)
        self._views(
            ("owners_all", "SELECT *, unix_micros(taken) / 1e6D AS taken_s FROM owners_read"),
            ("stacks", "SELECT stack_id, min(stack) AS stack, min_by(module, stack) AS module,"
                       " min_by(frame, stack) AS frame, min_by(allocator, stack) AS allocator"
                       " FROM stacks_read GROUP BY stack_id"),
            ("owners", "SELECT * FROM owners_all"), ("captures", CAPTURES_VIEW))
        self.notes: list[str] = []
        twice = self.sql(TWICE)
        if twice.num_rows:
            self.register("twice", twice)
            # a view is of what its names were when it was made
            self._views(("owners", ONCE), ("captures", CAPTURES_VIEW))
            self.notes.append(said(twice.num_rows))

    def _views(self, *views: tuple[str, str]) -> None:
        for name, text in views:
            self._session.sql(text).createOrReplaceTempView(name)

    def _view(self, name: str, columns: Mapping[str, Column], store: Store,
              paths: list[str]) -> None:
        # declared, not inferred: no file is opened for it, and what an older file lacks is null
        schema = ", ".join(f"{column} {_TYPES[about.type]}" for column, about in columns.items())
        tables = (layout.OWNERS, layout.INCOMING) if name == "owners_read" else ("",)
        frame = None
        for table in tables:
            part = [path for path in paths if path.startswith(f"{table}/")] if table else paths
            if not part:
                continue
            reader = self._session.read.schema(schema)
            if table:
                # Spark takes the folders of partitions from one place only, and of files that are
                # named one by one only below what is named here (basePaths in
                # PartitioningAwareFileIndex.scala): else day and hour are null
                reader = reader.option("basePath", _spelled(store, store.name(table)))
            read = reader.parquet(*(_spelled(store, store.name(path)) for path in part))
            frame = read if frame is None else frame.unionByName(read)
        if frame is None:
            frame = self._session.createDataFrame([], schema)
        frame.createOrReplaceTempView(name)

    def register(self, name: str, table: pa.Table) -> None:
        self._session.createDataFrame(table).createOrReplaceTempView(name)

    def sql(self, text: str) -> pa.Table:
        try:
            found = self._session.sql(text).toArrow()
        except self._errors as error:
            raise EngineFailed(f"Spark: {_line(error)}") from error
        return found.combine_chunks()

    def close(self) -> None:
        """The session stays: it may be the caller's own, and the next question takes it again."""


def _spelled(store: Store, name: str) -> str:
    """A path as Hadoop's file systems have it."""
    if store.is_local:
        return f"file://{name}"
    scheme = store.place.partition("://")[0]
    return f"{'s3a' if scheme == 's3' else scheme}://{name}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split("\n\nJVM stacktrace")[0].split())[:300]
