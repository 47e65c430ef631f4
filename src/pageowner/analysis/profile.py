"""Owners as a profiler's samples: chains of frames, outermost first, each with what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pageowner.analysis.diff import owners_of
from pageowner.analysis.subsystems import functions
from pageowner.analysis.words import key_names
from pageowner.kernel.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pageowner.counted import Counted
    from pageowner.snapshot import Snapshot

__all__ = ["LABELS", "MEASURES", "NO_STACK", "Sample", "chains", "owners_table", "samples"]

MEASURES = ("bytes", "pages", "blocks")

LABELS = ("comm", "tgid", "order", "migratetype", "memcg", "state")
"""What tells samples of one stack apart, unless something else is asked for."""

_PIECE = 1 << 14
"""Owners that are objects of Python's at a time."""

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
    table = owners_of(found, keys)
    for batch in table.to_batches(max_chunksize=_PIECE):
        columns = batch.to_pydict()
        wanted = [columns[name] for name in names]
        for stack, subsystem, state, pages, blocks, *values in zip(
                columns["stack"], columns["subsystem"], columns["state"], columns["pages"],
                columns["blocks"], *wanted, strict=True):
            what = subsystem or state or "not known"
            chain = tuple(functions(stack)[::-1]) if stack else (Frame(NO_STACK, None),
                                                                 Frame(what, None))
            yield Sample(chain, what, dict(zip(names, values, strict=True)), pages, blocks)


class _Texts(dict[Frame, str]):
    """Frames as they are written: a million stacks have some thousands of them."""

    def __missing__(self, frame: Frame) -> str:
        text = self[frame] = str(frame)
        return text


def chains(found: Iterable[Sample]) -> Iterator[tuple[Sample, tuple[str, ...]]]:
    """Each sample, and as texts its labels and then its frames, outermost first."""
    texts = _Texts()
    for one in found:
        frames = [texts[frame] for frame in one.frames]
        if one.labels:
            frames = ["-" if value is None else str(value)
                      for value in one.labels.values()] + frames
        yield one, tuple(frames)
