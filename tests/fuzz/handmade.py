"""Snapshots and series as somebody with bad intent would make them by hand."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sound import FIRST, SECOND, THIRD, of_dump, of_tracker, written

from pageowner.model.pfn_runs import pack
from pageowner.model.snapshot import SCHEMA, Metadata, Snapshot

Make = Callable[[Path], None]


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
    ends = np.array([[0, (1 << 52) - 1]])
    for name, runs in {
        "a bomb": lambda: _packed((b"\1" + b"\0" * 7) * (9 << 20)),  # of 72 MiB
        "all memory": pack(ends),
        "to the end": pack(np.array([[4096, 12288]])), "no base64": "!", "no zlib": "AAAA",
        "half a run": _packed(b"\0" * 8),
        "backwards": _packed(np.array([5, -3, 5, 5], "<i8").tobytes()),
        "a million": lambda: pack(np.arange(2_000_000).reshape(-1, 2) * 2),
    }.items():
        for word in ("held", "filtered"):
            yield f"{word} runs: {name}", with_meta(lambda word=word, runs=runs: _changed(
                meta, ("extra", "memory", word), runs() if callable(runs) else runs))
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


def _packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text, 9)).decode()


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
                **columns}, Metadata()).table.select(["pfn", "order", "state", *columns])
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


def _series_folders() -> Iterator[tuple[str, Make]]:
    table, meta = of_tracker()
    packed = _packed(json.dumps({**meta, "clock_ns": 2 * 10**12}).encode())
    sound = {"format": 1, "before": FIRST, "meta": packed}

    def folder(about: object, rows: pa.Table | None = None, first: object = meta,
               name: str = SECOND) -> Make:
        def make(path: Path) -> None:
            path.mkdir()
            written(path / FIRST, table, first)
            _changes_file(path / name, about() if callable(about) else about, rows)
        return make

    yield "series: sound", folder(sound)
    for word in ("format", "before", "meta"):
        for name, odd in _ODD.items():
            yield f"series: {word} is {name}", folder({**sound, word: odd})
    for name, before in {"itself": SECOND, "later": THIRD, "elsewhere": f"../{FIRST}",
                         "absolute": "/etc/passwd", "gone": "20260102T030404.000Z.parquet"}.items():
        yield f"series: before is {name}", folder({**sound, "before": before})
    for name, text in {
        "a bomb": lambda: _packed(b" " * (300 << 20)), "no object": lambda: _packed(b"[]"),
        "cut": lambda: packed[:40], "deep": lambda: _packed(b"[" * 10**6),
        "zones that are none": lambda: _packed(json.dumps(
            _changed(meta, ("zones", 0, "name"), 5)).encode()),
    }.items():
        yield f"series: meta is {name}", folder(lambda text=text: {**sound, "meta": text()})
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
