"""Tables of names that the kernel prints with, read where it has them, so that they are those of
this very kernel.

mm/debug.c and mm/page_alloc.c of 6.1, 6.12 and 7.3: ``pageflag_names`` and ``gfpflag_names``
(struct trace_print_flags, ended by a zero), ``migrate_reason_names`` and ``migratetype_names``
(pointers). lib/vsprintf.c: ``pff``, the fields beside the flags of a page since 5.12
(format_page_flags).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.gfp import MIGRATETYPES, GfpFlags
from pageowner.kernel.task_names import to_text
from pageowner.kernel_memory.access import member, numbers, offset, strings, symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["PageFlags", "block_types", "gfp_flags", "migrate_reasons", "page_flags"]

_FLAGS = 128
"""More than either table has: __GFP_ and GFP_ together are some 40, page flags some 30."""
_REASONS = 32
_DECIMAL = frozenset(("section", "node", "zone"))
"""Fields that are printed with default_dec_spec, the others with default_flag_spec (``0x1f``)."""


def _flags(memory: Memory, name: str) -> tuple[tuple[int, str], ...]:
    """A table of flags: masks and names. Raises PageownerError."""
    types = memory.types
    size = types.size("trace_print_flags") or 16
    mask_at = member(types, "trace_print_flags", "mask").offset
    name_at = offset(types, "trace_print_flags", "name")
    entry = np.uint64(symbol(memory, name)) + np.arange(_FLAGS, dtype=np.uint64) * np.uint64(size)
    # Entry by entry up to the one that ends the table: what follows it is something else.
    found: list[tuple[int, int]] = []
    raw, good = memory.copy(entry, size)
    for row, readable in zip(raw, good.tolist(), strict=True):
        mask, text = (int(row[at:at + 8].view("<u8")[0]) for at in (mask_at, name_at))
        if not readable or not text:
            break
        found.append((mask, text))
    names = _texts(memory, np.array([text for _, text in found], np.uint64), name)
    return tuple((mask, text) for (mask, _), text in zip(found, names, strict=True))


def _texts(memory: Memory, addresses: NDArray[np.uint64], table: str) -> list[str]:
    found = [None if text is None else to_text(text) for text in strings(memory, addresses)]
    known = [text for text in found if text]
    if not known or len(known) < len(found):
        raise PageownerError(f"the names in the kernel's {table} cannot be read")
    return known


def _pointed(memory: Memory, table: str, count: int) -> tuple[str, ...]:
    """The names in an array of pointers to them."""
    found = numbers(memory, np.uint64(symbol(memory, table))
                    + np.arange(count, dtype=np.uint64) * np.uint64(8))
    if found is None:
        raise PageownerError(f"the names in the kernel's {table} cannot be read")
    return tuple(_texts(memory, found, table))


def gfp_flags(memory: Memory) -> GfpFlags:
    """The names of gfp flags. Raises PageownerError."""
    return GfpFlags(_flags(memory, "gfpflag_names"), "the kernel's gfpflag_names")


def migrate_reasons(memory: Memory) -> tuple[tuple[str, ...], int]:
    """Why pages are migrated, by number, and the number that says that one never was (MR_NEVER
    since 7.x, before always -1). Raises PageownerError."""
    count = memory.types.enumerator("migrate_reason", "MR_TYPES")
    never = memory.types.enumerator("migrate_reason", "MR_NEVER")
    if count is None or not 0 < count <= _REASONS:
        raise PageownerError("the kernel's types (BTF) do not have migrate_reason.MR_TYPES")
    return _pointed(memory, "migrate_reason_names", count), -1 if never is None else never


def block_types(memory: Memory) -> tuple[str, ...]:
    """What a pageblock can be, by number; of a kernel whose types do not tell how many there are
    those that each has."""
    count = memory.types.enumerator("migratetype", "MIGRATE_TYPES")
    if count is None or not 0 < count <= _REASONS:
        return MIGRATETYPES
    return _pointed(memory, "migratetype_names", count)


@dataclass(frozen=True)
class PageFlags:
    """How this kernel prints the flags of a page: names of flags, ``main`` the bits that are flags,
    and fields as name, first bit, mask."""

    names: GfpFlags
    main: int
    fields: tuple[tuple[str, int, int], ...]

    def text(self, flags: int) -> str:
        """As ``%pGp`` has it: ``0x20000000000024(referenced|uptodate|node=0|zone=1)``."""
        parts = [self.names.decode(main)] if (main := flags & self.main) else []
        for name, shift, mask in self.fields:
            value = flags >> shift & mask
            parts.append(f"{name}={value if name in _DECIMAL else hex(value)}")
        return f"{flags:#x}({'|'.join(parts)})"

    def field(self, name: str, flags: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
        """A field of many; None if this kernel does not print it."""
        for field, shift, mask in self.fields:
            if field == name:
                return flags >> np.uint64(shift) & np.uint64(mask)
        return None


def page_flags(memory: Memory) -> PageFlags:
    """How this kernel prints them. Raises PageownerError."""
    count = memory.types.enumerator("pageflags", "__NR_PAGEFLAGS")
    if count is None or not 0 < count < 64:
        raise PageownerError("the kernel's types (BTF) do not have pageflags.__NR_PAGEFLAGS")
    fields: tuple[tuple[str, int, int], ...] = ()
    if (address := memory.symbol("pff")) is not None:
        fields = _fields(memory, address)
    return PageFlags(GfpFlags(_flags(memory, "pageflag_names")), (1 << count) - 1, fields)


def _fields(memory: Memory, address: int) -> tuple[tuple[str, int, int], ...]:
    types = memory.types
    size = types.size("page_flags_fields") or 0
    if not size:
        raise PageownerError("the kernel's types (BTF) do not have page_flags_fields")
    # section, node, zone, lastcpupid, kasantag
    raw, good = memory.copy(
        np.uint64(address) + np.arange(5, dtype=np.uint64) * np.uint64(size), size)
    if not good.all():
        raise PageownerError("the kernel's pff cannot be read")

    def column(name: str, kind: str) -> NDArray[np.uint64]:
        at = offset(types, "page_flags_fields", name)
        return np.ascontiguousarray(raw[:, at:at + np.dtype(kind).itemsize]).view(kind).ravel(
            ).astype(np.uint64)

    names = _texts(memory, column("name", "<u8"), "pff")
    found = zip(names, column("width", "<u4").tolist(), column("shift", "<u4").tolist(),
                column("mask", "<u4").tolist(), strict=True)
    return tuple((name, shift, mask) for name, width, shift, mask in found
                 if width and shift < 64)
