"""Engines that answer the same SQL: DuckDB in this process, or a Spark cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.errors import UsageError

if TYPE_CHECKING:
    from pageowner.fleet.engine import Engine
    from pageowner.fleet.reading import Files
    from pageowner.fleet.store import Store

__all__ = ["open_engine"]


def open_engine(name: str, store: Store, files: Files, memory: int | None = None,
                locked: bool = False) -> Engine:
    """``duckdb``, or Spark by the address of its master (``spark://host:7077``, ``local[4]``) or
    of a server of Spark Connect (``sc://host:15002``). ``locked``: see `Duck`.

    Raises UsageError for another name, PageownerError for an engine that is not installed.
    """
    if name == "duckdb":
        from pageowner.fleet.duck import Duck

        return Duck(store, files, memory, locked)
    if name in ("local", "yarn") or name.startswith(("spark://", "sc://", "local[",
                                                     "local-cluster[")):
        from pageowner.fleet.spark import Spark

        return Spark(name, store, files, memory)
    raise UsageError(f"{name!r} is no engine; give duckdb, spark://HOST:PORT or sc://HOST:PORT")
