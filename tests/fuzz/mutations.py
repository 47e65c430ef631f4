"""Snapshots and series of which some columns, some words of the metadata, the layout of the file
or some bytes are other than anybody would write them."""

from __future__ import annotations

import base64
import io
import json
import random
import zlib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sound

from pageowner.model.snapshot import SCHEMA, Metadata, Snapshot

_TEXTS = [field.name for field in SCHEMA if pa.types.is_dictionary(field.type)]

_EDGES = [0, 1, 2, 3, 9, 10, 11, 22, 23, 31, 63, 64, 127, 128, 255, 256, 4095, 4096, 12287, 12288,
          (1 << 15) - 1, 1 << 15, (1 << 16) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
          (1 << 44), (1 << 52) - 1, 1 << 52, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1]

_WORDS = [
    "", "x", "\n", "\n\n", "\0", "\x1b[2J", "\u202e", "\u0301", "漢字", "[bold]x[/]", "<svg>&amp;",
    "</script>", "%s%n{0}", "owned", "early", "untracked", "Movable", "Unmovable", "CMA", "Normal",
    "alloc_pages+0x1/0x2", "f+0x1/0x2 [m]\ng+0x1/0x2\nh", "\\xff", "\\", "0x1(lru|node=7|zone=9)",
    "GFP_KERNEL|__GFP_ZERO", "|", ",", "a;b", "'", '"', "?", "*", "-", "register_early_stack",
    "n" * 5000, "f+0x1/0x2\n" * 1500,
]

_JSON: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 10, 22, 23, 1024, 4096, 1 << 20, 1 << 31, 1 << 52,
    (1 << 52) + 1, 1 << 63, 1 << 64, 10**30, "", "x", "\x1b", "\udcff", "\ud800", "n" * 5000, [],
    {}, [[]], [0], [1, 2], {"a": 1}, {"": None}, [[0, "Normal", [1, 2]]], [["x"]],
    [{"count": 1}], [{"start_pfn": 0, "spanned": 1 << 30}],
]


class Pool:
    """What is mutated: small sound snapshots, and a folder of captures."""

    def __init__(self) -> None:
        self.tables = [sound.of_tracker(40), sound.of_tracker(100), sound.of_tracker(7)]
        table, meta = sound.of_dump()
        self.tables += [(table.slice(0, 60), meta), (table.slice(0, 25), meta)]
        # what a verb asks to compare with
        self.sound = Snapshot(self.tables[0][0], Metadata.from_json(
            json.dumps(self.tables[0][1]).encode()))
        self._written: dict[tuple[Any, ...], bytes] = {}

    def first(self, chance: random.Random) -> bytes:
        """A sound capture's file, written once in each layout."""
        layout = _layout(chance)
        key = tuple(layout.values())
        if key not in self._written:
            table, meta = self.tables[0]
            self._written[key] = _file(table, {b"pageowner": json.dumps(meta).encode()}, layout)
        return self._written[key]


def _mutated_json(chance: random.Random, value: Any, depth: int = 0) -> Any:
    """The value with something in it changed, removed, added or doubled."""
    if isinstance(value, dict) and value and chance.random() < (0.95 if depth < 2 else 0.7):
        key = chance.choice(sorted(value))
        changed = dict(value)
        how = chance.random()
        if how < 0.08:
            del changed[key]
        elif how < 0.14:
            changed[chance.choice(("x", "", "spans", "filtered", "n" * 100))] = changed[key]
        else:
            changed[key] = _mutated_json(chance, value[key], depth + 1)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        how = chance.random()
        if how < 0.1:
            return [*value[:place], *value[place + 1:]]
        if how < 0.2:
            return value * chance.choice((2, 7, 40))
        return [*value[:place], _mutated_json(chance, value[place], depth + 1), *value[place + 1:]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return chance.choice((*_EDGES[:20], *_EDGES[:20], *_EDGES, value + 1, value - 1, -value,
                              value << 20, 10**40))
    if isinstance(value, str) and chance.random() < 0.5:
        return _mutated_text(chance, value)
    return chance.choice(_JSON)


def _mutated_text(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    how = chance.randrange(4)
    if how == 0:
        return text[:at]
    if how == 1:
        return text[:at] + chance.choice(_WORDS) + text[at:]
    if how == 2:
        return text * chance.choice((2, 50))
    return text[:at] + chr(chance.choice((0, 10, 32, 43, 47, 65, 0x7f, 0x2028, 0x1f600))) + text[
        at + 1:]


@lru_cache(maxsize=1024)
def _kinds(rows: int) -> list[Any]:
    """Columns of every other type."""
    return [pa.array([1.5] * rows), pa.array([b"\xff\xfe"] * rows), pa.array([[1]] * rows),
            pa.array([True] * rows), pa.array(["x"] * rows), pa.array([7] * rows, pa.int8()),
            pa.array([{"a": 1}] * rows), pa.array([-1] * rows, pa.int64()),
            pa.array(["x"] * rows, pa.large_string())]


def _mutated_column(chance: random.Random, table: pa.Table, meta: dict[str, Any]) -> pa.Table:
    """The table with one column other than it was."""
    rows = table.num_rows
    name = chance.choice(table.column_names if chance.random() < 0.9 or not table.column_names
                         else SCHEMA.names)
    if name not in table.column_names:
        return table
    place = table.column_names.index(name)
    how = chance.randrange(12)
    column = table.column(place)
    if how == 0:
        return table.remove_column(place)
    if how == 1:
        return table.set_column(place, name, pa.nulls(rows, column.type)
                                if not pa.types.is_dictionary(column.type) else pa.nulls(rows))
    if how == 2:
        return table.set_column(place, name, table.column(chance.randrange(table.num_columns)))
    if how == 3:
        return table.append_column(name, column)
    if how == 4:
        order = np.arange(rows)
        np.random.default_rng(chance.randrange(1 << 30)).shuffle(order)
        return table.set_column(place, name, column.take(pa.array(order)))
    if how == 5:
        return table.set_column(place, name, chance.choice(_kinds(rows)))
    values = column.to_pylist()
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) if name in _TEXTS else pa.types.is_integer(kind)):
        values = [None] * rows  # another column in its place
    if name in _TEXTS:
        for _ in range(chance.choice((1, 1, 3, rows))):
            if rows:
                at = chance.randrange(rows)
                values[at] = chance.choice((*_WORDS, None, _mutated_text(
                    chance, str(values[at] or ""))))
        array = pa.array(values, pa.string())
        if chance.random() < 0.5:
            array = array.dictionary_encode()
        return table.set_column(place, name, array)
    edges = _EDGES[:20] if how < 10 else _EDGES
    for _ in range(chance.choice((1, 1, 3, rows))):
        if rows:
            values[chance.randrange(rows)] = chance.choice((*edges, None))
    if name == "node" and chance.random() < 0.3:
        values = [-3 if value is None else value for value in values]
    kind = pa.int64() if any(value is not None and value < 0 for value in values) else pa.uint64()
    try:
        array = pa.array(values, column.type if chance.random() < 0.5 else kind)
    except (OverflowError, pa.ArrowException, TypeError):
        array = pa.array([None if value is None else value & ((1 << 64) - 1) for value in values],
                         pa.uint64())
    return table.set_column(place, name, array)


def _layout(chance: random.Random) -> dict[str, Any]:
    """How the file is written."""
    return {"compression": chance.choice(("zstd", "none", "snappy", "gzip")),
            "row_group_size": chance.choice((None, None, None, 20)),
            "use_dictionary": chance.random() < 0.7,
            "version": chance.choice(("1.0", "2.6", "2.6")),
            "data_page_version": chance.choice(("1.0", "2.0")),
            "store_schema": chance.random() < 0.7,
            "write_statistics": chance.random() < 0.5}


def _written(chance: random.Random, table: pa.Table, about: dict[bytes, bytes]) -> bytes:
    return _file(table, about, _layout(chance))


def _file(table: pa.Table, about: dict[bytes, bytes], layout: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    try:
        pq.write_table(table.replace_schema_metadata(about), file, **layout)
    except (pa.ArrowException, ValueError):  # some kinds of columns have no place in version 1.0
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(about), file)
    return file.getvalue()


def _spoilt(chance: random.Random, raw: bytes) -> bytes:
    """Some bytes other than they were, most often where the file describes itself."""
    text = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(max(0, len(text) - 1500), len(text)) if chance.random() < 0.6 else (
            chance.randrange(len(text)))
        how = chance.randrange(4)
        if how == 0:
            text[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            text[at] = chance.randrange(256)
        elif how == 2:
            del text[at:at + chance.choice((1, 4, 100))]
        else:
            text[at:at] = bytes(chance.choices(range(256), k=chance.choice((1, 4, 9))))
        if len(text) < 12:
            break
    return bytes(text)


def mutated(chance: random.Random, pool: Pool) -> bytes:
    """A snapshot's file."""
    table, meta = chance.choice(pool.tables)
    said: Any = meta
    about: dict[bytes, bytes] = {}
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        table = _mutated_column(chance, table, meta)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
        said = _mutated_json(chance, said)
    text = json.dumps(said).encode()
    if chance.random() < 0.05:
        text = _spoilt(chance, text)
    if chance.random() < 0.98:
        about[b"pageowner"] = text
    if chance.random() < 0.5:
        about[b"pageowner.order"] = chance.choice((b"pfn", b"pfn", b"comm", b""))
    raw = _written(chance, table, about)
    return _spoilt(chance, raw) if chance.random() < 0.1 else raw


def mutated_series(chance: random.Random, pool: Pool, folder: Path) -> list[Path]:
    """Files of a folder of captures: a whole one, and changes."""
    table, meta = pool.tables[0]
    (folder / sound.FIRST).write_bytes(
        mutated(chance, pool) if chance.random() < 0.2 else pool.first(chance))
    names = [sound.FIRST, sound.SECOND, sound.THIRD]
    for before, name in pairwise(names[:chance.choice((2, 3))]):
        said: Any = {**meta, "clock_ns": meta["clock_ns"] + 10**9 * names.index(name)}
        rows = table.slice(chance.randrange(30), chance.choice((0, 1, 5)))
        changes = rows.drop_columns("ts_ns").append_column("ts_us", pa.array(
            [None if ts is None else ts // 1000 for ts in rows["ts_ns"].to_pylist()], pa.uint64()))
        taken = set(rows["pfn"].to_pylist())
        gone = [pfn for pfn in table["pfn"].to_pylist()[:chance.choice((0, 1, 9))]
                if pfn not in taken]
        alone = pa.table({"pfn": pa.array(gone, pa.uint64())})
        patched = pa.table({"pfn": pa.array([4096 + 16 * 39] if rows.num_rows < 5 else [],
                                            pa.uint64())})
        if patched.num_rows:
            patched = patched.append_column("page_flags", pa.array([0x10], pa.uint64()))
        parts = [changes, alone, *([patched] if patched.num_rows else [])]
        changes = pa.concat_tables(parts, promote_options="default")
        for _ in range(chance.choice((0, 1, 1, 3))):
            changes = _mutated_column(chance, changes, meta)
        for _ in range(chance.choice((0, 0, 1, 2))):
            said = _mutated_json(chance, said)
        about: Any = {"format": 1, "before": before, "meta": base64.b64encode(
            zlib.compress(json.dumps(said).encode(), 1)).decode()}
        if chance.random() < 0.3:
            about = _mutated_json(chance, about)
        raw = _written(chance, changes, {b"pageowner.changes": json.dumps(about).encode()})
        (folder / name).write_bytes(_spoilt(chance, raw) if chance.random() < 0.1 else raw)
    return [folder / name for name in names if (folder / name).exists()]
