"""Debugging information of the kernel in a vmcore, out of its vmlinux: what a dump does not tell.

Symbols where VMCOREINFO does not say where the kernel has its own (before 6.0), types where the
kernel has no BTF, and the lines of source of its code. drgn reads the file, finds out whether it is
this kernel's by its build ID, and how far the kernel was moved (KASLR).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.kallsyms import Kallsyms
from pageowner.kernel_memory.access import AskedTypes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["DebugInfo", "SymbolsWithLines", "installed"]

_LONGEST = 200
"""Characters of the lines of one frame; of more, those of the innermost and the outermost are kept.
"""
_INSTALLED = ("/usr/lib/debug/boot/vmlinux-{}", "/usr/lib/debug/lib/modules/{}/vmlinux",
              "/boot/vmlinux-{}", "/lib/modules/{}/build/vmlinux")
"""Where packages with debugging information have a kernel's: Debian's linux-image-…-dbg, Fedora's
kernel-debuginfo; where others keep the one that they built."""


def installed(release: str) -> str | None:
    """The vmlinux of a kernel by its release, if this machine has it with debugging information."""
    if "/" in release:
        return None
    return next((path for place in _INSTALLED if os.path.exists(path := place.format(release))),
                None)


class DebugInfo:
    """That of one vmcore's kernel."""

    def __init__(self, program: Any, path: str) -> None:
        """``program``: drgn's, of the vmcore. Raises PageownerError if the file cannot be read, is
        another kernel's, or has no debugging information."""
        self._program = program
        try:
            # Nothing else is looked for: not on this machine, nor by network (debuginfod).
            program.set_enabled_debug_info_finders([])
            with open(path, "rb"):
                program.load_debug_info([path], main=True)
        except OSError as error:
            raise PageownerError(f"{path}: cannot read: {error.strerror}") from error
        except Exception as error:  # drgn's for what is missing, or whatever elfutils says
            raise PageownerError(f"{path}: is not the vmlinux, with debugging information, of its"
                                 " kernel") from error
        self._lines: dict[int, str] = {}

    def symbols(self) -> tuple[NDArray[np.uint64], list[bytes]]:
        """The kernel's symbols in order of address: addresses, and names behind a letter for their
        kind, as /proc/kallsyms has it."""
        kinds = {"FUNC": b"t", "UNKNOWN": b"t", "OBJECT": b"d"}  # no files, no sections
        found = sorted({(symbol.address, kinds[symbol.kind.name] + symbol.name.encode())
                        for symbol in self._program.symbols()
                        if symbol.name and symbol.kind.name in kinds})
        return (np.array([address for address, _ in found], np.uint64),
                [name for _, name in found])

    def types(self) -> AskedTypes:
        """The kernel's types."""
        return AskedTypes(_Dwarf(self._program))

    def lines_of(self, address: int) -> str:
        """Where the call that returns to an address stands in the source, as
        scripts/decode_stacktrace.sh has it, ``mm/page_alloc.c:4715``: of what the compiler put in
        line first the innermost, then its callers. Empty if that is not known."""
        known = self._lines.get(address)
        if known is None:
            known = self._lines[address] = self._look_up(address)
        return known

    def _look_up(self, address: int) -> str:
        try:
            found = self._program.source_location(address - 1)
            places = [f"{place.filename}:{place.line}" for place in found]
        except Exception:  # LookupError where there is none, and drgn's own for damaged tables
            return ""
        # A file's name with blanks or brackets would not be read as one again.
        if any(not place.isprintable() or set(place) & set(" ()[]") for place in places):
            return ""
        if len(" ".join(places)) > _LONGEST:
            places = [places[0], "...", places[-1]]
        return " ".join(places)


class SymbolsWithLines(Kallsyms):
    """Symbols that give the frames of stacks their lines of source."""

    def __init__(self, text: bytes, origin: str, lines_of: Callable[[int], str]) -> None:
        """``lines_of`` an address that a call returns to; empty if that is not known."""
        super().__init__(text, origin)
        self._lines_of = lines_of

    def stacks(self, rows: NDArray[np.uint64], skip: int = 0) -> list[str]:
        """As `Kallsyms.stacks`; of ``func+0x1f/0x90 [module]`` it makes
        ``func+0x1f/0x90 (file.c:12) [module]``."""
        distinct, back = np.unique(rows, return_inverse=True)
        texts = np.array([_placed(name, self._lines_of(address)) for name, address in zip(
            self.resolve(distinct), distinct.tolist(), strict=True)], object)
        named = texts[back].reshape(rows.shape)
        ended = np.concatenate([rows == 0, np.ones((len(rows), 1), bool)], axis=1)
        return ["\n".join(row[skip:depth]) for row, depth in zip(
            named, ended.argmax(axis=1).tolist(), strict=True)]


def _placed(name: str, lines: str) -> str:
    symbol, blank, module = name.partition(" ")
    return f"{symbol} ({lines}){blank}{module}" if lines else name


class _Dwarf:
    """`pageowner.kernel_memory.access.Btf` of what drgn knows."""

    def __init__(self, program: Any) -> None:
        self._program = program

    def size(self, name: str) -> int | None:
        found = self._struct(name)
        return None if found is None else int(found.size or 0)

    def member(self, name: str, path: str) -> tuple[int, int, int, int] | None:
        at, place = self._struct(name), 0
        found: tuple[int, int, int, int] | None = None
        for word in path.split("."):
            if at is None or not at.has_member(word):
                return None
            step = at.member(word)
            place += step.bit_offset
            bits = step.bit_field_size or 0
            found = place // 8, _bytes(step.type), place if bits else 0, bits
            at = _behind_names(step.type)
            at = at if at.kind.name in ("STRUCT", "UNION") and at.is_complete() else None
        return found

    def enumerator(self, name: str, value: str) -> int | None:
        try:
            found = self._program.type(f"enum {name}")
        except LookupError:
            return None
        return next((int(each.value) for each in found.enumerators or () if each.name == value),
                    None)

    def _struct(self, name: str) -> Any:
        for kind in ("struct", "union"):
            try:
                return self._program.type(f"{kind} {name}")
            except LookupError:
                continue
        return None


def _behind_names(found: Any) -> Any:
    while found.kind.name == "TYPEDEF":
        found = found.type
    return found


def _bytes(found: Any) -> int:
    """Of a value of this type; 0 for what has none."""
    import drgn

    try:
        return int(drgn.sizeof(found))
    except TypeError:  # void, a function, an array of no length
        return 0
