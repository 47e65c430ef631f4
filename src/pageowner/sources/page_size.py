"""How large the pages of a dump are, which no version of its text says.

What a text tells is taken: huge pages and pageblocks have an order that goes with the size of a
page. Where it tells nothing, pages of 4 KiB are assumed; `using` has another size taken.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError, UsageError
from pageowner.model.source_kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.model.metadata import Metadata
    from pageowner.sources.page_owner_kinds import Kind

__all__ = ["ASSUMED", "apply", "check", "told", "using"]

ASSUMED = "assumed"
"""What ``page_size_from`` says where nothing tells the size; and how it begins in doubt."""

_SMALLEST, _LARGEST = 1 << 12, 1 << 20  # MIPS has pages of up to 1 MiB, if of no use

_given: ContextVar[int | None] = ContextVar("page_size", default=None)

# A huge page is what one table of page table entries maps, of 8 bytes each: order 9 with pages of
# 4 KiB, 11 with 16 KiB (arm64, loongarch, mips), 13 with 64 KiB (arm64). powerpc's are 2 MiB with
# the radix MMU, 16 MiB with the hash MMU (arch/powerpc/mm/book3s64), and its pages mostly 64 KiB;
# s390's are 1 MiB (arch/s390/include/asm/page.h).
_BY_ORDER = {5: 1 << 16, 9: 1 << 12, 11: 1 << 14, 13: 1 << 16}
_OF_POWERPC = (5, 8)

_HUGE = ("do_huge_pmd_anonymous_page", "do_huge_pmd_wp_page", "vma_alloc_anon_folio_pmd")
_POWERPC = ("system_call_common", "system_call_vectored", "system_call_exception",
            "data_access_common", "instruction_access_common", "do_hash_fault", "radix__")
_S390 = ("pgm_check_handler", "__do_pgm_check", "do_dat_exception", "sysc_", "__s390")


@contextmanager
def using(size: int | None) -> Iterator[None]:
    """Within this the dumps that are read have pages of ``size`` bytes; None: as they tell.

    Raises UsageError for what no page has.
    """
    token = _given.set(None if size is None else check(size))
    try:
        yield
    finally:
        _given.reset(token)


def check(size: int) -> int:
    """Raises UsageError for a size that no page has."""
    if not _SMALLEST <= size <= _LARGEST or size & (size - 1):
        raise UsageError(f"a page cannot have {size:,} bytes; its size is a power of two from"
                         " 4 KiB to 1 MiB")
    return size


def apply(meta: Metadata, size: int | None = None) -> None:
    """Have the pages of what was read ``size`` bytes, or as many as said to `using`.

    Raises PageownerError for a capture, which knows.
    """
    size = _given.get() if size is None else check(size)
    knows = kind_of(meta).live or "page_size_from" not in meta.extra  # as its kernel reported
    if size is None or (size == meta.page_size and knows):
        return
    if not kind_of(meta).in_pages:
        raise PageownerError(f"{meta.source or 'the source'}: counts bytes, not pages: it takes no"
                             " page size")
    if knows:
        raise PageownerError(f"{meta.source or 'a capture'}: its pages have"
                             f" {meta.page_size >> 10} KiB, as its kernel reported; only a dump"
                             " takes another page size")
    meta.page_size = size
    meta.extra["page_size_from"] = "given"


def told(kinds: Sequence[Kind], pageblock_order: int | None) -> tuple[int, str]:
    """The size of the pages of a dump with these kinds of record, in bytes, and from what it is
    known."""
    stacks = {id(body): body.stack for _, _, body in kinds if body.stack}
    huge = {place for place, stack in stacks.items() if "_pmd" in stack and any(
        name in stack for name in _HUGE)}
    orders = {header.order for header, _, body in kinds if id(body) in huge}
    ambiguous = pageblock_order in _OF_POWERPC or 8 in orders
    powerpc = ambiguous and _any(stacks.values(), _POWERPC)
    if len(orders) == 1:
        order, = orders
        if size := _BY_ORDER.get(order) or ((1 << 16) if powerpc and order == 8 else 0):
            return size, f"huge pages of order {order}"
    # A smaller order fits any text of small numbers, these no other.
    if pageblock_order is not None and pageblock_order >= 11 and pageblock_order in _BY_ORDER:
        return _BY_ORDER[pageblock_order], f"pageblocks of order {pageblock_order}"
    if powerpc:
        return 1 << 16, f"functions of powerpc and pageblocks of order {pageblock_order}"
    if ambiguous and pageblock_order == 8 and not _any(stacks.values(), _S390):
        return 1 << 12, (f"{ASSUMED}; pageblocks of order 8 are of pages of 4 KiB on s390 and of"
                         " 64 KiB on powerpc")
    return 1 << 12, ASSUMED


def _any(stacks: object, names: tuple[str, ...]) -> bool:
    return any(name in stack for stack in stacks for name in names)  # type: ignore[attr-defined]
