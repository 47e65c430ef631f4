"""Mutated snapshots and series: the content and the metadata of Parquet files, not only their
bytes, and what must hold for every one of them.

    python tests/fuzz/snapshots.py [COUNT [SEED [PROCESSES]]]

Each input is a saved capture, a saved dump or a folder of captures of which some columns, some
words of the metadata, the layout of the file or some bytes are other than anybody would write
them. It is read, and then asked one of the questions that the verbs ask, or saved and read again:
it ends well or in an error of one line; what was read keeps the promises of `Snapshot`; no input
takes seconds, or memory without end. One in many goes through the whole command line.

A number names an input for ever: COUNT 1 and its number as SEED makes it again. Also used by
tests/unit/test_fuzz.py.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pageowner
from pageowner import PageownerError
from pageowner.analysis import diff, flame, fragmentation, picture, profile
from pageowner.analysis.shorten import shortened
from pageowner.formats import page_owner_stacks, page_owner_text, series
from pageowner.kernel.limits import HIGHEST_ORDER, NODES, PFN_BITS, TIME_BITS
from pageowner.snapshot import SCHEMA, STATES, Metadata, Snapshot

SECONDS = 20
"""Of an input's own time; sound ones take some milliseconds."""

ROOM_MIB = 1024
_WHOLE_LINE = 500  # one input in so many goes through the command line
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
        self.tables = [hostile.of_tracker(40), hostile.of_tracker(100), hostile.of_tracker(7)]
        table, meta = hostile.of_dump()
        self.tables += [(table.slice(0, 60), meta), (table.slice(0, 25), meta)]
        # what a verb asks to compare with
        self.sound = Snapshot(self.tables[0][0], Metadata.from_json(
            json.dumps(self.tables[0][1]).encode()))


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
        changed_list = list(value)
        how = chance.random()
        if how < 0.1:
            del changed_list[place]
        elif how < 0.2:
            changed_list *= chance.choice((2, 7, 40))
        else:
            changed_list[place] = _mutated_json(chance, value[place], depth + 1)
        return changed_list
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
        kinds: list[Any] = [pa.array([1.5] * rows), pa.array([b"\xff\xfe"] * rows),
                            pa.array([[1]] * rows), pa.array([True] * rows),
                            pa.array(["x"] * rows), pa.array([7] * rows, pa.int8()),
                            pa.array([{"a": 1}] * rows), pa.array([-1] * rows, pa.int64()),
                            pa.array(["x"] * rows, pa.large_string())]
        return table.set_column(place, name, chance.choice(kinds))
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
    file = io.BytesIO()
    try:
        pq.write_table(table.replace_schema_metadata(about), file, **_layout(chance))
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
    (folder / hostile.FIRST).write_bytes(
        mutated(chance, pool) if chance.random() < 0.2 else _written(
            chance, table, {b"pageowner": json.dumps(meta).encode()}))
    names = [hostile.FIRST, hostile.SECOND, hostile.THIRD]
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


# -- what must hold ------------------------------------------------------------------------------


def check_promises(snapshot: Snapshot) -> None:
    """Assert what every `Snapshot` that was read promises."""
    table = snapshot.table
    assert table.schema.equals(SCHEMA)
    table.validate(full=True)
    for order in table["order"].to_pylist():
        assert 0 <= order <= HIGHEST_ORDER
    for name, bits in (("pfn", PFN_BITS), ("ts_ns", TIME_BITS), ("free_ts_ns", TIME_BITS)):
        assert all(value is None or value >> bits == 0 for value in table[name].to_pylist()), name
    assert all(value is None or 0 <= value < NODES for value in table["node"].to_pylist())
    assert set(table["state"].to_pylist()) <= {*STATES, None}
    assert snapshot.pages == sum(1 << order for order in table["order"].to_pylist())
    assert Metadata.from_json(snapshot.meta.to_json()) == snapshot.meta


def _keys(chance: random.Random) -> list[str]:
    from pageowner.analysis.words import KEYS

    return chance.sample(KEYS, chance.choice((1, 1, 2, 3)))


def _ask_report(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.analysis import ranking
    from pageowner.analysis.owners import owners
    from pageowner.report import owners_table

    names = _keys(chance)
    table = owners(snapshot, names)
    assert sum(table["pages"].to_pylist()) == snapshot.pages
    json.dumps(owners_table.to_json(ranking.head(table, 5), names, snapshot.meta))


def _ask_select(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    words: dict[str, Any] = {chance.choice(("comm", "memcg", "stack", "subsystem", "module")): (
        chance.choice(("*", "t*", "x", "[")),)}
    if chance.random() < 0.5:
        words[chance.choice(("older", "newer"))] = "1s"
    found = snapshot.select(**words)
    assert found.pages <= snapshot.pages


def _ask_diff(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    names = _keys(chance)
    sides = [snapshot, pool.sound] if chance.random() < 0.5 else [pool.sound, snapshot]
    diff.difference(*(diff.owners_of(side, names) for side in sides), names)


def _ask_frag(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.report import fragmentation_view

    names = _keys(chance)
    found = fragmentation.fragmentation(snapshot, names, top=5)
    json.dumps(fragmentation_view.to_json(found, names, snapshot.meta))


def _ask_huge(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    fragmentation.huge(snapshot, chance.choice((1, 4, 9, 10, 18)), _keys(chance),
                       want=chance.choice((None, 1, 50)), top=5)


def _ask_map(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.report import map_html, map_png, map_view

    by = chance.choice(("age", *_keys(chance)))
    drawn = picture.picture(snapshot, by)
    json.dumps(map_view.to_json(drawn, snapshot.meta))
    how = chance.randrange(12)
    if how == 0:
        map_png.write(io.BytesIO(), drawn, snapshot.meta, chance.choice(("row", "hilbert")))
    elif how == 1:
        from pageowner.analysis.memory import memory

        map_html.write(io.BytesIO(), [(snapshot, memory(snapshot))], by, "row")


def _ask_flame(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.report import flame_html, flame_svg

    found = flame.chains(profile.samples(snapshot, _keys(chance)))
    draw = flame_svg.write if chance.random() < 0.7 else flame_html.write
    draw(io.BytesIO(), found, snapshot.meta.page_size, snapshot.meta.source or "x")


def _ask_export(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.report import folded, pprof, speedscope

    found = list(profile.samples(snapshot, _keys(chance)))
    how = chance.randrange(3)
    if how == 0:
        pprof.write(io.BytesIO(), found, snapshot.meta)
    elif how == 1:
        speedscope.write(io.BytesIO(), found, snapshot.meta)
    else:
        folded.lines(found, "bytes", snapshot.meta.page_size)


def _ask_text(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    page_owner_text.write(snapshot, io.BytesIO())
    page_owner_stacks.stacks(snapshot)


def _ask_who(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.analysis.lookup import covering
    from pageowner.report import page

    for pfn in (0, 4096, (1 << 52) - 1):
        rows = snapshot.table.take(covering(snapshot, pfn)).to_pylist()
        json.dumps(page.to_json(pfn, rows, None))


def _ask_leaks(chance: random.Random, snapshot: Snapshot, pool: Pool) -> None:
    from pageowner.analysis.leaks import available_pages, rows_of

    rows_of(snapshot, _keys(chance))
    available_pages(snapshot)


ASKED: dict[str, Callable[[random.Random, Snapshot, Pool], None]] = {
    "report": _ask_report, "filters": _ask_select, "diff": _ask_diff, "frag": _ask_frag,
    "frag --order": _ask_huge, "map": _ask_map, "flame": _ask_flame, "export": _ask_export,
    "dump, stacks": _ask_text, "who": _ask_who, "leaks": _ask_leaks}


def check_message(error: PageownerError) -> None:
    """Assert that an error is one line, and not a long one."""
    text = str(error)
    assert text
    assert "\n" not in text, repr(text)
    assert len(text) < 6000, len(text)


class Check:
    """One input after another in a folder that is made anew for each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pool = folder, Pool()
        self.path = folder / "snapshot.parquet"
        self.series = folder / "series"
        self.seen: Counter[str] = Counter()

    def one(self, number: int) -> None:
        """Make input ``number`` and check what must hold for it."""
        chance = random.Random(number)
        as_series = chance.random() < 0.2
        if as_series:
            shutil.rmtree(self.series, ignore_errors=True)
            self.series.mkdir()
            paths = mutated_series(chance, self.pool, self.series)
            self.seen["series"] += 1
        else:
            self.path.write_bytes(mutated(chance, self.pool))
            self.seen["snapshots"] += 1
        if number % _WHOLE_LINE == 0:
            self._command(chance, self.series if as_series else self.path)
            return
        try:
            if as_series:
                snapshot = series.read(paths[-1])
                if chance.random() < 0.1:
                    list(series.each(paths))
                    series.last_boot(self.series)
            else:
                snapshot = pageowner.read(self.path)
            self.seen["... that were read"] += 1
            check_promises(snapshot)
            name = chance.choice(sorted(ASKED))
            ASKED[name](chance, shortened(snapshot), self.pool)
            if chance.random() < 0.05:
                snapshot.save(self.folder / "again.parquet")
                assert pageowner.read(self.folder / "again.parquet").table.num_rows == (
                    snapshot.table.num_rows)
        except PageownerError as error:
            check_message(error)
            self.seen["... that were refused"] += 1
        except MemoryError:
            self.seen["... out of memory"] += 1  # one line on the command line

    def _command(self, chance: random.Random, path: Path) -> None:
        """The same by the whole command line, in a process of its own."""
        there = hostile.Files.__new__(hostile.Files)
        there.folder, there.sound = self.folder, self.folder / "sound.parquet"
        if not there.sound.exists():
            table, meta = self.pool.tables[0]
            hostile.written(there.sound, table, meta)
        verb = chance.choice(hostile.VERBS)
        end = there.ask(verb, path)
        assert not hostile.why_wrong(end), f"{' '.join(verb)}: {hostile.why_wrong(end)}"
        self.seen["by the command line"] += 1


def _too_long(*_: object) -> None:
    raise TimeoutError(f"an input took over {SECONDS} s")


def run(count: int, seed: int, keep: Path | None = None, limit: bool = True) -> Counter[str]:
    """Check inputs ``seed`` to ``seed + count``; returns what was seen. The first that fails is
    raised, or, with ``keep``, each is kept there and told, and the next has its turn.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        checked = Check(Path(name))
        before = signal.signal(signal.SIGPROF, _too_long)
        if limit:
            for number in range(50):  # so that all is imported
                checked.one(number)
            checked.seen.clear()
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (taken + (ROOM_MIB << 20), most))
        began, grown = time.monotonic(), _peak_mib()
        try:
            for number in range(seed, seed + count):
                # of its own time, whatever else the machine does
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    checked.one(number)
                except Exception as error:
                    print(f"input {number} ends in: {type(error).__name__}: {error}"[:300],
                          file=sys.stderr, flush=True)
                    checked.seen["FAILED"] += 1
                    if keep is None:
                        raise
                    keep.mkdir(exist_ok=True)
                    import traceback

                    (keep / f"{number}.txt").write_text(traceback.format_exc())
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                if (number + 1 - seed) % 20_000 == 0:
                    print(f"{number + 1 - seed:,} inputs, {time.monotonic() - began:.0f} s,"
                          f" {_peak_mib()} MiB, {checked.seen['FAILED']} failed",
                          file=sys.stderr, flush=True)
        finally:
            signal.signal(signal.SIGPROF, before)
        checked.seen["MiB more than before the first"] = _peak_mib() - grown
        return checked.seen


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(count: int, seed: int, processes: int) -> int:
    """As the file says; how many inputs failed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    pa.set_cpu_count(1)
    keep = Path(tempfile.gettempdir()) / "pageowner-fuzz"
    share = -(-count // processes)
    children = []
    for place in range(processes):
        child = os.fork()
        if not child:
            seen = run(min(share, count - place * share), seed + place * share, keep)
            for what, number in seen.items():
                print(f"{number:>15,}  {what}", flush=True)
            os._exit(1 if seen["FAILED"] else 0)
        children.append(child)
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
    print("some failed; why is in " + str(keep) if failed else
          "all read, or refused in one line; no traceback, no hang")
    return failed


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    sys.exit(bool(main(*(words + [1_000_000, 0, 1][len(words):]))))
