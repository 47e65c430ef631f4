"""Many small files as few large ones, and old ones removed: what a timer runs.

An hour's captures become one file under one name, written whole over an older one, which names the
captures that it has. What it was made of is removed in a later run, when every compaction that ran
beside this one has ended: so nothing is lost, whoever runs it, and as often as he likes. Until
then readers of ours leave out what the large file has.
"""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pageowner.fleet import layout
from pageowner.fleet.arrow import CONTAINS_KEY, OWNERS_SCHEMA, STACKS_SCHEMA, as_parquet
from pageowner.fleet.reading import contained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pageowner.fleet.layout import Hour
    from pageowner.fleet.store import Store, StoredObject

__all__ = ["Compacted", "compact", "expire", "hour_file", "stacks_file"]

GRACE_S = 600.0
"""So long after an hour's end it is compacted, and after that what it was made of is removed."""

_SORTED_BY = ("stack_id", "comm", "state", "series", "taken")
_THREADS = 16


class Compacted(NamedTuple):
    """``hours`` that were written, with ``captures`` in all; ``removed``: small files that are now
    in a large one; ``damaged``: files that were left where they are, each with the reason."""

    hours: int = 0
    captures: int = 0
    removed: int = 0
    damaged: tuple[str, ...] = ()


def hour_file(table: pa.Table) -> bytes:
    """Captures of one hour as the bytes of its file: sorted so that it is small, and engines can
    pass over what they do not look for."""
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in _SORTED_BY])
    numbers = pc.unique(table["capture"]).to_pylist()
    names = " ".join(sorted(map(layout.digits, numbers)))
    return as_parquet(table.take(order), {CONTAINS_KEY: names.encode()})


def stacks_file(table: pa.Table) -> bytes:
    """Stacks as the bytes of one file, each once."""
    order = pc.sort_indices(table, sort_keys=[("stack_id", "ascending"), ("stack", "ascending")])
    table = table.take(order)
    ids = table["stack_id"].to_numpy()
    first = pa.array([place == 0 or ids[place] != ids[place - 1] for place in range(len(ids))],
                     pa.bool_())
    return as_parquet(table.filter(first))


def compact(store: Store, now: float | None = None, grace_s: float = GRACE_S,
            progress: Callable[[Hour], None] = lambda hour: None) -> Compacted:
    """Compact all hours that ended ``grace_s`` ago, and all stacks; remove what was compacted that
    long ago. Raises StoreAway."""
    now = time.time() if now is None else now
    hours, captures, removed = 0, 0, 0
    damaged: list[str] = []
    for day in store.days(layout.INCOMING):
        by_hour: dict[Hour, list[StoredObject]] = {}
        for stored in store.objects(f"{layout.INCOMING}/day={day}"):
            place = layout.partition_of(stored.path)
            if place is not None and layout.number_of(place[1]) is not None:
                by_hour.setdefault(place[0], []).append(stored)
        for hour, files in sorted(by_hour.items()):
            if hour >= layout.hour_of(now - grace_s):
                continue
            added, gone = _hour(store, hour, files, now - grace_s, damaged)
            hours, captures, removed = hours + (added > 0), captures + added, removed + gone
            progress(hour)
    removed += _stacks(store, now - grace_s, damaged)
    return Compacted(hours, captures, removed, tuple(damaged))


def _hour(store: Store, hour: Hour, files: list[StoredObject], settled: float,
          damaged: list[str]) -> tuple[int, int]:
    """Captures that were added to the hour's file, and files that were removed."""
    written = store.changed(hour.compacted)
    held = set() if written is None else contained(store, hour.compacted)
    names = {stored.path: stored.path.rpartition("/")[2].removesuffix(".parquet")
             for stored in files}
    new = [path for path, name in names.items() if name not in held]
    tables = _tables(store, new, OWNERS_SCHEMA, damaged)
    if tables:
        whole = [*([_read(store.get(hour.compacted), OWNERS_SCHEMA)] if held else []),
                 *tables.values()]
        store.put(hour.compacted, hour_file(pa.concat_tables(whole)))
        return len(tables), 0
    removed = 0
    if written is not None and written <= settled:
        for path, name in names.items():
            if name in held:
                store.delete(path)
                removed += 1
    return 0, removed


def _stacks(store: Store, settled: float, damaged: list[str]) -> int:
    files = [stored.path for stored in store.objects(layout.INCOMING_STACKS)
             if stored.changed <= settled]
    tables = _tables(store, files, STACKS_SCHEMA, damaged)
    if not tables:
        return 0
    written = store.changed(layout.STACKS_FILE)
    known = (STACKS_SCHEMA.empty_table() if written is None else
             _read(store.get(layout.STACKS_FILE), STACKS_SCHEMA))
    ids = set(known["stack_id"].to_pylist())
    new = {path for path, table in tables.items() if set(table["stack_id"].to_pylist()) - ids}
    if new:
        store.put(layout.STACKS_FILE, stacks_file(pa.concat_tables(
            [known, *(tables[path] for path in sorted(new))])))
        return 0
    if written is None or written > settled:
        return 0
    for path in tables:
        store.delete(path)
    return len(tables)


def _tables(store: Store, paths: Iterable[str], schema: pa.Schema,
            damaged: list[str]) -> dict[str, pa.Table]:
    def read(path: str) -> pa.Table | str:
        try:
            return _read(store.get(path), schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            return f"{store.name(path)}: {' '.join(str(error).split())[:200]}"

    paths = list(paths)
    found = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, table in zip(paths, pool.map(read, paths), strict=True):
            if isinstance(table, str):
                damaged.append(table)
            else:
                found[path] = table
    return found


def _read(content: bytes, schema: pa.Schema) -> pa.Table:
    """A file with today's columns: those that an older one lacks are null."""
    table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    for field in schema:
        if field.name in table.column_names and table[field.name].type != field.type:
            raise ValueError(f"column {field.name} has type {table[field.name].type}")
    columns = [table[field.name] if field.name in table.column_names else
               pa.nulls(table.num_rows, field.type) for field in schema]
    return pa.table(columns, schema=schema)


def expire(store: Store, keep_s: float, now: float | None = None) -> int:
    """Remove the captures of all days that ended ``keep_s`` ago; how many files that were. Stacks
    stay: they are small, and newer captures share them. Raises StoreAway."""
    last = layout.hour_of((time.time() if now is None else now) - keep_s).day
    removed = 0
    for table in (layout.INCOMING, layout.OWNERS, layout.SNAPSHOTS):
        for day in store.days(table):
            if day < last:
                for stored in store.objects(f"{table}/day={day}"):
                    store.delete(stored.path)
                    removed += 1
                store.remove_folder(f"{table}/day={day}")
    return removed
