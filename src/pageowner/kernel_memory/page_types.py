"""What a page is by the type in its struct page, and huge pages of hugetlb by what kernels before
page types had them.

include/linux/page-flags.h: since 6.12 a type is the highest byte of ``page_type`` (enum pagetype:
PGTY_buddy). Before, it is a bit that is cleared in a word of ones, so that what always stays
(PAGE_TYPE_BASE) tells types from counts: enumerators in 6.11 alone, which has bits and a base of
its own; until then macros. Of those VMCOREINFO has the ones that came last, the slabs of 6.10 and
hugetlb of 6.9; page tables have another bit before 5.11. Before 6.9 hugetlb is told by the second
struct page of a compound page: a flag since 6.6 (PG_hugetlb of enum pageflags), before that its
destructor (``compound_dtor``, later ``_folio_dtor``; HUGETLB_PAGE_DTOR, which VMCOREINFO has too,
kernel/crash_core.c of 4.18 to 6.5).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Types

__all__ = ["PageTypes", "hugetlb_of_second"]

_TYPES = {"buddy": ("PGTY_buddy", "PG_buddy", "PAGE_BUDDY_MAPCOUNT_VALUE", 0x80),
          "offline": ("PGTY_offline", "PG_offline", "PAGE_OFFLINE_MAPCOUNT_VALUE", 0x100),
          "pgtable": ("PGTY_table", "PG_table", "", 0x200),
          "slab": ("PGTY_slab", "PG_slab", "PAGE_SLAB_MAPCOUNT_VALUE", 0),
          "huge": ("PGTY_hugetlb", "PG_hugetlb", "PAGE_HUGETLB_MAPCOUNT_VALUE", 0)}
"""By the name of a flag of /proc/kpageflags: the highest byte, the bit as an enumerator, all other
bits in VMCOREINFO, and the bit of kernels where nothing says it; 0 where these have none."""
_BASE = 0xF0000000
_WORD = 0xFFFFFFFF
_TABLES_MOVED, _OLD_TABLES = (5, 11), 0x400
"""In 4.18 to 5.10 0x200 was PG_kmemcg."""


class PageTypes:
    """How this kernel has them. ``has``: names of those that it has, of ``buddy``, ``offline``,
    ``pgtable``, ``slab`` and ``huge``."""

    def __init__(self, types: Types, release: tuple[int, int],
                 numbers: Mapping[str, int] = MappingProxyType({})) -> None:
        """``release``: `access.version` of the kernel; ``numbers``: of VMCOREINFO, where there is
        one."""
        base = types.enumerator("pagetype", "PAGE_TYPE_BASE")
        self._base = _BASE if base is None else base & _WORD
        self._bytes: dict[str, int] = {}
        self._bits: dict[str, int] = {}
        for name, (byte_name, bit_name, number_name, plain) in _TYPES.items():
            byte = types.enumerator("pagetype", byte_name)
            if byte is not None:
                self._bytes[name] = byte & 0xFF
                continue
            if name == "pgtable" and (0, 0) < release < _TABLES_MOVED:
                plain = _OLD_TABLES
            bit = types.enumerator("pagetype", bit_name)
            if bit is None and number_name in numbers:
                bit = ~numbers[number_name]
            if bit := (plain if bit is None else bit) & _WORD:
                self._bits[name] = bit
        self.has = frozenset((*self._bytes, *self._bits))

    def are(self, name: str, kind: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of these words ``page_type`` say that the page is of a type; all False for one that
        this kernel does not have."""
        found: NDArray[np.bool_]
        if name in self._bytes:
            found = kind >> np.uint32(24) == self._bytes[name]
        elif name in self._bits:
            found = kind & np.uint32(self._base | self._bits[name]) == self._base
        else:
            found = np.zeros(len(kind), bool)
        return found


def hugetlb_of_second(types: Types, numbers: Mapping[str, int] = MappingProxyType({}),
                      ) -> Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | None:
    """What tells of the second struct pages of compound pages, a row of bytes each, which of these
    are of hugetlb; None where this kernel does not say it there. ``numbers``: of VMCOREINFO."""
    page, flags = types.size("page"), types.member("page", "flags")
    bit = types.enumerator("pageflags", "PG_hugetlb")
    if bit is not None and flags is not None:
        place = flags.offset // 8

        def by_flag(second: NDArray[np.uint8]) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = (second.view("<u8")[:, place] >> np.uint64(bit)
                                        & np.uint64(1) != 0)
            return found

        return by_flag
    destructor = types.enumerator("compound_dtor_id", "HUGETLB_PAGE_DTOR")
    if destructor is None:
        destructor = numbers.get("HUGETLB_PAGE_DTOR")
    of_page, of_folio = (types.member(*where) for where in (
        ("page", "compound_dtor"), ("folio", "_folio_dtor")))
    if destructor is None or not page or (of_page is None and of_folio is None):
        return None
    at = of_page.offset if of_page is not None else of_folio.offset - page  # type: ignore[union-attr]
    if not 0 <= at < page:
        return None

    def by_destructor(second: NDArray[np.uint8]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = second[:, at] == destructor
        return found

    return by_destructor
