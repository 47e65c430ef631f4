"""What /proc/kpageflags would say of large folios and of the zero pages.

fs/proc/page.c (stable_page_flags) of 6.1, 6.12 and 7.3. A large folio is a huge page if it is on a
list of those that can be reclaimed or anonymous, since 6.10 if it is marked for being mapped
(PG_large_rmappable in the flags of its second page). It is mapped if any of its pages is:
include/linux/mm.h (folio_mapped), ``_large_mapcount`` since 6.10, before that the counts of each
page and ``_entire_mapcount``, in 6.1 ``compound_mapcount``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.flag_bits import mask
from pageowner.kernel_memory.access import version, word

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["LargeFolios"]

_SINCE_MARKED = (6, 10)
_MMAP, _THP, _HUGE, _ZERO, _SLAB = (np.uint64(mask(name)) for name in (
    "mmap", "thp", "huge", "zero_page", "slab"))
_LISTED = np.uint64(mask("lru", "anon"))


class LargeFolios:
    """Where this kernel keeps what it tells of them."""

    def __init__(self, memory: Vmcore) -> None:
        types = memory.types
        self._size = types.size("page") or 64
        marked = types.enumerator("pageflags", "PG_large_rmappable")
        self._marked = marked if version(memory) >= _SINCE_MARKED else None
        self._flags_at = 0 if (found := types.member("page", "flags")) is None else found.offset
        whole = (types.member("folio", "_large_mapcount")
                 if self._marked is not None else None)
        self._in_all = whole is not None
        if whole is None:
            whole = types.member("folio", "_entire_mapcount")
        if whole is not None:
            self._mapcount_at: int | None = whole.offset
        else:
            of_page = types.member("page", "compound_mapcount")
            self._mapcount_at = None if of_page is None else self._size + of_page.offset
        self._zero = _number(memory, "zero_pfn", "zero_page_pfn")
        self._huge_zero = _number(memory, "huge_zero_pfn")

    def add(self, found: NDArray[np.uint64], raw: NDArray[np.uint8], first: int,
            heads: NDArray[np.int64], owner: NDArray[np.int64]) -> None:
        """Add the bits of compound pages, which begin at ``heads`` among these frames; ``owner``:
        of each frame the first one of its compound page."""
        heads = heads[heads + 1 < len(raw)]
        heads = heads[found[heads] & _SLAB == 0]
        huge = found[heads] & _HUGE != 0
        if self._marked is None:
            thp = found[heads] & _LISTED != 0
        else:
            flags = raw[heads + 1].view("<u8")[:, self._flags_at // 8]
            thp = flags >> np.uint64(self._marked) & np.uint64(1) != 0
        mapped = self._mapped(raw, heads)
        if not self._in_all:
            any_of = np.zeros(len(raw), bool)
            np.logical_or.at(any_of, owner, found & _MMAP != 0)
            mapped |= any_of[heads]
        of_each = np.zeros(len(raw), np.uint64)
        is_large = np.zeros(len(raw), bool)
        is_large[heads] = True
        of_each[heads] = np.where(thp & ~huge, _THP, np.uint64(0)) | np.where(
            mapped, _MMAP, np.uint64(0))
        inside = is_large[owner]
        found[inside] = found[inside] & ~_MMAP | of_each[owner[inside]]
        for pfn, bits in ((self._zero, _ZERO), (self._huge_zero, _ZERO | _THP)):
            if pfn is not None and 0 <= pfn - first < len(found):
                found[owner == pfn - first] |= bits

    def _mapped(self, raw: NDArray[np.uint8], heads: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each folio's own count, which begins at -1, says so."""
        if self._mapcount_at is None:
            return np.zeros(len(heads), bool)
        page, at = divmod(self._mapcount_at, self._size)
        counts = raw[heads + min(page, 1)].view("<i4")[:, at // 4]
        mapped: NDArray[np.bool_] = counts >= 0
        return mapped


def _number(memory: Vmcore, *names: str) -> int | None:
    for name in names:
        address = memory.symbol(name)
        if address is not None:
            try:
                return word(memory, address)
            except PageownerError:
                return None
    return None
