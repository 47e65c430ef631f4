"""Which pages were in use before tracking began.

Every frame is marked early before the hooks are attached; once they are, the frames that are
free then are unmarked, one compare-and-exchange each in the kernel. So no moment is missed: a
page freed or allocated meanwhile was seen by a hook, and the hook's word stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import pageflags
from pageowner.tracker.accounts import NEVER_GIVEN
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
    for first, flags in read_flags(ranges):
        free = (flags & _NOT_ALLOCATED) != 0
        doubtful = np.flatnonzero(flags == 0).astype("u8") + np.uint64(first)
        free[(doubtful[store.unused(doubtful)] - np.uint64(first)).astype("i8")] = True
        for start, end in not_given:
            free[max(start - first, 0):max(end - first, 0)] = True
        _unmark(store, first, free)
    return sum(int(np.count_nonzero(span.records["state"] == EARLY)) for span in store.spans)


def _unmark(store: Store, first: int, free: NDArray[np.bool_]) -> None:
    padded = np.zeros((len(free) + _GROUP - 1) // _GROUP * _GROUP, bool)
    padded[: len(free)] = free
    groups = np.packbits(padded.reshape(-1, _GROUP), axis=1, bitorder="little").view("<u8")
    for i in np.flatnonzero(groups.any(axis=1)):
        store.settle(first + int(i) * _GROUP, [int(word) for word in groups[i]])


