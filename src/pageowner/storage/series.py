"""A folder of captures, one file each: whole snapshots now and then, changes in between.

A file's name is the time of its capture, ``20261123T114500.000Z.parquet`` (UTC), so that names
sort as times do. A whole one is a snapshot as any other. One of changes says what became of the
capture before it: rows that are new or other than they were; rows of which only the page flags are
(all null but ``pfn`` and ``page_flags``); rows that are gone (all null but ``pfn``). Its key-value
metadata has under ``pageowner.changes`` a JSON object: ``format``; ``before``, the name of the file
before it; ``meta``, the capture's metadata as JSON, zlib, base64. Times are there in microseconds,
``ts_us``; `rounded` makes them so in all captures of a folder.

Page flags that come and go while a page is used (`TRANSIENT`) are no change: they stay what they
were when the row was written.

Each file is written whole or not at all, and only after the one it builds on is on the disk:
whatever ends the writer loses the capture it was at and no other.
"""

from __future__ import annotations

import base64
import calendar
import json
import re
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pageowner.errors import PageownerError
from pageowner.kernel import pageflags
from pageowner.kernel.limits import TIME_BITS
from pageowner.model.saved_metadata import decode_changes
from pageowner.model.snapshot import METADATA_KEY, SCHEMA, Metadata, Snapshot
from pageowner.storage import parquet, parquet_columns
from pageowner.storage.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["TRANSIENT", "Capture", "Changes", "add", "at", "builds_on", "captures", "each",
           "file_name", "is_capture", "is_name", "last_boot", "read", "rounded"]

TRANSIENT = ("locked", "error", "referenced", "dirty", "active", "writeback", "reclaim", "mmap",
             "idle")
"""Page flags that tell of a moment, not of what a page is."""

_MICRO = pa.field("ts_us", pa.uint64())
_FORMAT = 1
_ROWS = 1 << 20
_NAME = re.compile(r"(\d{8}T\d{6})\.(\d{3})Z\.parquet")
_LARGEST = 0.5
"""Changes larger than this share of the last whole snapshot are not worth their trouble."""


@dataclass(frozen=True)
class Capture:
    """A file of the folder: its path and when it was taken (seconds since 1970)."""

    path: Path
    taken: float


@dataclass(frozen=True)
class Changes:
    """What became of a capture: ``rows`` new or other (columns of `SCHEMA` that are not null),
    ``patched`` page frames and their new ``flags``, page frames ``gone``; ``before``, the name of
    the file that they build on."""

    rows: pa.Table
    patched: NDArray[np.uint64]
    flags: NDArray[np.uint64]
    gone: NDArray[np.uint64]
    before: str
    meta: Metadata


def file_name(taken: float) -> str:
    """The name of a capture taken at ``taken`` (seconds since 1970)."""
    thousandths = int(taken * 1000)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(thousandths // 1000))
    return f"{stamp}.{thousandths % 1000:03}Z.parquet"


def is_name(name: str) -> bool:
    """Whether a file of this name is a capture."""
    return _NAME.fullmatch(name) is not None


def builds_on(path: Path) -> str | None:
    """The name of the file that a capture builds on; None for a whole one, and one that says
    nothing."""
    try:
        about = parquet_columns.about(path).get(parquet.CHANGES_KEY)
        return None if about is None else decode_changes(about, _FORMAT)[0]
    except (PageownerError, *_DAMAGED):
        return None


def is_capture(path: Path) -> bool:
    """Whether a file says of itself that it is a snapshot, or changes of one."""
    try:
        about = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError):
        return False
    return METADATA_KEY in about or parquet.CHANGES_KEY in about


def captures(folder: Path) -> list[Capture]:
    """The captures in a folder, oldest first.

    Raises PageownerError if it cannot be read.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise PageownerError(f"{folder}: cannot read: {error.strerror}") from error
    found = []
    for name in names:
        parts = _NAME.fullmatch(name)
        if parts:
            try:
                second = calendar.timegm(time.strptime(parts[1], "%Y%m%dT%H%M%S"))
            except ValueError:
                continue
            found.append(Capture(folder / name, second + int(parts[2]) / 1000))
    return found


def last_boot(folder: Path) -> list[Path]:
    """The captures of a folder since the machine was started last and tracking was turned on last,
    oldest first by the machine's clock since then, which nobody sets.

    Raises PageownerError if the folder or one of its files cannot be read.
    """
    found: list[Path] = []
    boot: str | None = None
    group: list[Path] = []
    for capture in reversed(captures(folder)):
        group.append(capture.path)
        if not parquet.is_snapshot(capture.path):
            continue
        here = parquet.read_metadata(capture.path).boot_id
        if found and here != boot:
            break
        boot, group, found = here, [], found + group
    known = {path: _metadata(path) for path in found}
    found.sort(key=lambda path: (known[path].clock_ns or 0, path.name))
    began = [known[path].extra.get("since_ns") for path in found]
    # What was there before is without an owner again since.
    first = next((place for place in range(len(began) - 1, 0, -1)
                  if began[place - 1] and began[place] and began[place - 1] != began[place]), 0)
    return found[first:]


def _metadata(path: Path) -> Metadata:
    """Of a capture, whole or of changes."""
    try:
        about = parquet_columns.about(path).get(parquet.CHANGES_KEY)
        if about is None:
            return parquet.read_metadata(path)
        return Metadata.from_json(decode_changes(about, _FORMAT)[1])
    except PageownerError as error:
        raise _named(path, error) from error
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def at(folder: Path, when: float | None = None) -> Snapshot:
    """The newest capture in a folder, or the newest at ``when`` (seconds since 1970) or before.

    Raises PageownerError if there is none, or it cannot be read.
    """
    there = captures(folder)
    if not there:
        raise PageownerError(f"{folder}: is a directory without captures of 'pageowner"
                             " record'; name a dump or a snapshot")
    chosen = [capture for capture in there if when is None or capture.taken <= when]
    if not chosen:
        first = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(there[0].taken))
        raise PageownerError(f"{folder}: no capture that old; the oldest is from"
                             f" {first}")
    return read(chosen[-1].path)


def read(path: Path) -> Snapshot:
    """One capture, put together from the last whole one before it and the changes since.

    Raises PageownerError if a file of these is missing or damaged.
    """
    chain: list[Changes] = []
    current = path
    while (changes := _changes(current)) is not None:
        chain.append(changes)
        if not _NAME.fullmatch(changes.before) or changes.before >= current.name:
            raise PageownerError(f"{current}: the name of the previous capture is damaged")
        current = path.parent / changes.before
        if not current.exists():
            raise PageownerError(f"{path}: builds on {current.name}, which is missing from its"
                                 " directory")
    whole = parquet.read(current)
    return _apply(whole, chain[::-1]) if chain else whole


def each(paths: Sequence[Path]) -> Iterator[Snapshot]:
    """Captures one after another; each builds on the one before where it can."""
    last: Path | None = None
    snapshot: Snapshot | None = None
    for path in paths:
        changes = _changes(path)
        if changes is None:
            snapshot = parquet.read(path)
        elif snapshot is not None and last == path.parent / changes.before:
            snapshot = _apply(snapshot, [changes])
        else:
            snapshot = read(path)
        last = path
        yield snapshot


def rounded(snapshot: Snapshot) -> Snapshot:
    """The same with times of allocation rounded down to microseconds, which saves a quarter."""
    times = snapshot.table["ts_ns"]
    values = times.fill_null(0).to_numpy()
    column = pa.array(values - values % np.uint64(1000), mask=times.is_null().to_numpy())
    place = snapshot.table.column_names.index("ts_ns")
    return Snapshot(snapshot.table.set_column(place, SCHEMA.field("ts_ns"), column), snapshot.meta)


def add(folder: Path, snapshot: Snapshot, taken: float, before: tuple[Path, Snapshot] | None,
        whole: int = 0, handle: int | None = None) -> tuple[Path, bool]:
    """Write a capture, `rounded`: its changes since ``before`` (path and rows of the capture before
    it), or the whole of it if there is none, or the changes take more than half of ``whole``, the
    bytes of the last whole one. ``handle`` is the folder, if the caller keeps it open. Returns its
    path, and whether it is whole.

    Raises PageownerError if it cannot be written; nothing is left then.
    """
    path = folder / file_name(taken)
    changes = None
    if before is not None and before[0].name < path.name:
        changes = _difference(before[1], snapshot, before[0].name)
    if changes is not None:
        text = _packed(changes)
        if len(text) <= whole * _LARGEST:
            with whole_file(path, handle) as file:
                file.write(text)
            return path, False
    parquet.write(snapshot, path, handle)
    return path, True


# -- what changed --------------------------------------------------------------------------------


def _frames(table: pa.Table) -> NDArray[np.uint64] | None:
    """The page frames, if they are all known and in order, as they are in a capture of pages. (In
    a file of changes, a row without a state is a frame that is gone.)"""
    if table["pfn"].null_count or table["state"].null_count:
        return None
    frames: NDArray[np.uint64] = table["pfn"].to_numpy()
    return frames if bool((frames[1:] > frames[:-1]).all()) else None


def _difference(old: Snapshot, new: Snapshot, before: str) -> Changes | None:
    first, second = _frames(old.table), _frames(new.table)
    if first is None or second is None or not len(first) or old.meta.boot_id != new.meta.boot_id:
        return None
    place = np.minimum(np.searchsorted(first, second), len(first) - 1)
    kept = np.flatnonzero(first[place] == second)
    was = place[kept]
    same = np.ones(len(kept), bool)
    for field in SCHEMA:
        if field.name not in ("pfn", "page_flags"):
            same &= _equal(old.table[field.name], new.table[field.name], was, kept)
    words = _flags(new.table)
    lasting = ~np.bitwise_or.reduce([pageflags.bit(name) for name in TRANSIENT])
    flags = same & (((_flags(old.table)[was] ^ words[kept]) & lasting) != 0)
    other = np.ones(len(second), bool)
    other[kept[same]] = False
    gone = np.ones(len(first), bool)
    gone[was] = False
    return Changes(_compact(new.table.filter(pa.array(other))), second[kept[flags]],
                   words[kept[flags]], first[gone], before, new.meta)


def _flags(table: pa.Table) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = table["page_flags"].fill_null(0).to_numpy()
    return words


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[Any]]:
    column = column.unify_dictionaries()
    labels = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
    parts = [chunk.indices.fill_null(-1).to_numpy() for chunk in column.chunks]
    return np.concatenate(parts or [np.zeros(0)]).astype(np.int64), labels


def _equal(old: pa.ChunkedArray, new: pa.ChunkedArray, was: NDArray[np.int64],
           now: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows ``was`` of the old column hold the same as rows ``now`` of the new one."""
    if old.null_count == len(old) and new.null_count == len(new):
        return np.ones(len(was), bool)
    if pa.types.is_dictionary(old.type):
        first, labels = _codes(old)
        second, others = _codes(new)
        place = {label: number for number, label in enumerate(others)}
        same = np.array([*(place.get(label, -2) for label in labels), -1], np.int64)
        equal: NDArray[np.bool_] = same[first][was] == second[now]
        return equal
    known = [~column.is_null().to_numpy() for column in (old, new)]
    values = [column.fill_null(0).to_numpy() for column in (old, new)]
    equal = values[0][was] == values[1][now]
    equal &= known[0][was] == known[1][now]
    return equal


def _compact(table: pa.Table) -> pa.Table:
    """Without columns that are null, and texts that no row has."""
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if column.null_count < len(column):
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode().dictionary_encode()
            columns[name] = column
    return pa.table(columns)


# -- the file ------------------------------------------------------------------------------------


def _packed(changes: Changes) -> bytes:
    """The changes as the bytes of a Parquet file."""
    about = {"format": _FORMAT, "before": changes.before,
             "meta": base64.b64encode(zlib.compress(changes.meta.to_json(), 9)).decode()}
    rows = _ordered(changes.rows)
    gone = pa.table({"pfn": pa.array(changes.gone, pa.uint64())})
    if "ts_ns" in rows.column_names:
        micro = pa.array(rows["ts_ns"].fill_null(0).to_numpy() // np.uint64(1000),
                         mask=rows["ts_ns"].is_null().to_numpy())
        rows = rows.drop_columns("ts_ns").append_column(_MICRO, micro)
    patches = pa.table({"pfn": pa.array(changes.patched, pa.uint64()),
                        "page_flags": pa.array(changes.flags, pa.uint64())})
    numbers = ("pfn", _MICRO.name, "free_ts_ns")
    fields = [field for field in (*SCHEMA, _MICRO) if field.name in rows.column_names
              or field.name in ("pfn", "page_flags", "state")]
    names = [field.name for field in fields]
    schema = pa.schema(fields)
    table = pa.concat_tables([_filled(part, schema) for part in (rows, patches, gone)])
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(
            buffer, schema, compression="zstd", compression_level=9, version="2.6",
            use_dictionary=[name for name in names if name not in numbers],
            column_encoding={name: "DELTA_BINARY_PACKED" for name in names if name in numbers},
            write_page_checksum=True, store_schema=False) as writer:
        writer.write_table(table, row_group_size=_ROWS)
        writer.add_key_value_metadata({parquet.CHANGES_KEY.decode(): json.dumps(about)})
    return bytes(buffer.getvalue())


def _ordered(rows: pa.Table) -> pa.Table:
    """By stack, task and time: small differences stand side by side, and take little room."""
    keys = [name for name in ("stack", "pid", "ts_ns") if name in rows.column_names]
    if not keys or not rows.num_rows:
        return rows
    columns = []
    for name in reversed(keys):
        column = rows[name].combine_chunks()
        if isinstance(column, pa.DictionaryArray):
            column = column.indices
        columns.append(column.fill_null(0).to_numpy(zero_copy_only=False))
    return rows.take(pa.array(np.lexsort(columns)))


def _filled(part: pa.Table, schema: pa.Schema) -> pa.Table:
    return pa.table([part[field.name].cast(field.type) if field.name in part.column_names
                     else pa.nulls(part.num_rows, field.type) for field in schema],
                    schema=schema)


def _changes(path: Path) -> Changes | None:
    """What a file says of changes; None if it is a whole snapshot."""
    try:
        with parquet_columns.columns(path) as file:
            about = file.about.get(parquet.CHANGES_KEY)
            if about is None:
                return None
            before, meta = decode_changes(about, _FORMAT)
            columns = file.read([*SCHEMA, _MICRO])
        if (micro := columns.pop(_MICRO.name, None)) is not None:
            if (pc.max(micro).as_py() or 0) * 1000 >> TIME_BITS:
                raise ValueError("a time of more than 292 years")
            columns["ts_ns"] = pa.array(micro.fill_null(0).to_numpy() * np.uint64(1000),
                                        mask=micro.is_null().to_numpy())
        table = pa.table(columns)
        if table["pfn"].null_count:
            raise ValueError("a row without a pfn")
        row = table["state"].is_valid().to_numpy()
        patch = ~row & table["page_flags"].is_valid().to_numpy()
        patches = table.filter(pa.array(patch))
        gone: NDArray[np.uint64] = table["pfn"].to_numpy()[~row & ~patch]
        rows = table.filter(pa.array(row))
        # of the types that rows have, and of numbers that kernels have
        found = Snapshot.from_columns({name: rows[name] for name in rows.column_names}, Metadata())
        parquet.check(found)
        if len(pc.unique(table["pfn"])) < table.num_rows:
            raise ValueError("two rows with one pfn")
        return Changes(found.table, patches["pfn"].to_numpy(), patches["page_flags"].to_numpy(),
                       gone, before, Metadata.from_json(meta))
    except PageownerError as error:
        raise _named(path, error) from error
    except _DAMAGED as error:
        raise _damaged(path, error) from error


_DAMAGED = (parquet_columns.Damaged, OSError, *parquet.COLUMNS)


def _named(path: Path, error: PageownerError) -> PageownerError:
    """The error with the file's name before it."""
    text = str(error)
    return error if text.startswith(str(path)) else PageownerError(f"{path}: {text}")


def _damaged(path: Path, error: BaseException) -> PageownerError:
    return PageownerError(f"{path}: a damaged file of changes: {parquet.first_line(error)}")


def _apply(whole: Snapshot, chain: Sequence[Changes]) -> Snapshot:
    """Of each page frame what was said last: a row, or that it has none."""
    tables = [whole.table, *(Snapshot.from_columns(
        {name: changes.rows[name] for name in changes.rows.column_names}, changes.meta).table
        for changes in chain)]
    frames = [table["pfn"].to_numpy() for table in tables]
    rows = np.concatenate(frames)
    when = np.repeat(np.arange(len(tables)), [len(part) for part in frames])
    gone = np.concatenate([changes.gone for changes in chain])
    gone_when = np.repeat(np.arange(1, len(tables)), [len(changes.gone) for changes in chain])
    every = np.concatenate([rows, gone])
    order = np.lexsort((np.concatenate([when, gone_when]), every))
    last = order[np.append(every[order][1:] != every[order][:-1], True)]
    last = last[last < len(rows)]
    table = pa.concat_tables(tables).take(pa.array(last)).unify_dictionaries()
    flags = _patched(table["page_flags"], rows[last], when[last], chain)
    if flags is not None:
        table = table.set_column(table.column_names.index("page_flags"),
                                 SCHEMA.field("page_flags"), flags)
    return Snapshot(table, chain[-1].meta)


def _patched(column: pa.ChunkedArray, frames: NDArray[np.uint64], when: NDArray[np.int64],
             chain: Sequence[Changes]) -> pa.Array | None:
    """The page flags, with those said since the row was; None if nothing was said."""
    if not any(len(changes.patched) for changes in chain):
        return None
    known = ~column.is_null().to_numpy()
    flags = column.fill_null(0).to_numpy().copy()
    for number, changes in enumerate(chain, 1):
        place = np.minimum(np.searchsorted(frames, changes.patched), max(len(frames) - 1, 0))
        if not len(frames):
            break
        hit = (frames[place] == changes.patched) & (when[place] < number)
        flags[place[hit]] = changes.flags[hit]
        known[place[hit]] = True
    return pa.array(flags, mask=~known)
