"""``pageowner map --html``: one page with all runs in it, drawn by its own script.

The page asks no network (its own policy forbids it) and puts texts of the snapshot nowhere but in
text nodes. Numbers are columns of little-endian integers, shrunk by zlib, in base64.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa

from pageowner.analysis.keys import Key, blocks_pages, key, times
from pageowner.analysis.memory import NO_ROW, Memory
from pageowner.analysis.owners import groups
from pageowner.analysis.picture import AGE, AGES, disjoint
from pageowner.analysis.select import newest_ns
from pageowner.errors import PageownerError
from pageowner.model.schema import OF_PATH
from pageowner.report.html_page import template
from pageowner.report.palette import AGE_COLOURS, BACKGROUND, ROLE_COLOURS, VALUE_COLOURS
from pageowner.report.text import printable, source_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.analysis.memory import Stretch
    from pageowner.model.snapshot import Snapshot

__all__ = ["ASPECTS", "MapHtml"]

ASPECTS = ("state", "subsystem", "migratetype", "comm", AGE, "memcg")
"""What the page colours by, beside what was asked for, and containers where they have names."""

_KEYS = ("stack", "comm", "pid", "tid", "memcg", "subsystem", "migratetype", "state", "gfp")
_ALIGNED = 1024  # frames: pageblocks begin where cells of their size do
_MOST_RUNS = 48 << 20  # what a browser's memory holds well
_MUCH = 32 << 20
_MOST_LABELS = 100_000  # stacks, or values of another key: 50 MB of text
_NO_ORDER = 255


@dataclass
class _Columns:
    """Typed arrays, one behind the other."""

    parts: list[bytes] = field(default_factory=list)
    places: dict[str, list[Any]] = field(default_factory=dict)
    size: int = 0

    def add(self, name: str, values: NDArray[Any], kind: str) -> None:
        raw = values.astype(kind).tobytes()
        self.places[name] = [kind.lstrip("<"), self.size, len(values)]
        raw += b"\0" * (-len(raw) % 8)
        self.parts.append(raw)
        self.size += len(raw)


@dataclass(frozen=True)
class MapHtml:
    """One page of one snapshot, or of two side by side, coloured ``by`` a key, its frames in one of
    the orders ``row`` and ``hilbert``."""

    snapshots: Sequence[tuple[Snapshot, Memory]]
    by: str
    order: str

    def write(self, file: BinaryIO) -> None:
        """Raises PageownerError if there are more runs than a browser can hold."""
        _write(file, self.snapshots, self.by, self.order)


def _write(file: BinaryIO, snapshots: Sequence[tuple[Snapshot, Memory]], by: str,
           order: str) -> None:
    columns = _Columns()
    named = OF_PATH if any(snapshot.meta.container_names() for snapshot, _ in snapshots) else ()
    aspects, keys = (tuple(dict.fromkeys((*known, *named, by))) for known in (ASPECTS, _KEYS))
    keys = tuple(name for name in keys if name != AGE)
    sides = [_side(snapshot, seen, f"{number}.", keys, columns)
             for number, (snapshot, seen) in enumerate(snapshots)]
    about = {"sides": sides, "by": by, "order": order, "aspects": aspects, "keys": keys,
             "ages": [[name, end / 1e9] for name, end in AGES[:-1]] + [[AGES[-1][0], None]],
             "columns": columns.places,
             "colours": {"values": VALUE_COLOURS, "ages": AGE_COLOURS, "roles": ROLE_COLOURS,
                         "background": BACKGROUND}}
    # "<" is the only character that could end the element
    text = json.dumps(about).replace("<", "\\u003c")
    page = template("map_page", "runs.js", "view.js", "hands.js")
    head, _, tail = page.partition("@ABOUT@")
    between, _, end = tail.partition("@DATA@")
    file.write((head + text + between).encode())
    level = 6 if columns.size < _MUCH else 1  # a fifth larger, ten times sooner
    file.write(base64.b64encode(zlib.compress(b"".join(columns.parts), level)))
    file.write(end.encode())


def _side(snapshot: Snapshot, seen: Memory, prefix: str, names: Sequence[str],
          columns: _Columns) -> dict[str, Any]:
    """One snapshot: its columns under names that begin with ``prefix``, and what JSON holds."""
    pages = blocks_pages(snapshot)
    keys, left_out = [], []
    for name in names:
        labelled = key(snapshot, name)
        if len(labelled.labels) > _MOST_LABELS:
            number = len(labelled.labels)
            left_out.append(f"{number - _MOST_LABELS:,} of {number:,} values of {name}, those with"
                            " the fewest pages, are left out")
            labelled = _largest(labelled, pages)
        keys.append(labelled)
    group, number, codes = groups(keys, snapshot.table.num_rows)
    stretches = disjoint(seen.stretches)
    begin, item, begins = _runs(seen, stretches)
    if len(begin) > _MOST_RUNS:
        raise PageownerError(f"{len(begin):,} runs of frames are more than a browser can hold; use"
                             " --png, or save fewer pages")
    special = item < 0
    place = np.where(special, -1, item)  # at -1: what is appended
    row = np.append(seen.row, NO_ROW)[place]
    owner = np.where(special, number - item - 1, np.append(group, number + _UNKNOWN)[row])
    order = np.append(seen.order, np.uint8(_NO_ORDER))[place]
    columns.add(prefix + "size", np.diff(begin), "<u4")
    columns.add(prefix + "owner", owner, "<u4")
    columns.add(prefix + "order", order, "<u1")
    columns.add(prefix + "age", _ages(snapshot, row), "<f4")
    for labelled, places in zip(keys, codes, strict=True):
        columns.add(f"{prefix}key.{labelled.name}", places, "<u4")
    meta = snapshot.meta
    return {
        "source": (printable(meta.source) if meta.kind != "tracker" else
                   source_name(meta.source, meta) if meta.source else
                   printable(f"{meta.host or 'this machine'}, {meta.taken_at or 'live'}")),
        "kernel": printable(meta.kernel or ""), "page_size": meta.page_size,
        "sees_free": seen.sees_free,
        "notes": [printable(note) for note in (*seen.notes, *left_out)], "owners": number,
        "rows": int(pages.sum()),
        "stretches": [[printable(stretch.name), stretch.start, stretch.end, at]
                      for stretch, at in zip(stretches, begins, strict=True)],
        "labels": {labelled.name: _labels(labelled.labels.to_pylist()) for labelled in keys},
    }


_UNKNOWN, _FREE, _HELD, _NOTHING = range(4)
"""Owners behind the last: in use but not known, free or without a record, never given to the page
allocator, no frame at all (between zones)."""


def _labels(values: Sequence[Any]) -> list[str | None]:
    return [None if value is None else _fit(str(value)) for value in values]


def _fit(text: str) -> str:
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(printable, text.split("\n")))


def _largest(found: Key, pages: NDArray[np.int64]) -> Key:
    """The same with one label for all values but those with the most pages."""
    size = len(found.labels)
    sums = np.zeros(size, np.int64)
    np.add.at(sums, found.codes, pages)
    kept = np.sort(np.argsort(-sums, kind="stable")[:_MOST_LABELS])
    place = np.full(size, len(kept), np.int64)
    place[kept] = np.arange(len(kept))
    labels = found.labels.take(pa.array(kept)).cast(pa.string())
    return Key(found.name, place[found.codes],
               pa.concat_arrays([labels, pa.array(["(one of those left out)"])]))


def _ages(snapshot: Snapshot, row: NDArray[np.int64]) -> NDArray[np.float32]:
    """Age in seconds of each run, NaN if not known; to three digits, which shrinks well."""
    found, known = times(snapshot)
    ages = np.where(known, (np.int64(newest_ns(snapshot)) - found.astype(np.int64)) / 1e9, np.nan)
    ages = np.append(np.maximum(ages, 0), np.nan).astype("<f4")[row]  # at -1: not known
    rounded: NDArray[np.float32] = (ages.view("<u4") + 0x1000 & 0xffffe000).view("<f4")
    return np.where(np.isnan(ages), np.float32(np.nan), rounded)


def _runs(seen: Memory, stretches: Sequence[Stretch]
          ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """All frames of the stretches, laid out one after the other: where each run begins (and the
    end), what it is (a place in ``seen``, or -1 - a special owner), and where each stretch begins.
    """
    first = np.concatenate([seen.first, seen.held[:, 0]])
    behind = np.concatenate([seen.first + seen.pages, seen.held[:, 1]])
    what = np.concatenate([np.arange(len(seen.first)), np.full(len(seen.held), -1 - _HELD)])
    by_pfn = np.argsort(first, kind="stable")
    edges = np.empty(2 * len(first) + 1, np.int64)
    items = np.full(2 * len(first) + 1, -1 - _FREE, np.int64)
    edges[0] = -1
    edges[1::2], edges[2::2] = first[by_pfn], behind[by_pfn]
    items[1::2] = what[by_pfn]
    some = np.append(edges[1:] > edges[:-1], True)
    edges, items = edges[some], items[some]
    begin, kinds, begins, done = [], [], [], 0
    for stretch in stretches:
        start = done + (stretch.start - done) % _ALIGNED
        if start > done:
            begin.append(np.array([done]))
            kinds.append(np.array([-1 - _NOTHING]))
        low = int(np.searchsorted(edges, stretch.start, side="right")) - 1
        high = int(np.searchsorted(edges, stretch.end, side="left"))
        begin.append(np.maximum(edges[low:high], stretch.start) - stretch.start + start)
        kinds.append(items[low:high])
        begins.append(start)
        done = start + stretch.end - stretch.start
    begin.append(np.array([done]))
    if done >= 1 << 32:
        raise PageownerError("more than 2^32 page frames do not fit one page of HTML; use --png")
    return np.concatenate(begin), np.concatenate([*kinds, np.zeros(0, np.int64)]), begins
