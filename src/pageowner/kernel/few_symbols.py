"""The names of a few addresses, in a fraction of the time that it takes to take all of
/proc/kallsyms apart, and without NumPy. The rules are those of `kallsyms.Kallsyms`, with which a
test compares these.

The kernel's own symbols come first in the file, by address: it searches them by halving, too
(kernel/kallsyms.c, get_symbol_pos). Modules and BPF programs follow, in no order.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel import symbol_text
from pageowner.kernel.symbol_text import KALLSYMS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FewSymbols", "read"]

_DIGITS = 16
_NAME = _DIGITS + 3
"""Where the name begins in a line: ``%016lx %c %s`` (kernel/kallsyms.c, s_show)."""

_TEXT, _DATA = b"tTwW", b"dDbBrR"
_LIMITS = (b"_etext", b"_einittext")


def read(path: str = KALLSYMS) -> FewSymbols | None:
    """Of the running kernel; None where `kallsyms.load` has to be asked, and may say why: the file
    cannot be read, hides its addresses, or is not as said above."""
    try:
        return FewSymbols(symbol_text.read(path))
    except (PageownerError, ValueError):
        return None


class FewSymbols:
    """The text of /proc/kallsyms, to look up a few addresses in it."""

    def __init__(self, text: bytes) -> None:
        """Raises ValueError for a text that is not as said above."""
        self._text = text
        others = text.find(b"\t[")
        # where the kernel's own symbols end
        self._core = len(text) if others < 0 else text.rfind(b"\n", 0, others) + 1
        if text[-1:] != b"\n" or text.count(b"]\n", self._core) != text.count(b"\n", self._core):
            raise ValueError("the kernel's own symbols do not come first")
        if not self._core or not self._address(self._begin(self._core - 1)):
            raise ValueError("no symbols, or hidden ones")
        self._stext = self.address_of("_stext")

    def names(self, addresses: Iterable[int]) -> dict[int, str]:
        """What `kallsyms.Kallsyms.resolve` calls each of these addresses."""
        return {address: self._of_kernel(address) or self._of_others(address) or f"{address:#x}"
                for address in addresses}

    def address_of(self, name: str) -> int | None:
        """The address of a symbol of the kernel itself, or None; of the first if there are more."""
        at = self._text.find(b" %s\n" % name.encode())
        return self._address(self._begin(at)) if at >= 0 else None

    # -- the kernel's own ------------------------------------------------------------------------

    def _address(self, at: int) -> int:
        if self._text[at + _DIGITS:at + _DIGITS + 1] != b" ":
            raise ValueError("no line of /proc/kallsyms of a 64-bit kernel")
        return int(self._text[at:at + _DIGITS], 16)

    def _begin(self, at: int) -> int:
        """Where the line begins that this byte is in."""
        return self._text.rfind(b"\n", 0, at) + 1

    def _next(self, at: int) -> int:
        return self._text.index(b"\n", at) + 1

    def _of_kernel(self, address: int) -> str | None:
        low, high = 0, self._core  # the last line up to the address begins in between
        while (after := self._next(low)) < high:
            middle = max(self._begin((low + high) // 2), after)
            if self._address(middle) <= address:
                low = middle
            else:
                high = middle
        start, following = self._address(low), self._next(low)
        if start > address or (self._stext is not None and start < self._stext):
            return None
        end = self._address(following) if following < self._core else _page_end(start)
        while low and self._address(self._begin(low - 1)) == start:  # of aliases the first
            low = self._begin(low - 1)
        # Without CONFIG_KALLSYMS_ALL there is no code where a section ends, see Kallsyms._core.
        aliases = self._text[low:following]
        if any(b" %s\n" % name in aliases for name in _LIMITS) and not self._has_data:
            return None
        return _named(self._text[low:self._next(low) - 1], address, start, end)

    @cached_property
    def _has_data(self) -> bool:
        core = self._text[:self._core]
        return sum(core.count(b" %c " % kind) for kind in _DATA) > core.count(b"\n") // 20

    # -- modules and BPF programs ----------------------------------------------------------------

    @cached_property
    def _others(self) -> tuple[list[bytes], ...]:
        """Text of modules; their data; BPF programs; by address."""
        lines = self._text[self._core:].split(b"\n")[:-1]
        lines.sort(key=_digits)  # stable: of aliases the first in the file is first
        bpf = [line for line in lines if line.endswith(b"\t[bpf]")]
        modules = [line for line in lines if not line.endswith(b"\t[bpf]")]
        return ([line for line in modules if line[_DIGITS + 1] in _TEXT],
                [line for line in modules if line[_DIGITS + 1] not in _TEXT], bpf)

    def _of_others(self, address: int) -> str | None:
        return next((name for lines in self._others if (name := _in_group(lines, address))), None)


def _digits(line: bytes) -> bytes:
    return line[:_DIGITS]


def _in_group(lines: list[bytes], address: int) -> str | None:
    """See Kallsyms._module_ends."""
    following = bisect_right(lines, b"%016x" % address, key=_digits)
    if not following:
        return None
    at = following - 1
    while at and _digits(lines[at - 1]) == _digits(lines[at]):
        at -= 1
    start = int(_digits(lines[at]), 16)
    end = _page_end(start)
    if following < len(lines):
        next_start = int(_digits(lines[following]), 16)
        same = lines[at].rpartition(b"[")[2] == lines[following].rpartition(b"[")[2]
        end = next_start if same else min(next_start, end)
    return _named(lines[at], address, start, end)


def _page_end(start: int) -> int:
    return (start // mmap.PAGESIZE + 1) * mmap.PAGESIZE


def _named(line: bytes, address: int, start: int, end: int) -> str | None:
    if address >= end:
        return None
    name, tab, module = line[_NAME:].decode("ascii", "backslashreplace").partition("\t")
    suffix = f" {module}" if tab and module != "[bpf]" else ""
    return f"{name}+{address - start:#x}/{end - start:#x}{suffix}"
