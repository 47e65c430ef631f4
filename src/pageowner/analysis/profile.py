"""Owners as a profiler's samples: chains of frames, outermost first, each with what it holds."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pageowner.analysis.diff import owners_of
from pageowner.analysis.subsystems import functions
from pageowner.analysis.words import key_names
from pageowner.kernel.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.counted import Counted
    from pageowner.snapshot import Snapshot

__all__ = ["LABELS", "MEASURES", "NO_STACK", "Sample", "owners_table", "samples"]

MEASURES = ("bytes", "pages", "blocks")

LABELS = ("comm", "tgid", "order", "migratetype", "memcg", "state")
"""What tells samples of one stack apart, unless something else is asked for."""

NO_STACK = "(no stack)"
"""The outermost frame of what was allocated before tracking, or past every hook."""


class Sample(NamedTuple):
    """``frames``: outermost first; ``labels``: the other keys' values, None where not known."""

    frames: tuple[Frame, ...]
    subsystem: str
    labels: dict[str, str | int | None]
    pages: int
    blocks: int


def owners_table(found: Counted | Snapshot, by: str | Sequence[str], page_size: int) -> pa.Table:
    """All owners, most pages first: the keys, then ``pages``, ``blocks``, ``bytes`` (int64).

    Raises UsageError for an unknown key.
    """
    table = owners_of(found, key_names(list(by) if not isinstance(by, str) else by))
    pages = table["pages"].to_pylist()
    return table.append_column("bytes", pa.array([n * page_size for n in pages], pa.int64()))


def samples(found: Counted | Snapshot, labels: Sequence[str] = ()) -> Iterator[Sample]:
    """The allocations by stack and ``labels``, most pages first.

    Frames are those of `pageowner.analysis.subsystems.functions`, so that the innermost is who
    asked the page allocator; texts are as they are in the source. What has no stack is under
    `NO_STACK`, named by what it is, as far as the source knows.
    """
    names = [name for name in labels if name != "stack"]
    keys = list(dict.fromkeys(["stack", "subsystem", "state", *names]))
    columns = owners_of(found, keys).to_pydict()
    for row in zip(*columns.values(), strict=True):
        one = dict(zip(columns, row, strict=True))
        what = one["subsystem"] or one["state"] or "not known"
        chain = (Frame(NO_STACK, None), Frame(what, None)) if not one["stack"] else (
            _chain(one["stack"]))
        yield Sample(chain, what, {name: one[name] for name in names},
                     one["pages"], one["blocks"])


@lru_cache(maxsize=1 << 16)
def _chain(stack: str) -> tuple[Frame, ...]:
    return tuple(reversed(functions(stack)))
