"""Which pages were in use before tracking began.

Every frame is marked early before the hooks are attached; once they are, the frames that are
free then are unmarked, one compare-and-exchange each in the kernel. So no moment is missed: a
page freed or allocated meanwhile was seen by a hook, and the hook's word stands.

Hooks are attached one after the other, though. A page that was freed when the first ones were and
then taken through a function whose hook was not there yet has no record; it too was in use before
all of tracking had begun, and is marked again.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import pageflags
from pageowner.tracker.read import reading
from pageowner.tracker.read.accounts import NEVER_GIVEN, block_heads, covered
from pageowner.tracker.read.maps import EARLY, NONE, SETTLED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from pageowner.tracker.read.maps import Span, Store

    Piece = tuple[Span, int, int]

__all__ = ["read_flags", "settle"]

_NOT_ALLOCATED = pageflags.bit("buddy") | NEVER_GIVEN
_CHUNK = 1 << 18
_READERS = 4


def read_flags(ranges: Iterable[tuple[int, int]],
               path: str = pageflags.KPAGEFLAGS) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """``(first pfn, flags)`` of page frames, 2**18 at a time; one u64 a frame, bits KPF_*
    (include/uapi/linux/kernel-page-flags.h)."""
    for start, end in ranges:
        for first in range(start, end, _CHUNK):
            yield first, pageflags.read(path, first, min(_CHUNK, end - first))


def settle(store: Store, ranges: Sequence[tuple[int, int]],
           not_given: Sequence[tuple[int, int]] = ()) -> int:
    """Unmark the early frames that nobody has, and mark those in use that no record speaks for; how
    many pages are early then.

    Nobody has reserved frames, those ``not_given`` to the page allocator (first, behind the last),
    and free ones. Free is what is in the buddy allocator, or on a CPU's own list (see
    `Store.unused`). The flags of all frames are read once, those of marked ones again: what was
    freed before it was marked is unmarked. What becomes of a frame afterwards is seen.
    """
    # How far blocks reach that begin in spans before this one, and in this one or before.
    reach = reached = 0
    here_before = -1
    marked = []
    for span, first, flags in _ahead(_pieces(store.spans, ranges), not_given):
        if span.first != here_before:  # not another piece of the same span
            reach, here_before = reached, span.first
        free = _free(store, first, flags, not_given)
        state = span.records["state"].copy()
        heads, ends = _blocks(span.records, state)
        here = slice(first - span.first, first - span.first + len(flags))
        store.settle(first, free & (state[here] == EARLY))
        lost = ~free & (state[here] == NONE)
        lost &= ~covered(heads, ends, len(state))[here]
        lost[: max(reach - first, 0)] = False
        if lost.any():
            store.settle(first, lost, mark=True)
            # A block that was taken around one meanwhile has it.
            heads, ends = _blocks(span.records, span.records["state"].copy())
            store.settle(first, lost & covered(heads, ends, len(state))[here])
            marked.append(np.flatnonzero(lost) + first)
        reached = max(reached, span.first + int(ends.max(initial=0)))
    _look_again(store, np.concatenate([np.zeros(0, np.int64), *marked]), not_given)
    return sum(int(np.count_nonzero(span.records["state"] == EARLY)) for span in store.spans)


def _free(store: Store, first: int, flags: NDArray[np.uint64],
          not_given: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which of these frames nobody has."""
    free: NDArray[np.bool_] = (flags & _NOT_ALLOCATED) != 0
    for start, end in not_given:
        free[max(start - first, 0):max(end - first, 0)] = True
    silent = np.flatnonzero((flags == 0) & ~free)
    free[silent[store.unused(silent.astype("u8") + np.uint64(first))]] = True
    return free


def _blocks(records: NDArray[np.void],
            state: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the blocks that begin in a span begin, and their ends; ``state`` as it was just now."""
    heads = block_heads(state)
    now = reading.whole_at(records, heads)
    there = block_heads(now["state"])
    return heads[there], heads[there] + (np.int64(1) << now["order"][there].astype(np.int64))


def _look_again(store: Store, marked: NDArray[np.int64],
                not_given: Iterable[tuple[int, int]]) -> None:
    """Unmark what is free after all, of frames that were marked."""
    groups = marked // SETTLED
    groups = groups[np.diff(groups, prepend=-1) > 0]
    for first, flags in read_flags((group * SETTLED, (group + 1) * SETTLED)
                                   for group in groups.tolist()):
        chosen = np.zeros(len(flags), bool)
        here = marked[np.searchsorted(marked, first):np.searchsorted(marked, first + len(flags))]
        chosen[here - first] = True
        store.settle(first, chosen & _free(store, first, flags, not_given))


def _pieces(spans: Iterable[Span], ranges: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    """The parts of spans in which there is memory: span, first pfn, behind the last."""
    for span in spans:
        for start, end in ranges:
            begin, stop = max(start, span.first), min(end, span.first + len(span.records))
            if begin < stop:
                yield span, begin, stop


def _ahead(pieces: Iterator[Piece], not_given: Sequence[tuple[int, int]]
           ) -> Iterator[tuple[Span, int, NDArray[np.uint64]]]:
    """The flags of each piece, in order, read by some threads ahead of who works on them: the
    kernel takes longer to tell them than all the rest takes, and lets others work meanwhile. They
    say nothing of what was ``not_given`` to the page allocator: of pieces in there, zeros."""
    readers = min(_READERS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(readers) as pool:
        coming: deque[tuple[Span, int, Future[list[tuple[int, NDArray[np.uint64]]]]]] = deque()
        for span, first, stop in pieces:
            quiet = any(start <= first and stop <= end for start, end in not_given)
            coming.append((span, first, pool.submit(_no_flags if quiet else _flags, first, stop)))
            if len(coming) > 2 * readers:
                yield from _arrived(coming.popleft())
        while coming:
            yield from _arrived(coming.popleft())


def _flags(first: int, stop: int) -> list[tuple[int, NDArray[np.uint64]]]:
    return list(read_flags([(first, stop)]))


def _no_flags(first: int, stop: int) -> list[tuple[int, NDArray[np.uint64]]]:
    return [(start, np.zeros(min(_CHUNK, stop - start), np.uint64))
            for start in range(first, stop, _CHUNK)]


def _arrived(
        reading: tuple[Span, int, Future[list[tuple[int, NDArray[np.uint64]]]]],
) -> Iterator[tuple[Span, int, NDArray[np.uint64]]]:
    span, _, flags = reading
    for first, part in flags.result():
        yield span, first, part
