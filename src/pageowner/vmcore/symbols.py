"""The kernel's own symbols, out of its table (kernel/kallsyms.c, scripts/kallsyms.c of 6.0 to 7.3).

Each name is its length and so many numbers of pieces; since 6.1 a length of 128 and more takes two
bytes. The first letter of the whole is the type. Offsets are from ``kallsyms_relative_base``; those
that are not negative stand for themselves where per-CPU symbols are absolute
(CONFIG_KALLSYMS_ABSOLUTE_PERCPU, x86 until 6.14). 7.3 has no base: each offset is from its
own place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["WITH_VMLINUX", "KernelSymbols", "kernel_symbols", "tells_symbols"]

_TABLES = ("kallsyms_num_syms", "kallsyms_names", "kallsyms_token_table", "kallsyms_token_index")
_MOST = 1 << 22
_TOKENS = 256
_LONGEST_NAME = 512
"""KSYM_NAME_LEN since 6.1, 128 before."""
_PIECE = 1 << 21
WITH_VMLINUX = ("give its vmlinux with debugging information (--vmlinux FILE), or install the"
                " package that has it")
_OLD = ("its kernel is older than Linux 6.0 and does not tell where its symbols are: "
        + WITH_VMLINUX)


class KernelSymbols:
    """``text``: as /proc/kallsyms has them."""

    def __init__(self, addresses: NDArray[np.uint64], names: list[bytes]) -> None:
        self.text = b"".join(b"%016x %c %b\n" % (address, name[0], name[1:])
                             for address, name in zip(addresses.tolist(), names, strict=True)
                             if len(name) > 1)
        self._places: dict[bytes, int] = {}
        for address, name in zip(addresses.tolist(), names, strict=True):
            self._places.setdefault(name[1:], address)

    def address_of(self, name: str) -> int | None:
        """The address of the first symbol of this name, or None."""
        return self._places.get(name.encode())


def tells_symbols(memory: Vmcore) -> bool:
    """Whether VMCOREINFO has the place of the kernel's own table (since 6.0)."""
    return all(name in memory.info.symbols for name in _TABLES)


def kernel_symbols(memory: Vmcore) -> KernelSymbols:
    """All of them. Raises PageownerError."""
    places = memory.info.symbols
    if not tells_symbols(memory):
        raise PageownerError(_OLD)
    count = int.from_bytes(memory.read(places["kallsyms_num_syms"], 4), "little")
    if not 0 < count <= _MOST:
        raise PageownerError("the kernel's table of symbols in it is damaged")
    return KernelSymbols(_addresses(memory, count), _names(memory, count))


def _addresses(memory: Vmcore, count: int) -> NDArray[np.uint64]:
    places = memory.info.symbols
    if "kallsyms_offsets" not in places:
        if "kallsyms_addresses" not in places:
            raise PageownerError(_OLD)
        return np.frombuffer(memory.read(places["kallsyms_addresses"], 8 * count), "<u8")
    offsets = np.frombuffer(memory.read(places["kallsyms_offsets"], 4 * count), "<i4")
    if "kallsyms_relative_base" not in places:  # since 7.x each is relative to its own place
        own = np.uint64(places["kallsyms_offsets"]) + np.arange(0, 4 * count, 4, dtype=np.uint64)
        return own + offsets.astype(np.int64).view(np.uint64)
    base = int.from_bytes(memory.read(places["kallsyms_relative_base"], 8), "little")
    if (offsets < 0).sum() * 2 > count:
        # most of the kernel lies behind its base
        wide = offsets.astype(np.int64)
        return np.where(wide >= 0, wide.astype(np.uint64),
                        np.uint64(base) + (-1 - wide).astype(np.uint64))
    return np.uint64(base) + offsets.view("<u4").astype(np.uint64)


def _names(memory: Vmcore, count: int) -> list[bytes]:
    places = memory.info.symbols
    index = np.frombuffer(memory.read(places["kallsyms_token_index"], 2 * _TOKENS), "<u2").tolist()
    table = memory.read(places["kallsyms_token_table"], max(index) + 64)
    tokens = [table[start:table.index(b"\0", start)] if b"\0" in table[start:] else b""
              for start in index]
    data, at = b"", 0
    start = places["kallsyms_names"]
    names: list[bytes] = []
    read = 0
    for _ in range(count):
        if len(data) - at < _LONGEST_NAME + 2:
            piece, whole = memory.fill(start + read, _PIECE)
            del whole  # behind the table there may be nothing
            data, at = data[at:] + piece.tobytes(), 0
            read += _PIECE
        length = data[at]
        at += 1
        if length & 0x80:
            length = length & 0x7F | data[at] << 7
            at += 1
        if not length:
            raise PageownerError("the kernel's table of symbols in it is damaged")
        names.append(b"".join([tokens[byte] for byte in data[at:at + length]]))
        at += length
    return names
