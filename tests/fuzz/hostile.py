"""Snapshots and series as somebody with bad intent would make them by hand, and every verb's
questions to them.

    python tests/fuzz/hostile.py [COUNT [SEED]]

What holds for every file and verb: it ends within `SECONDS`, with a status that is documented, no
traceback, and no more than `MIB` of memory. Each runs in a process of its own (a fork of this one,
in which all is imported). Also used by tests/unit/test_hostile_files.py.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pageowner.runs import pack
from pageowner.snapshot import SCHEMA, Metadata, Snapshot

SECONDS = 60
MIB = 1024
ROOM_MIB = 1024
"""Of addresses, beside those that are taken before the first word is understood: who needs more has
to say so in one line."""

_READ = 1 << 20

Make = Callable[[Path], None]


def of_tracker(rows: int = 300) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the metadata of a small capture that is sound."""
    place = np.arange(rows)
    early = place % 3 == 0
    stack = [None if one else f"alloc_pages+0x1/0x9\nfunc_{at % 7}+0x2/0x8 [mod{at % 3}]"
             for at, one in zip(place.tolist(), early, strict=True)]
    snapshot = Snapshot.from_columns({
        "pfn": (place * 16 + 4096).astype("u8"), "order": (place % 4).astype("u1"),
        "gfp_mask": pa.array([0xcc0] * rows, pa.uint32()),
        "gfp_flags": ["GFP_KERNEL"] * rows,
        "migratetype": [("Unmovable", "Movable", "Reclaimable")[at % 3] for at in place],
        "pid": (place % 5 + 100).astype("i4"), "tgid": (place % 5 + 100).astype("i4"),
        "comm": [f"task{at % 5}" for at in place], "ts_ns": (place * 1000 + 10**9).astype("u8"),
        "stack": stack, "state": ["early" if one else "owned" for one in early],
        "block_migratetype": [("Unmovable", "Movable")[at // 32 % 2] for at in place],
        "zone": ["Normal"] * rows, "node": np.zeros(rows, "i2"),
        "page_flags": np.where(place % 2, 0x828, 0x80).astype("u8"),
        "memcg": [None if at % 2 else "/system.slice" for at in place],
    }, Metadata())
    meta = {
        "schema": 1, "source": "", "kind": "tracker", "host": "machine", "kernel": "6.12.1",
        "boot_id": "b", "taken_at": "2026-01-02T03:04:05Z", "clock_ns": 10**12, "page_size": 4096,
        "pageblock_order": 9, "dump_format": {}, "hooks": {"mm_page_alloc": "active"},
        "zones": [{"node": 0, "name": "Normal", "start_pfn": 4096, "spanned": 8192,
                   "present": 8192, "managed": 8000}],
        "frames": {"free": 1000, "owned": 500, "early": 200, "untracked": 0},
        "counters": {"lost": 0},
        "extra": {"since_ns": 5, "options": {"depth": 16, "memo_check": 0.001},
                  "extfrag": [{"comm": "x", "pid": 1, "tgid": 1, "stack": "a+0x1/0x2", "order": 0,
                               "migratetype": "Movable", "fallback_order": 3,
                               "fallback_migratetype": "Unmovable", "count": 4, "last_ns": 5}],
                  "memory": {"held": pack(np.array([[4096, 4100]])), "tasks": [100, 101],
                             "free": [[0, "Normal", [3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1]]]}}}
    return snapshot.table, meta


def of_dump() -> tuple[pa.Table, dict[str, Any]]:
    """The same as a dump of the kernel's would be."""
    table, meta = of_tracker()
    meta |= {"kind": "page_owner", "source": "dump.txt", "zones": [], "frames": {}, "hooks": {},
             "counters": {"damaged": 1}, "extra": {"damage": [[7, "cut"]]},
             "dump_format": {"decimal_pfn": False, "free_ts": False, "pfn_lines": True}}
    rows = table.num_rows
    nothing = pa.nulls(rows, pa.uint64())
    at = table.column_names.index
    table = table.set_column(at("page_flags"), SCHEMA.field("page_flags"), nothing)
    flags = pa.array(["0x2c(referenced|lru|node=0|zone=2)"] * rows).dictionary_encode()
    return table.set_column(at("flags"), SCHEMA.field("flags"), flags), meta


def written(path: Path, table: pa.Table, meta: object, **more: Any) -> None:
    """A Parquet file with these columns and this text, or object, as metadata."""
    text = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    pq.write_table(table.replace_schema_metadata(
        {b"pageowner": text, **more.pop("about", {})}), path, **more)


def _changed(meta: dict[str, Any], place: tuple[Any, ...], value: object) -> dict[str, Any]:
    """The metadata with another value at a place, such as ``("zones", 0, "name")``."""
    whole: dict[str, Any] = json.loads(json.dumps(meta))
    inner: Any = whole
    for word in place[:-1]:
        inner = inner[word]
    inner[place[-1]] = value
    return whole


_ODD: dict[str, object] = {
    "null": None, "true": True, "minus": -1, "float": 1.5, "2^31": 1 << 31, "2^52": 1 << 52,
    "2^62": 1 << 62, "2^63": 1 << 63, "2^64": 1 << 64, "30 digits": 10**30, "400 digits": 10**400,
    "text": "x", "empty": "", "escape": "\x1b[2J\n", "surrogate": "\ud800", "byte": "\udcff",
    "list": [], "lists": [[], [1]], "object": {}, "objects": {"a": {"b": [1]}}, "nul": "\0",
    "long": "n" * 300_000, "markup": "</script><b>&amp;", "bold": "[bold]x[/]", "%": "%s%n{0}",
}

_PLACES: tuple[tuple[Any, ...], ...] = (
    ("schema",), ("source",), ("kind",), ("host",), ("kernel",), ("boot_id",), ("taken_at",),
    ("clock_ns",), ("page_size",), ("pageblock_order",), ("dump_format",), ("zones",), ("zones", 0),
    ("zones", 0, "node"), ("zones", 0, "name"), ("zones", 0, "start_pfn"), ("zones", 0, "spanned"),
    ("zones", 0, "present"), ("hooks",), ("hooks", "mm_page_alloc"),
    ("hooks", "mm_page_alloc_extfrag"), ("frames",), ("frames", "free"), ("frames", "filtered"),
    ("counters",), ("counters", "lost"), ("counters", "damaged"), ("extra",), ("extra", "damage"),
    ("extra", "since_ns"), ("extra", "options"), ("extra", "options", "min_order"),
    ("extra", "options", "kernel_only"), ("extra", "extfrag"), ("extra", "extfrag", 0),
    *(("extra", "extfrag", 0, name) for name in (
        "comm", "pid", "tgid", "stack", "order", "migratetype", "count", "last_ns")),
    ("extra", "memory"), *(("extra", "memory", name) for name in (
        "held", "filtered", "free", "tasks")),
    ("extra", "memory", "free", 0), ("extra", "memory", "free", 0, 0),
    ("extra", "memory", "free", 0, 1), ("extra", "memory", "free", 0, 2),
    ("extra", "memory", "free", 0, 2, 3), ("extra", "memory", "tasks", 0),
)


def _metadata_files() -> Iterator[tuple[str, Make]]:
    table, meta = of_tracker()

    def with_meta(value: object) -> Make:
        return lambda path: written(path, table, value() if callable(value) else value)

    def put(place: tuple[Any, ...], value: Any, times: int) -> Callable[[], bytes]:
        return lambda: _text(meta, place, value * times)

    for place in _PLACES:
        for name, odd in _ODD.items():
            yield f"{'.'.join(map(str, place))} is {name}", with_meta(
                lambda place=place, odd=odd: _changed(meta, place, odd))
    raw = json.dumps(meta).encode()
    for name, text in {
        "cut": raw[:100], "nothing": b"", "no object": b"[]", "not UTF-8": raw[:-1] + b',"\xff":1}',
        "deep": b'{"schema":1,"extra":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        "deeper": lambda: b'{"schema":1,"extra":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "deep zones": b'{"schema":1,"zones":' + b"[" * 900 + b"]" * 900 + b"}",
        "many zones": lambda: b'{"schema":1,"zones":[' + b",".join(
            b'{"start_pfn":%d,"spanned":1}' % at for at in range(200_000)) + b"]}",
        "many events": lambda: b'{"schema":1,"extra":{"extfrag":[' + b",".join(
            [b'{"count":1}'] * 500_000) + b"]}}",
        "many free": put(("extra", "memory", "free"), [[0, "Normal", [1]]], 200_000),
        "free of many orders": put(("extra", "memory", "free", 0, 2), [1], 200_000),
        "free is much": put(("extra", "memory", "free", 0, 2), [(1 << 62) - 1], 60),
        "many tasks": put(("extra", "memory", "tasks"), [7], 1_000_000),
        "many counters": lambda: _text(meta, ("counters",), dict.fromkeys(
            map(str, range(200_000)), 1)),
        "many hooks": lambda: _text(meta, ("hooks",), dict.fromkeys(
            map(str, range(200_000)), "x")),
        "long event stack": put(("extra", "extfrag", 0, "stack"), "a+0x1/0x2\n", 10**6),
        "twice": raw[:-1] + b',"zones":7}', "a number too large": b'{"schema":1e999}',
        "NaN": b'{"schema":1,"clock_ns":NaN}', "white": b" " * 10_000_000 + raw,
        "large": lambda: b'{"schema":1,"x":"' + b"a" * 90_000_000 + b'"}',
        "large list": lambda: b'{"schema":1,"x":[' + b"1," * 20_000_000 + b"1]}",
    }.items():
        yield f"metadata: {name}", with_meta(text)
    bomb = zlib.compress((b"\1" + b"\0" * 7) * (9 << 20), 9)  # of 72 MiB
    ends = np.array([[0, (1 << 52) - 1]])
    for name, runs in {
        "a bomb": base64.b64encode(bomb).decode(), "all memory": pack(ends),
        "to the end": pack(np.array([[4096, 12288]])), "no base64": "!", "no zlib": "AAAA",
        "half a run": base64.b64encode(zlib.compress(b"\0" * 8)).decode(),
        "backwards": base64.b64encode(zlib.compress(
            np.array([5, -3, 5, 5], "<i8").tobytes())).decode(),
        "a million": pack(np.arange(2_000_000).reshape(-1, 2) * 2),
    }.items():
        for word in ("held", "filtered"):
            yield f"{word} runs: {name}", with_meta(_changed(meta, ("extra", "memory", word), runs))
    for name, zones in {
        "all memory": [[0, (1 << 52) - 1]], "overlapping": [[4096, 8192]] * 40,
        "the far end": [[4096, 8192], [(1 << 52) - 512, 512]], "empty": [[4096, 0]],
        "5,000 of one page": [[at * 2, 1] for at in range(5000)],
        "1,000 over each other": [[at, 100_000 - 2 * at] for at in range(1000)],
        "64 TiB apart": [[4096, 8192], [1 << 34, 1 << 18]],
        "16 TiB": [[0, 1 << 32]],
    }.items():
        listed = [{"node": at % 1024, "name": f"z{at}", "start_pfn": start, "spanned": spanned}
                  for at, (start, spanned) in enumerate(zones)]
        yield f"zones: {name}", with_meta(_changed(meta, ("zones",), listed))


def _text(meta: dict[str, Any], place: tuple[Any, ...], value: object) -> bytes:
    return json.dumps(_changed(meta, place, value)).encode()


def _column_files() -> Iterator[tuple[str, Make]]:
    tracker, meta = of_tracker()
    dump, dump_meta = of_dump()
    rows = tracker.num_rows

    def put(name: str, values: Any, table: pa.Table = tracker, about: object = meta,
            **more: Any) -> Make:
        def make(path: Path) -> None:
            array = values() if callable(values) else values
            written(path, table.set_column(table.column_names.index(name), name, array), about,
                    **more)
        return make

    numbers: dict[str, Any] = {
        "null": pa.nulls(rows), "text": pa.array(["x"] * rows), "float": pa.array([0.5] * rows),
        "NaN": pa.array([float("nan")] * rows), "minus": pa.array([-1] * rows, pa.int64()),
        "0": pa.array([0] * rows, pa.int64()), "127": pa.array([127] * rows, pa.int64()),
        "2^15 - 1": pa.array([(1 << 15) - 1] * rows, pa.int64()),
        "2^31 - 1": pa.array([(1 << 31) - 1] * rows, pa.int64()),
        "-2^31": pa.array([-(1 << 31)] * rows, pa.int64()),
        "2^32 - 1": pa.array([(1 << 32) - 1] * rows, pa.int64()),
        "2^52 - 1": pa.array([(1 << 52) - 1] * rows, pa.uint64()),
        "2^52": pa.array([1 << 52] * rows, pa.uint64()),
        "2^63 - 1": pa.array([(1 << 63) - 1] * rows, pa.uint64()),
        "2^64 - 1": pa.array([(1 << 64) - 1] * rows, pa.uint64()),
        "spread": pa.array([at << 43 for at in range(rows)], pa.uint64()),
        "rising": pa.array(list(range(rows)), pa.uint64()),
        "half null": pa.array([at if at % 2 else None for at in range(rows)], pa.uint64()),
        "list": pa.array([[1]] * rows), "struct": pa.array([{"a": 1}] * rows),
        "decimal": pa.array([1] * rows).cast(pa.decimal128(38)),
        "time": pa.array([1] * rows, pa.timestamp("ns")), "bool": pa.array([True] * rows),
    }
    for name in ("pfn", "order", "gfp_mask", "pid", "tgid", "ts_ns", "free_ts_ns", "node",
                 "page_flags", "handle"):
        for word, array in numbers.items():
            yield f"{name} is {word}", put(name, array)
        for word in ("null", "2^52 - 1", "spread", "rising", "half null"):
            yield f"{name} of a dump is {word}", put(name, numbers[word], dump, dump_meta)
    texts: dict[str, Any] = {
        "null": pa.nulls(rows), "number": pa.array([7] * rows), "bytes": pa.array([b"\xff"] * rows),
        "empty": pa.array([""] * rows), "newlines": pa.array(["\n\n\n"] * rows),
        "escape": pa.array(["\x1b[2J\x1b]0;t\x07\r"] * rows), "nul": pa.array(["\0"] * rows),
        "markup": pa.array(["</script><svg onload=x>&amp;"] * rows),
        "bold": pa.array(["[bold]x[/bold][/]"] * rows), "format": pa.array(["%s%n{0}{x!r}"] * rows),
        "right to left": pa.array(["\u202eabc\u2066"] * rows),
        "marks": pa.array(["\u0301" * 200] * rows), "wide": pa.array(["漢" * 500] * rows),
        "frames": pa.array(["f+0x1/0x2\n" * 3000] * rows),
        "one frame": pa.array(["f" * 5000 + "+0x1/0x2"] * rows),
        "brackets": pa.array(["[" * 2000 + "]" * 2000] * rows),
        "each another": pa.array([f"n{at}" for at in range(rows)]),
        "flags": pa.array(["|".join(f"__GFP_{at}" for at in range(2000))] * rows),
        "named flags": pa.array(["0x1(" + "|".join(["lru"] * 5000) + ")"] * rows),
        "large": pa.array(["x"] * rows, pa.large_string()).dictionary_encode(),
        "small places": pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), ["a"]),
        "10 MB": lambda: pa.array(["n" * 10_000_000]).dictionary_encode().take(
            pa.array([0] * rows)),
        "10 MB of newlines": lambda: pa.array(["\n" * 10_000_000]).dictionary_encode().take(
            pa.array([0] * rows)),
        "10 MB of frames": lambda: pa.array(["fu+0x1/0x2\n" * 900_000]).dictionary_encode().take(
            pa.array([0] * rows)),
        "30 of 1 MB": lambda: pa.array([f"{at:02}" + "é" * 500_000 for at in range(30)]
                                       ).dictionary_encode().take(pa.array(np.arange(rows) % 30)),
    }
    for name in ("gfp_flags", "migratetype", "comm", "stack", "state", "block_migratetype", "zone",
                 "flags", "memcg", "migrate_reason", "notes"):
        for word, array in texts.items():
            yield f"{name} is {word}", put(name, array)
    for name in ("comm", "stack", "flags", "notes", "zone"):
        for word in ("newlines", "escape", "10 MB", "30 of 1 MB", "null"):
            yield f"{name} of a dump is {word}", put(name, texts[word], dump, dump_meta)


def _shape_files() -> Iterator[tuple[str, Make]]:
    table, meta = of_tracker()

    def rows(number: int, **columns: Any) -> Make:
        """So many rows that take next to nothing in the file."""
        def make(path: Path) -> None:
            small = 1 << 18
            made = Snapshot.from_columns({
                "pfn": np.arange(small, dtype="u8"), "order": np.zeros(small, "u1"),
                "state": pa.DictionaryArray.from_arrays(np.zeros(small, "i4"), ["owned"]),
                **columns}, Metadata()).table
            with pq.ParquetWriter(path, made.schema.with_metadata(
                    {b"pageowner": json.dumps(meta).encode()}), compression="zstd",
                    use_dictionary=["state", "comm", "stack"],
                    column_encoding={"pfn": "DELTA_BINARY_PACKED"}) as writer:
                for _ in range(number // small):
                    writer.write_table(made)
        return make

    yield "no rows", lambda path: written(path, table.slice(0, 0), meta)
    yield "one row", lambda path: written(path, table.slice(0, 1), meta)
    yield "no columns", lambda path: written(path, pa.table({}), meta)
    yield "only pfn", lambda path: written(path, table.select(["pfn"]), meta)
    yield "only order", lambda path: written(path, table.select(["order"]), meta)
    yield "other columns", lambda path: written(path, pa.table({"a": [1]}), meta)
    yield "a column twice", lambda path: written(
        path, table.append_column("order", table["order"]), meta)
    yield "2,000 columns", lambda path: written(path, pa.table(
        {f"c{at}": [1] for at in range(2000)}), meta)
    yield "a row group each", lambda path: written(path, table, meta, row_group_size=1)
    yield "rows backwards", lambda path: written(
        path, table.take(pa.array(np.arange(table.num_rows)[::-1])), meta)
    yield "order of pfn without pfn", lambda path: written(
        path, table.select(["order"]), meta, about={b"pageowner.order": b"pfn"})
    yield "order of another column", lambda path: written(
        path, table, meta, about={b"pageowner.order": b"comm"})
    yield "2 million rows", rows(2_000_000)
    yield "60 million rows", rows(60_000_000)
    yield "rows all over each other", lambda path: written(path, Snapshot.from_columns({
        "pfn": np.arange(200_000, dtype="u8"), "order": np.full(200_000, 20, "u1")},
        Metadata()).table, meta)
    yield "300,000 owners", lambda path: written(path, Snapshot.from_columns({
        "pfn": np.arange(300_000, dtype="u8"), "order": np.zeros(300_000, "u1"),
        "comm": [f"t{at}" for at in range(300_000)],
        "stack": [f"f{at}+0x1/0x2\nmain+0x1/0x2" for at in range(300_000)]},
        Metadata()).table, meta)
    yield "deep and many", lambda path: written(path, Snapshot.from_columns({
        "pfn": np.arange(3000, dtype="u8"), "order": np.zeros(3000, "u1"),
        "stack": ["\n".join(f"f{at}_{deep}+0x1/0x2" for deep in range(64))
                  for at in range(3000)]}, Metadata()).table, meta)
    for codec in ("none", "snappy", "gzip", "brotli", "lz4"):
        yield f"packed by {codec}", lambda path, codec=codec: written(
            path, table, meta, compression=codec)
    yield "not Parquet", lambda path: path.write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1")
    yield "only the ends", lambda path: path.write_bytes(b"PAR1PAR1")
    yield "a footer too long", lambda path: path.write_bytes(
        b"PAR1" + b"\0" * 50 + b"\xff\xff\xff\x7f" + b"PAR1")
    yield "changes alone", lambda path: written(path, table, b"", about={
        b"pageowner.changes": b"{}"}) if False else _changes_file(path, {})


def _changes_file(path: Path, about: object, table: pa.Table | None = None) -> None:
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    if table is None:
        table = pa.table({"pfn": pa.array([4096], pa.uint64()),
                          "state": pa.nulls(1, SCHEMA.field("state").type),
                          "page_flags": pa.nulls(1, pa.uint64())})
    pq.write_table(table.replace_schema_metadata({b"pageowner.changes": text}), path)


FIRST, SECOND, THIRD = (f"20260102T03040{at}.000Z.parquet" for at in (5, 6, 7))


def _series_folders() -> Iterator[tuple[str, Make]]:
    table, meta = of_tracker()
    packed = base64.b64encode(zlib.compress(json.dumps(
        {**meta, "clock_ns": 2 * 10**12}).encode())).decode()
    sound = {"format": 1, "before": FIRST, "meta": packed}

    def folder(about: object, rows: pa.Table | None = None, first: object = meta,
               name: str = SECOND) -> Make:
        def make(path: Path) -> None:
            path.mkdir()
            written(path / FIRST, table, first)
            _changes_file(path / name, about, rows)
        return make

    yield "series: sound", folder(sound)
    for word in ("format", "before", "meta"):
        for name, odd in _ODD.items():
            yield f"series: {word} is {name}", folder({**sound, word: odd})
    for name, before in {"itself": SECOND, "later": THIRD, "elsewhere": f"../{FIRST}",
                         "absolute": "/etc/passwd", "gone": "20260102T030404.000Z.parquet"}.items():
        yield f"series: before is {name}", folder({**sound, "before": before})
    bomb = base64.b64encode(zlib.compress(b" " * (300 << 20), 9)).decode()
    for name, text in {
        "a bomb": bomb, "no object": base64.b64encode(zlib.compress(b"[]")).decode(),
        "cut": packed[:40], "deep": base64.b64encode(zlib.compress(b"[" * 10**6)).decode(),
        "zones that are none": base64.b64encode(zlib.compress(json.dumps(
            _changed(meta, ("zones", 0, "name"), 5)).encode())).decode(),
    }.items():
        yield f"series: meta is {name}", folder({**sound, "meta": text})
    for name, raw in {"cut": b"{", "list": b"[]", "deep": b"[" * 100_000, "nothing": b""}.items():
        yield f"series: about is {name}", folder(raw)
    state = SCHEMA.field("state").type
    gone = pa.nulls(3, state)
    for name, columns in {
        "pfn twice": {"pfn": pa.array([1, 1, 2], pa.uint64()), "state": gone},
        "no pfn": {"state": gone}, "no state": {"pfn": pa.array([1, 2, 3], pa.uint64())},
        "pfn null": {"pfn": pa.array([1, None, 3], pa.uint64()), "state": gone},
        "pfn text": {"pfn": pa.array(["a", "b", "c"]), "state": gone},
        "flags text": {"pfn": pa.array([1, 2, 3], pa.uint64()), "state": gone,
                       "page_flags": pa.array(["a", "b", "c"])},
        "time too large": {"pfn": pa.array([1, 2, 3], pa.uint64()),
                           "state": pa.array(["owned"] * 3).cast(state),
                           "order": pa.array([0] * 3, pa.uint8()),
                           "ts_us": pa.array([(1 << 64) - 1] * 3, pa.uint64())},
        "order too large": {"pfn": pa.array([1, 2, 3], pa.uint64()),
                            "state": pa.array(["owned"] * 3).cast(state),
                            "order": pa.array([60] * 3, pa.uint8())},
        "pfn too large": {"pfn": pa.array([1, 2, (1 << 64) - 1], pa.uint64()),
                          "state": pa.array(["owned"] * 3).cast(state),
                          "order": pa.array([0] * 3, pa.uint8())},
    }.items():
        yield f"series: {name}", folder(sound, pa.table(columns))
    yield "series: whole is hostile", folder(sound, first=_changed(meta, ("zones", 0, "name"), 5))
    yield "series: of changes alone", lambda path: (path.mkdir(), _changes_file(
        path / SECOND, sound), None)[-1]
    yield "series: empty", lambda path: path.mkdir()
    yield "series: a folder for a file", lambda path: (path / FIRST).mkdir(parents=True)


def files() -> dict[str, Make]:
    """Every hand-made file or folder, by what is odd in it."""
    table, meta = of_tracker()
    dump, dump_meta = of_dump()
    found: dict[str, Make] = {
        "sound": lambda path: written(path, table, meta),
        "a sound dump": lambda path: written(path, dump, dump_meta)}
    for part in (_metadata_files(), _column_files(), _shape_files(), _series_folders()):
        for name, make in part:
            assert name not in found, name
            found[name] = make
    return found


VERBS: tuple[tuple[str, ...], ...] = (
    ("report", "F"), ("report", "F", "--full"), ("report", "F", "--json", "--by", "comm,stack"),
    ("report", "F", "--all", "--by",
     "subsystem,module,frame,memcg,zone,node,state,block,gfp,order,reason,pid"),
    ("report", "F", "--older", "1s", "--comm", "t*"), ("report", "F", "--zone", "Normal"),
    ("report", "F", "--gfp", "KERNEL", "--state", "owned"), ("who", "0x1000", "-s", "F"),
    ("who", "4096", "4503599627370495", "-s", "F", "--json"), ("frag", "F"),
    ("frag", "F", "--order", "9", "--want", "3"), ("frag", "F", "--by", "comm", "--json"),
    ("frag", "F", "--order", "3", "--json", "--all"), ("map", "F"), ("map", "F", "--json"),
    ("map", "F", "--by", "age", "--order", "hilbert"), ("map", "F", "--png", "O"),
    ("map", "F", "--html", "O", "--by", "comm"), ("flame", "F", "--svg", "O"),
    ("flame", "F", "--html", "O", "--by", "comm,memcg"), ("flame", "F", "S", "--svg", "O"),
    ("export", "F", "--format", "pprof", "-o", "O"), ("export", "F", "--format", "folded"),
    ("export", "F", "--format", "speedscope"), ("export", "F", "--format", "json"),
    ("export", "F", "--format", "csv"), ("export", "F", "--format", "parquet", "-o", "O"),
    ("diff", "F", "S"), ("diff", "S", "F", "--by", "comm", "--json"), ("diff", "F", "F", "--full"),
    ("leaks", "F", "F", "F", "F"), ("leaks", "F", "S", "S", "S", "--json"), ("save", "O", "F"),
    ("save", "O", "F", "--order", "0"), ("dump", "F"), ("stacks", "F"), ("stacks", "F", "--json"),
    ("query", "SELECT count(*), sum(pages), max(age_s) FROM pages", "F"),
    ("query", "SELECT * FROM pages LIMIT 5", "F", "--json"),
    ("query", "SELECT comm, subsystem, module, sum(bytes) FROM pages GROUP BY ALL", "F", "S"),
    ("sort", "F", "O"),
)
"""Questions to a file ``F``; ``S`` is a sound one, ``O`` what is written."""


class End(NamedTuple):
    """How a command ended: its status (minus a signal's number), what it wrote (the beginning, and
    how much), the seconds it took and the MiB that were in memory at most."""

    status: int
    out: bytes
    err: bytes
    seconds: float
    mib: int
    wrote: int = 0


def preload(there: Files) -> None:
    """Ask every question to a sound file once, in this process, so that all is imported in its
    forks."""
    from pageowner.cli import main

    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    saved = [os.dup(number) for number in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(null, number)
        for verb in VERBS:
            main(list(there.words(verb, there.sound)))
            there.output(verb).unlink(missing_ok=True)
        sys.stdout.flush()
    finally:
        for number, file in zip((1, 2), saved, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.close(null)
        for number, handler in signals.items():
            signal.signal(number, handler)
    gc.collect()
    gc.freeze()


def run(words: tuple[str, ...], folder: Path, room_mib: int = ROOM_MIB,
        seconds: int = SECONDS) -> End:
    """Run ``pageowner WORDS...`` in a fork of this process."""
    out, err = folder / "stdout", folder / "stderr"
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Arrow's threads hold no lock that the child takes
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            status = _child(words, out, err, room_mib, seconds)
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status, used = os.wait4(child, 0)
    began_with = []
    for path in (out, err):
        with path.open("rb") as file:
            began_with.append(file.read(_READ))
    return End(os.waitstatus_to_exitcode(status), *began_with, time.monotonic() - began,
               used.ru_maxrss >> 10, out.stat().st_size)


def _child(words: tuple[str, ...], out: Path, err: Path, room_mib: int, seconds: int) -> int:
    from pageowner.cli import main

    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (room_mib << 20), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    return main(list(words))


def why_wrong(end: End) -> str:
    """What of an end must not be; empty if it is well."""
    text = end.err.decode(errors="replace")
    if end.status == -signal.SIGALRM:
        return f"not done after {end.seconds:.0f} s"
    if "Traceback" in text or end.status not in range(4):
        lines = text.strip().splitlines() or [""]
        where = [line for line in lines if line.startswith("  File") and "pageowner" in line]
        return f"status {end.status}: {lines[-1][:150]} ({where[-1][-80:] if where else ''})"
    if end.mib > MIB:
        return f"{end.mib:,} MiB"
    if end.status == 1 and not text and end.out == b"":
        return "failed without a word"
    if end.status in (1, 2) and max(map(len, text.splitlines() or [""])) > 5000:
        return f"a line of {len(text):,} characters"
    return ""


class Files:
    """The hand-made files, each written when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = files()
        self.sound = folder / "sound.parquet"
        self.made["sound"](self.sound)

    def output(self, verb: tuple[str, ...]) -> Path:
        """Where a verb writes."""
        return self.folder / ("out.svg" if "--svg" in verb else "out")

    def words(self, verb: tuple[str, ...], path: Path) -> tuple[str, ...]:
        """A verb with the names of the files."""
        words = {"F": str(path), "S": str(self.sound), "O": str(self.output(verb))}
        return tuple(words.get(word, word) for word in verb)

    def ask(self, verb: tuple[str, ...], path: Path, **limits: int) -> End:
        """One question to one file."""
        try:
            return run(self.words(verb, path), self.folder, **limits)
        finally:
            self.output(verb).unlink(missing_ok=True)


def main(count: int, seed: int) -> int:
    """Check ``count`` combinations, every file before any of them a second time; how many failed.
    """
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    slowest, largest = (0.0, ""), (0, "")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        there = Files(Path(name))
        preload(there)
        names = chance.sample(list(there.made), len(there.made))
        each = max(-(-count // len(names)), 1)
        for number, file in enumerate(names):
            if seen["combinations"] >= count:
                break
            path = there.folder / f"hostile-{number}.parquet"
            there.made[file](path)
            for verb in chance.sample(VERBS, min(each, len(VERBS))):
                end = there.ask(verb, path)
                seen["combinations"] += 1
                seen[f"status {end.status}"] += 1
                seen["out of memory, or it would be"] += (
                    b"out of memory" in end.err or b" available; " in end.err)
                slowest = max(slowest, (end.seconds, f"{file}: {' '.join(verb)}"))
                largest = max(largest, (end.mib, f"{file}: {' '.join(verb)}"))
                if wrong := why_wrong(end):
                    seen["failed"] += 1
                    print(f"{file}: {' '.join(verb)}: {wrong}", flush=True)
            if path.is_dir():
                for inner in path.iterdir():
                    inner.rmdir() if inner.is_dir() else inner.unlink()
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
    for what, sum_ in sorted(seen.items()):
        print(f"{sum_:>10,}  {what}")
    print(f"slowest {slowest[0]:.1f} s: {slowest[1]}\nlargest {largest[0]:,} MiB: {largest[1]}")
    return seen["failed"]


if __name__ == "__main__":
    failed = main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000,
                  int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    sys.exit(1 if failed else 0)
