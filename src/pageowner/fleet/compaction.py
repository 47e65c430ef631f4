"""Many small files as few large ones, and old ones removed: what a timer runs.

An hour's captures become one file under one name, written whole over an older one, which names the
captures that it has. What it was made of is removed in a later run, when every compaction that ran
beside this one has ended, and once all of the large file was read: so nothing is lost, whoever runs
it, and as often as he likes. Until then readers of ours leave out what the large file has.

A file that cannot be read, or is none of ours, is left where it is, and so is what would go into
it; the rest goes on.
"""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pageowner.fleet import layout
from pageowner.fleet.arrow import (
    CONTAINS_KEY,
    OWNERS_SCHEMA,
    SCHEMA_KEY,
    STACKS_SCHEMA,
    as_parquet,
)
from pageowner.fleet.reading import names_in
from pageowner.fleet.store import StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pageowner.fleet.layout import Hour
    from pageowner.fleet.store import Store, StoredObject

__all__ = ["Compacted", "compact", "expire", "hour_file", "stacks_file"]

GRACE_S = 600.0
"""So long after an hour's end it is compacted, and after that what it was made of is removed."""

_SORTED_BY = ("stack_id", "comm", "state", "series", "taken")
_THREADS = 16

_Found = TypeVar("_Found")


class Compacted(NamedTuple):
    """``hours`` that were written, with ``captures`` in all; ``removed``: small files that are now
    in a large one; ``damaged``: files that were left where they are, each with the reason;
    ``away``: files of a bucket that could not be fetched, and wait for another run."""

    hours: int = 0
    captures: int = 0
    removed: int = 0
    damaged: tuple[str, ...] = ()
    away: tuple[str, ...] = ()


class _Away(str):
    """Of a file, why it could not be fetched: nothing is known of what is in it."""

    __slots__ = ()


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
    long ago. Files that cannot be read are left. Raises StoreAway."""
    now = time.time() if now is None else now
    hours, captures, removed = 0, 0, 0
    left: list[str] = []
    for day in store.days(layout.INCOMING):
        by_hour: dict[Hour, list[StoredObject]] = {}
        for stored in store.objects(f"{layout.INCOMING}/day={day}"):
            place = layout.partition_of(stored.path)
            if place is not None and layout.number_of(place[1]) is not None:
                by_hour.setdefault(place[0], []).append(stored)
        for hour, files in sorted(by_hour.items()):
            if hour >= layout.hour_of(now - grace_s):
                continue
            added, gone = _hour(store, hour, files, now - grace_s, left)
            hours, captures, removed = hours + (added > 0), captures + added, removed + gone
            progress(hour)
    removed += _stacks(store, now - grace_s, left)
    return Compacted(hours, captures, removed,
                     tuple(why for why in left if not isinstance(why, _Away)),
                     tuple(why for why in left if isinstance(why, _Away)))


def _hour(store: Store, hour: Hour, files: list[StoredObject], settled: float,
          left: list[str]) -> tuple[int, int]:
    """Captures that were added to the hour's file, and files that were removed. Nothing is done
    with an hour whose file cannot be read, or is none of ours."""
    place = hour.compacted
    held: set[str] | str = set()
    if store.changed(place) is not None:
        held = _or_why(store, place, lambda: _held(_footer(store, place)))
        if isinstance(held, str):
            left.append(held)
            return 0, 0
    names = {stored.path: stored.path.rpartition("/")[2].removesuffix(".parquet")
             for stored in files}
    new = _tables(store, [path for path, name in names.items() if name not in held], _capture,
                  left)
    there = [path for path, name in names.items() if name in held]
    if not new and not there:
        return 0, 0
    kept = []
    if held:
        whole = _or_why(store, place, lambda: _whole(store.get(place)))
        if isinstance(whole, str):
            left.append(whole)
            return 0, 0
        held, rows = whole  # again: another compaction may have written it since
        kept = [rows]
    if new:
        added = [table for path, table in new.items() if names[path] not in held]
        if added:
            store.put(place, hour_file(pa.concat_tables([*kept, *added])))
        return len(added), 0
    return 0, _remove(store, place, [path for path in there if names[path] in held], settled)


def _stacks(store: Store, settled: float, left: list[str]) -> int:
    files = [stored.path for stored in store.objects(layout.INCOMING_STACKS)
             if stored.changed <= settled]
    tables = _tables(store, files, lambda path, content: _read(content, STACKS_SCHEMA), left)
    if not tables:
        return 0
    known = STACKS_SCHEMA.empty_table()
    if store.changed(layout.STACKS_FILE) is not None:
        whole = _or_why(store, layout.STACKS_FILE,
                        lambda: _known_stacks(store.get(layout.STACKS_FILE)))
        if isinstance(whole, str):
            left.append(whole)
            return 0
        known = whole
    ids = set(known["stack_id"].to_pylist())
    new = {path for path, table in tables.items() if set(table["stack_id"].to_pylist()) - ids}
    if new:
        store.put(layout.STACKS_FILE, stacks_file(pa.concat_tables(
            [known, *(tables[path] for path in sorted(new))])))
        return 0
    return _remove(store, layout.STACKS_FILE, list(tables), settled)


def _remove(store: Store, into: str, paths: list[str], settled: float) -> int:
    """Remove files that were found in a large one, if that was written before ``settled``: what was
    read of it before this asks is then what was written."""
    written = store.changed(into)
    if written is None or written > settled:
        return 0
    for path in paths:
        store.delete(path)
    return len(paths)


def _tables(store: Store, paths: list[str], read: Callable[[str, bytes], pa.Table],
            left: list[str]) -> dict[str, pa.Table]:
    """Of these files those that ``read`` takes."""
    def attempt(path: str) -> pa.Table | str:
        return _or_why(store, path, lambda: read(path, store.get(path)))

    found = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, table in zip(paths, pool.map(attempt, paths), strict=True):
            if isinstance(table, str):
                left.append(table)
            else:
                found[path] = table
    return found


def _or_why(store: Store, path: str, read: Callable[[], _Found]) -> _Found | str:
    """What ``read`` gives of a file, or why it cannot be read, in a line (an `_Away` if it is in a
    bucket and could not be fetched). Raises StoreAway where this is not for the one file."""
    kind: type[str] = str
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        why = str(error)
    except StoreAway as error:
        store.folders("")
        why = str(error).removeprefix(f"{store.place}: ")
        kind = str if store.is_local else _Away
    return kind(f"{store.name(path)}: {' '.join(why.split())[:200]}")


def _footer(store: Store, path: str) -> Mapping[bytes, bytes]:
    try:
        with store.open(path) as file:
            return pq.read_metadata(file).metadata or {}
    except OSError:  # it is damaged, or slow to arrive: `Store.get` tries again and tells which
        return pq.read_metadata(io.BytesIO(store.get(path))).metadata or {}


def _held(about: Mapping[bytes, bytes]) -> set[str]:
    held = names_in(about)
    if not held:
        raise ValueError("names no captures: it was not written by 'fleet compact'")
    return held


def _whole(content: bytes) -> tuple[set[str], pa.Table]:
    """The captures in an hour's file, all of which is read, and its rows."""
    held = _held(pq.read_metadata(io.BytesIO(content)).metadata or {})
    rows = _read(content, OWNERS_SCHEMA)
    if held != set(map(layout.digits, pc.unique(rows["capture"]).to_pylist())):
        raise ValueError("the captures that it names are not those that it has")
    return held, rows


def _known_stacks(content: bytes) -> pa.Table:
    if SCHEMA_KEY not in (pq.read_metadata(io.BytesIO(content)).metadata or {}):
        raise ValueError("it was not written by 'fleet compact'")
    return _read(content, STACKS_SCHEMA)


def _capture(path: str, content: bytes) -> pa.Table:
    """The one capture of an incoming file. Others in it would be added in every run."""
    rows = _read(content, OWNERS_SCHEMA)
    name = path.rpartition("/")[2].removesuffix(".parquet")
    if list(map(layout.digits, pc.unique(rows["capture"]).to_pylist())) != [name]:
        raise ValueError("has not the one capture that its name says")
    return rows


def _read(content: bytes, schema: pa.Schema) -> pa.Table:
    """A file with today's columns: those that an older one lacks are null, except the first, by
    which rows belong together."""
    table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
    for field in schema:
        if field.name in table.column_names and table[field.name].type != field.type:
            raise ValueError(f"column {field.name} has type {table[field.name].type}")
    columns = [table[field.name] if field.name in table.column_names else
               pa.nulls(table.num_rows, field.type) for field in schema]
    found = pa.table(columns, schema=schema)
    found.validate(full=True)  # text that is no UTF-8 fails in engines
    if found[0].null_count:
        raise ValueError(f"column {schema[0].name} has rows without a value")
    return found


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
