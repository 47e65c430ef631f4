"""Owners as a profiler's samples: chains of frames, outermost first, each with what it holds.

A large dump has a million of them, so they are columns of numbers, and texts are said once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis import coded
from pageowner.analysis.coded import Coded
from pageowner.analysis.diff import owners_of
from pageowner.analysis.filters import key_names
from pageowner.kernel.frames import Frame
from pageowner.model.schema import OF_PATH
from pageowner.model.source_kinds import OBJECTS, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from pageowner.model.counts import Counted
    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot

__all__ = ["LABELS", "MEASURES", "NO_STACK", "Chained", "Label", "Samples", "as_met", "chained",
           "labels", "owners_table", "samples"]

MEASURES = ("bytes", "pages", "blocks")

LABELS = ("comm", "pid", "order", "migratetype", "memcg", "state")
"""What tells samples of one stack apart, unless something else is asked for."""

_OF_OBJECTS = ("cache", "comm", "pid")
"""The same of objects."""


def labels(meta: Metadata) -> tuple[str, ...]:
    """`LABELS`, with the containers and pods that have names; of objects what they have."""
    if meta.kind == OBJECTS:
        return _OF_OBJECTS
    return (*LABELS, *OF_PATH) if meta.container_names() else LABELS


_PIECE = 1 << 16
"""Samples whose frames are put in order at a time."""

NO_STACK = "(no stack)"
"""The outermost frame of what was allocated before tracking, or past every hook."""


class Label(NamedTuple):
    """Of each sample a place (int64) in ``values``, which may be None: not known."""

    codes: NDArray[np.int64]
    values: list[Any]


@dataclass(frozen=True)
class Samples:
    """The samples, most pages first: ``stack``, the place of each in ``stacks`` (int64), whose
    frames are those of `pageowner.analysis.subsystems.functions`; the subsystem, the other keys'
    values, ``pages`` and ``blocks`` (int64; 0 where the source does not count them)."""

    stacks: Coded
    stack: NDArray[np.int64]
    subsystem: Label
    labels: dict[str, Label]
    pages: NDArray[np.int64]
    blocks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stack)


class Chained(NamedTuple):
    """A chain of names for each sample, outermost first: ``names[code]`` for each ``code`` in
    ``codes[edges[N]:edges[N + 1]]`` (int32; ``edges`` int64)."""

    edges: NDArray[np.int64]
    codes: NDArray[np.int32]
    names: list[Any]


def owners_table(found: Counted | Snapshot, by: str | Sequence[str], page_size: int) -> pa.Table:
    """All owners, most pages first: the keys, then ``pages``, ``blocks``, ``bytes`` (int64); null
    where the source does not know.

    Raises UsageError for an unknown key.
    """
    table = owners_of(found, key_names(list(by) if not isinstance(by, str) else by))
    kind, pages = kind_of(found.meta), table["pages"].to_numpy()
    for name, is_known in (("pages", kind.in_pages), ("blocks", bool(kind.block))):
        if not is_known:
            table = table.set_column(table.column_names.index(name), name,
                                     pa.nulls(len(pages), pa.int64()))
    return table.append_column("bytes", pa.array(pages * page_size))


def samples(found: Counted | Snapshot, labels: Sequence[str] = ()) -> Samples:
    """The allocations by stack and ``labels``, most pages first.

    The innermost frame is who asked the page allocator; texts are as they are in the source. What
    has no stack is under `NO_STACK`, named by what it is, as far as the source knows.
    """
    names = [name for name in labels if name != "stack"]
    keys = list(dict.fromkeys(["stack", "subsystem", "state", *names]))
    columns, stacks, pages, blocks = _columns(found, keys)
    known, subsystem, state = columns["stack"], columns["subsystem"], columns["state"]
    # No stack, or an empty one: the null and the empty text.
    without = np.array([not text for text in known.values], bool)[known.codes]
    what = [use or other or "not known" for use in subsystem.values for other in state.values]
    places: dict[str, int] = {}
    place = np.array([places.setdefault(text, len(places)) for text in what] or [0], np.int64)
    purpose = place[subsystem.codes * max(len(state.values), 1) + state.codes]
    stack = known.codes.copy()
    stack[without] = len(stacks.first) + purpose[without]
    return Samples(_with_stackless(stacks, list(places)), stack, Label(purpose, list(places)),
                   {name: columns[name] for name in names}, pages, blocks)


def _columns(found: Counted | Snapshot, keys: Sequence[str],
             ) -> tuple[dict[str, Label], Coded, NDArray[np.int64], NDArray[np.int64]]:
    """Of all owners, most pages first, the keys, the functions of the distinct stacks, pages and
    blocks. Of the stacks' texts only whether there is one is kept."""
    from pageowner.model.counts import Counted

    columns = {}
    if isinstance(found, Counted):
        table = owners_of(found, keys)
        for name in keys:
            encoded = table[name].combine_chunks().dictionary_encode("encode")
            columns[name] = Label(encoded.indices.to_numpy().astype(np.int64),
                                  encoded.dictionary.to_pylist())
            if name == "stack":
                stacks = coded.coded(encoded.dictionary)
        pages, blocks = (table[name].to_numpy() for name in ("pages", "blocks"))
    else:
        from pageowner.analysis.keys import coded_stacks
        from pageowner.analysis.owners import ordered

        owners = ordered(found, keys)  # at the places of `coded_stacks`
        for column in owners.keys:
            columns[column.name] = Label(
                column.codes, _is_text(column.labels) if column.name == "stack"
                else column.labels.to_pylist())
        stacks, pages, blocks = coded_stacks(found), owners.pages, owners.blocks
    if not kind_of(found.meta).block:
        blocks = np.zeros_like(blocks)
    return columns, coded.functions(stacks), pages, blocks


def _is_text(stacks: pa.Array) -> list[bool]:
    import pyarrow.compute as pc

    found: list[bool] = pc.greater(pc.binary_length(stacks), 0).fill_null(False).to_pylist()
    return found


def _with_stackless(stacks: Coded, what: Sequence[str]) -> Coded:
    """The stacks, and one for each of what has none."""
    frames, first = [*stacks.frames], len(stacks.codes)
    places = {frame: place for place, frame in enumerate(frames)}
    more = []
    for text in what:
        for frame in (Frame(text, None), Frame(NO_STACK, None)):
            if frame not in places:
                places[frame] = len(frames)
                frames.append(frame)
            more.append(places[frame])
    begins = first + 2 * np.arange(len(what))
    return Coded(np.concatenate([stacks.first, begins]), np.concatenate([stacks.end, begins + 2]),
                 np.concatenate([stacks.codes, np.array(more, np.int32)]), frames)


def chained(found: Samples, frame: Callable[[Frame], Hashable],
            label: Callable[[Any], Hashable]) -> Chained:
    """The labels of each sample and then its frames, each as what ``frame`` and ``label`` make of
    it; what they make equal is one name."""
    known: dict[Hashable, int] = {}
    frames = np.array([known.setdefault(frame(each), len(known)) for each in found.stacks.frames]
                      or [0], np.int32)
    labels = [np.array([known.setdefault(label(value), len(known))
                        for value in column.values] or [0], np.int32)
              for column in found.labels.values()]
    lengths = (found.stacks.end - found.stacks.first)[found.stack] + len(labels)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    codes = np.empty(int(edges[-1]), np.int32)
    for start in range(0, len(lengths), _PIECE):
        here = slice(start, start + _PIECE)
        length, begins = lengths[here], edges[:-1][here]
        # from the outermost frame, which is the last, inwards
        step = np.arange(int(length.sum())) - np.repeat(begins - edges[start], length)
        place = np.repeat(found.stacks.end[found.stack[here]] - 1 + len(labels), length) - step
        within = codes[edges[start]:edges[start] + len(step)]
        if labels:
            of_stack = step >= len(labels)
            within[of_stack] = frames[found.stacks.codes[place[of_stack]]]
            for number, (column, names) in enumerate(
                    zip(found.labels.values(), labels, strict=True)):
                within[begins - edges[start] + number] = names[column.codes[here]]
        else:
            within[:] = frames[found.stacks.codes[place]]
    return Chained(edges, codes, list(known))


def as_met(codes: NDArray[np.int32]) -> list[int]:
    """The codes that occur, in the order in which they do first."""
    first = np.full(int(codes.max(initial=-1)) + 1, len(codes), np.int64)
    for start in range((len(codes) - 1) // _PIECE * _PIECE, -1, -_PIECE):
        piece = codes[start:start + _PIECE]
        first[piece[::-1]] = np.arange(start + len(piece) - 1, start - 1, -1)  # the last one stays
    order: list[int] = np.argsort(first, kind="stable")[:(first < len(codes)).sum()].tolist()
    return order
