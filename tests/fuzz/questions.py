"""What must hold for every snapshot that was read, and the questions that verbs ask it."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any

from pageowner import PageownerError
from pageowner.analysis import diff, flame, fragmentation, picture, profile
from pageowner.kernel.limits import HIGHEST_ORDER, NODES, PFN_BITS, TIME_BITS
from pageowner.model.snapshot import SCHEMA, STATES, Metadata, Snapshot
from pageowner.report.writer import Writer
from pageowner.sources import page_owner_stacks, page_owner_text


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


def _written(writer: Writer) -> bytes:
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def _keys(chance: random.Random) -> list[str]:
    from pageowner.analysis.filters import KEYS

    return chance.sample(KEYS, chance.choice((1, 1, 2, 3)))


def _ask_report(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.analysis.owners import owners
    from pageowner.report import owners_table

    names = _keys(chance)
    table = owners(snapshot, names)
    assert sum(table["pages"].to_pylist()) == snapshot.pages
    json.loads(_written(owners_table.to_json(table, 5, names, snapshot.meta)))


def _ask_select(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    words: dict[str, Any] = {chance.choice(("comm", "memcg", "stack", "subsystem", "module")): (
        chance.choice(("*", "t*", "x", "[")),)}
    if chance.random() < 0.5:
        words[chance.choice(("older", "newer"))] = "1s"
    found = snapshot.select(**words)
    assert found.pages <= snapshot.pages


def _ask_diff(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    names = _keys(chance)
    sides = [snapshot, sound] if chance.random() < 0.5 else [sound, snapshot]
    diff.difference(*(diff.owners_of(side, names) for side in sides), names)


def _ask_frag(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.report import fragmentation_view

    names = _keys(chance)
    found = fragmentation.fragmentation(snapshot, names, top=5)
    _written(fragmentation_view.to_json(found, names, snapshot.meta))


def _ask_huge(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    fragmentation.huge(snapshot, chance.choice((1, 4, 9, 10, 18)), _keys(chance),
                       want=chance.choice((None, 1, 50)), top=5)


def _ask_map(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.report import map_view
    from pageowner.report.map_html import MapHtml
    from pageowner.report.map_png import MapPng

    by = chance.choice(("age", *_keys(chance)))
    drawn = picture.picture(snapshot, by)
    _written(map_view.to_json(drawn, snapshot.meta))
    how = chance.randrange(12)
    if how == 0:
        _written(MapPng(drawn, snapshot.meta, chance.choice(("row", "hilbert"))))
    elif how == 1:
        from pageowner.analysis.memory import memory

        _written(MapHtml([(snapshot, memory(snapshot))], by, "row"))


def _ask_flame(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.report.flame_html import FlameHtml
    from pageowner.report.flame_svg import FlameSvg

    found = flame.chains(profile.samples(snapshot, _keys(chance)))
    graph = FlameSvg if chance.random() < 0.7 else FlameHtml
    _written(graph(found, snapshot.meta.page_size, snapshot.meta.source or "x"))


def _ask_export(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.report.folded import Folded
    from pageowner.report.pprof import Pprof
    from pageowner.report.speedscope import Speedscope

    found = profile.samples(snapshot, _keys(chance))
    how = chance.randrange(3)
    if how == 0:
        _written(Pprof(found, snapshot.meta))
    elif how == 1:
        _written(Speedscope(found, snapshot.meta))
    else:
        _written(Folded(found, "bytes", snapshot.meta.page_size))


def _ask_text(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    page_owner_text.write(snapshot, io.BytesIO())
    page_owner_stacks.stacks(snapshot)


def _ask_who(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.analysis.lookup import covering
    from pageowner.report import page_view

    for pfn in (0, 4096, (1 << 52) - 1):
        rows = snapshot.table.take(covering(snapshot, pfn)).to_pylist()
        json.dumps(page_view.document(pfn, rows, None))


def _ask_leaks(chance: random.Random, snapshot: Snapshot, sound: Snapshot) -> None:
    from pageowner.analysis.leaks import available_pages, rows_of

    rows_of(snapshot, _keys(chance))
    available_pages(snapshot)


ASKED: dict[str, Callable[[random.Random, Snapshot, Snapshot], None]] = {
    "report": _ask_report, "filters": _ask_select, "diff": _ask_diff, "frag": _ask_frag,
    "frag --order": _ask_huge, "map": _ask_map, "flame": _ask_flame, "export": _ask_export,
    "dump, stacks": _ask_text, "who": _ask_who, "leaks": _ask_leaks}
"""By the verb: what is asked of a snapshot; the second is one to compare with."""


def check_message(error: PageownerError) -> None:
    """Assert that an error is one line, and not a long one."""
    text = str(error)
    assert text
    assert "\n" not in text, repr(text)
    assert len(text) < 6000, len(text)
