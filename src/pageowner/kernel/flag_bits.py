"""The bits of /proc/kpageflags by name.

Bits: include/uapi/linux/kernel-page-flags.h and include/linux/kernel-page-flags.h of 6.12. What
they mean: fs/proc/page.c (stable_page_flags) of 6.1 and 6.12. Unlike the flags of struct page these
bits are the same in every kernel.
"""

from __future__ import annotations

__all__ = ["BITS", "MAX_ORDER", "NEVER_GIVEN", "mask", "names"]

MAX_ORDER = 10
"""The largest free block of the buddy allocator, unless the kernel was built otherwise
(include/linux/mmzone.h, MAX_PAGE_ORDER)."""

BITS = {
    "locked": 0, "error": 1, "referenced": 2, "uptodate": 3, "dirty": 4, "lru": 5, "active": 6,
    "slab": 7, "writeback": 8, "reclaim": 9, "buddy": 10, "mmap": 11, "anon": 12, "swapcache": 13,
    "swapbacked": 14, "compound_head": 15, "compound_tail": 16, "huge": 17, "unevictable": 18,
    "hwpoison": 19, "nopage": 20, "ksm": 21, "thp": 22, "offline": 23, "zero_page": 24, "idle": 25,
    "pgtable": 26, "reserved": 32, "mlocked": 33, "owner_2": 34, "private": 35, "private_2": 36,
    "owner_private": 37, "arch": 38, "softdirty": 40, "arch_2": 41, "arch_3": 42,
}
"""Name (KPF_…, in lower case) and bit number. 34 was ``mappedtodisk`` until 6.11, 39 ``uncached``
until 6.8."""


def mask(*wanted: str) -> int:
    """The bits of these names."""
    return sum(1 << BITS[name] for name in wanted)


# The zero page lies in the kernel's image and is reserved; the huge one is allocated as any other.
NEVER_GIVEN = mask("reserved", "offline", "hwpoison")
"""Of frames that the page allocator was not given, or had taken away."""


def names(flags: int) -> str:
    """The names of the bits, joined by ``|``; bits without a name in hex."""
    found = [name for name, number in BITS.items() if flags >> number & 1]
    rest = flags & ~sum(1 << number for number in BITS.values())
    return "|".join([*found, hex(rest)] if rest else found)
