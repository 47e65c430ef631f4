"""Which files of a store hold the captures of a time, each once; and which of them are damaged."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pageowner.errors import PageownerError
from pageowner.fleet import layout
from pageowner.fleet.arrow import CONTAINS_KEY, OWNERS_SCHEMA, STACKS_SCHEMA
from pageowner.fleet.columns import SCHEMA_VERSION
from pageowner.fleet.engine import said
from pageowner.fleet.store import StoreAway

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pageowner.fleet.layout import Hour
    from pageowner.fleet.store import Store

__all__ = ["Files", "check_versions", "contained", "find", "names_in", "unreadable"]

_THREADS = 16


@dataclass
class Files:
    """The paths of the tables' files; ``compacted``: how many of ``owners`` hold a whole hour;
    ``notes`` on files that had to be left out; ``held``: of each compacted file the small ones that
    are still beside it."""

    owners: list[str] = field(default_factory=list)
    stacks: list[str] = field(default_factory=list)
    compacted: int = 0
    notes: list[str] = field(default_factory=list)
    held: dict[str, list[str]] = field(default_factory=dict)

    def without(self, paths: Iterable[str]) -> Files:
        """All but these, and what small files there are for large ones of them."""
        left_out = set(paths)
        instead = [small for path in left_out for small in self.held.get(path, ())]
        return Files([path for path in [*self.owners, *sorted(instead)] if path not in left_out],
                     [path for path in self.stacks if path not in left_out],
                     self.compacted, self.notes,
                     {path: small for path, small in self.held.items() if path not in left_out})


def find(store: Store, since: float, until: float) -> Files:
    """The files with what was captured from ``since`` to ``until`` (seconds since 1970), whole
    hours of it. A capture that is in its hour's compacted file is not taken from another, and of
    small files of one capture in several hours only the first. Files of other names are left out.

    Raises StoreAway; PageownerError where there is nothing, ever.
    """
    hours, others = _by_hour(store, since, until)
    found, met, again = Files(), set[str](), 0
    for hour in sorted(hours):
        paths = hours[hour]
        if hour.compacted in paths:
            try:
                held = contained(store, hour.compacted) if len(paths) > 1 else set()
                found.compacted += 1
                met |= held
                found.held[hour.compacted] = [path for path in paths if _name(path) in held]
                paths = [path for path in paths if _name(path) not in held]
            except PageownerError as error:
                found.notes.append(str(error))
                paths.remove(hour.compacted)
        kept = [path for path in sorted(paths) if _name(path) not in met]
        again += len(paths) - len(kept)
        met.update(name for name in map(_name, kept) if layout.number_of(name) is not None)
        found.owners += kept
    if others:
        found.notes.append(f"files whose names are no capture's, left out: {len(others):,}, such as"
                           f" {others[0]}")
    if again:
        found.notes.append(said(again))
    for table in (layout.STACKS, layout.INCOMING_STACKS):
        found.stacks += [stored.path for stored in store.objects(table)
                         if stored.path.endswith(".parquet")]
    return found


def _by_hour(store: Store, since: float, until: float) -> tuple[dict[Hour, list[str]], list[str]]:
    """The files of the hours from ``since`` to ``until`` that are named as captures are, and the
    names of the other Parquet files there."""
    first, last = layout.hour_of(since), layout.hour_of(until)
    hours: dict[Hour, list[str]] = {}
    others: list[str] = []
    for table in (layout.OWNERS, layout.INCOMING):
        for day in store.days(table):
            if not first.day <= day <= last.day:
                continue
            for stored in store.objects(f"{table}/day={day}"):
                place = layout.partition_of(stored.path)
                if place is None or not first <= place[0] <= last:
                    continue
                if (stored.path == place[0].compacted if table == layout.OWNERS else
                        layout.number_of(place[1]) is not None):
                    hours.setdefault(place[0], []).append(stored.path)
                else:  # such as a copy, which has captures that count already
                    others.append(store.name(stored.path))
    return hours, others


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".parquet")


def contained(store: Store, path: str) -> set[str]:
    """The captures in a compacted file, as the names of the files that they came in. Raises
    StoreAway, and PageownerError if the file is damaged."""
    try:
        with store.open(path) as file:
            return names_in(pq.read_metadata(file).metadata or {})
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PageownerError(f"{store.name(path)}: damaged, left out: {_line(error)}") from error


def names_in(about: Mapping[bytes, bytes]) -> set[str]:
    """The captures that a file's metadata names. Raises ValueError if that is no text."""
    return set(re.findall("[0-9a-f]{16}", about.get(CONTAINS_KEY, b"").decode("ascii")))


def check_versions(store: Store) -> str:
    """What to say of a store that has captures of a newer version; empty if there are none."""
    newer = [int(found[1]) for name in store.folders("")
             if (found := re.fullmatch(r"v(\d{1,9})", name)) and int(found[1]) > SCHEMA_VERSION]
    return (f"{store.place}: captures of a newer version (v{max(newer)}) are left out; update"
            " pageowner to see them" if newer else "")


def unreadable(store: Store, paths: list[str]) -> dict[str, str]:
    """Of these files those that are not whole, or have columns of other types or text that is no
    UTF-8, each with the reason. Every byte is read."""
    def check(path: str) -> str:
        try:
            with store.open(path) as file, pq.ParquetFile(
                    file, page_checksum_verification=True) as whole:
                if wrong := _wrong_type(path, whole.schema_arrow):
                    return wrong
                for rows in whole.iter_batches():
                    rows.validate(full=True)  # text that is no UTF-8 fails in engines
        except (pa.ArrowException, OSError, StoreAway) as error:
            return _line(error)
        return ""

    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(check, paths)
        return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _wrong_type(path: str, schema: pa.Schema) -> str:
    """Which column has not the type that it is declared with; empty if all have."""
    in_stacks = path.startswith((f"{layout.STACKS}/", f"{layout.INCOMING_STACKS}/"))
    for column in STACKS_SCHEMA if in_stacks else OWNERS_SCHEMA:
        if column.name in schema.names and schema.field(column.name).type != column.type:
            return f"column {column.name} has type {schema.field(column.name).type}"
    return ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
