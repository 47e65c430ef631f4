"""Which pages were in use before tracking began.

Every frame is marked early before the hooks are attached; once they are, the frames that are
free then are unmarked, one compare-and-exchange each in the kernel. So no moment is missed: a
page freed or allocated meanwhile was seen by a hook, and the hook's word stands.

Hooks are attached one after the other, though. A page that was freed when the first ones were and
then taken through a function whose hook was not there yet has no record; it too was in use before
all of tracking had begun, and is marked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import pageflags
from pageowner.tracker import reading
from pageowner.tracker.accounts import NEVER_GIVEN, in_blocks, last_end, spoken_for
from pageowner.tracker.maps import EARLY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pageowner.tracker.maps import Store

__all__ = ["read_flags", "settle"]

_NOT_ALLOCATED = pageflags.bit("buddy") | NEVER_GIVEN
_CHUNK = 1 << 18
_GROUP = 512


def read_flags(ranges: Sequence[tuple[int, int]],
               path: str = "/proc/kpageflags") -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """``(first pfn, flags)`` of page frames, 2**18 at a time; one u64 a frame, bits KPF_*
    (include/uapi/linux/kernel-page-flags.h)."""
    with open(path, "rb", buffering=0) as file:
        for start, end in ranges:
            for first in range(start, end, _CHUNK):
                count = min(_CHUNK, end - first)
                file.seek(first * 8)
                data = bytearray()
                while len(data) < count * 8:
                    part = file.read(count * 8 - len(data))
                    if not part:
                        break
                    data += part
                yield first, np.frombuffer(bytes(data[: len(data) // 8 * 8]), "u8")


def settle(store: Store, ranges: Sequence[tuple[int, int]],
           not_given: Sequence[tuple[int, int]] = ()) -> int:
    """Unmark the early frames that nobody has; how many pages remain early.

    Those are reserved ones, those ``not_given`` to the page allocator (first, behind the last),
    and free ones. Free is what is in the buddy allocator, or on a CPU's own list (see
    `Store.unused`).
    """
    _mark_again(store)
    for first, flags in read_flags(ranges):
        free = (flags & _NOT_ALLOCATED) != 0
        doubtful = np.flatnonzero(flags == 0).astype("u8") + np.uint64(first)
        free[(doubtful[store.unused(doubtful)] - np.uint64(first)).astype("i8")] = True
        for start, end in not_given:
            free[max(start - first, 0):max(end - first, 0)] = True
        _settle(store, first, free)
    return sum(int(np.count_nonzero(span.records["state"] == EARLY)) for span in store.spans)


def _mark_again(store: Store) -> None:
    """Mark frames in use that no record speaks for. What becomes of them meanwhile is seen: freed
    ones are unmarked by what follows, and a block that was taken around one here."""
    reach = 0
    for span in store.spans:
        length = len(span.records)
        flags = np.concatenate([np.zeros(0, "u8"), *(
            part for _, part in read_flags([(span.first, span.first + length)]))])
        lost = np.zeros(length, bool)
        lost[: len(flags)] = (flags & _NOT_ALLOCATED) == 0
        lost[: max(reach - span.first, 0)] = False
        records = reading.whole(span.records)
        lost &= ~spoken_for(records)
        silent = np.flatnonzero(lost[: len(flags)] & (flags == 0))
        lost[silent[store.unused(silent.astype("u8") + np.uint64(span.first))]] = False
        if lost.any():
            _settle(store, span.first, lost, mark=True)
            records = reading.whole(span.records)
            _settle(store, span.first, lost & in_blocks(records))
        reach = max(reach, span.first + last_end(records))


def _settle(store: Store, first: int, chosen: NDArray[np.bool_], mark: bool = False) -> None:
    padded = np.zeros((len(chosen) + _GROUP - 1) // _GROUP * _GROUP, bool)
    padded[: len(chosen)] = chosen
    groups = np.packbits(padded.reshape(-1, _GROUP), axis=1, bitorder="little").view("<u8")
    for i in np.flatnonzero(groups.any(axis=1)):
        store.settle(first + int(i) * _GROUP, [int(word) for word in groups[i]], mark)


