"""Debugging information of the kernel in a vmcore, out of its vmlinux: what a dump does not tell.

Symbols where VMCOREINFO does not say where the kernel has its own (before 6.0) or these are
functions alone, types where the kernel has no BTF, and the lines of source of its code. drgn reads
the file, finds out by its build ID whether it is this kernel's, and how far the kernel was moved
(KASLR).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.kallsyms import Kallsyms
from pageowner.kernel_memory.access import AskedTypes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["DebugInfo", "SymbolsWithLines", "installed"]

_LONGEST = 200
"""Characters of the lines of one frame; of more, those of the innermost and the outermost are kept.
"""
_INSTALLED = ("/usr/lib/debug/boot/vmlinux-{}", "/usr/lib/debug/lib/modules/{}/vmlinux",
              "/boot/vmlinux-{}")
"""Where packages with debugging information have a kernel's: Debian's linux-image-…-dbg, Fedora's
kernel-debuginfo."""
_NO_SYMBOLS = ("$", ".L", "__crc_", "__kcfi_typeid_", "__efistub_", "__pi_$", "__pi_.L",
               "__kvm_nvhe_$", "__kvm_nvhe_.L")
"""What names begin with that the kernel leaves out of its own table (scripts/mksysmap): marks
between code and data of arm64, local labels of riscv, and numbers that are no addresses."""

Found = TypeVar("Found")


def installed(release: str) -> Iterator[str]:
    """Files of this machine that may be the vmlinux of a kernel, by its release."""
    if release and "/" not in release:
        yield from (path for place in _INSTALLED
                    if os.path.isfile(path := place.format(release)))


class DebugInfo:
    """That of one vmcore's kernel."""

    def __init__(self, program: Any, path: str) -> None:
        """``program``: drgn's, of the vmcore. Raises PageownerError if the file cannot be read, is
        another kernel's, or has no debugging information."""
        self._program, self._path = program, path
        try:
            # Nothing else is looked for: not on this machine, nor by network (debuginfod).
            program.set_enabled_debug_info_finders([])
            with open(path, "rb"):
                program.load_debug_info([path], main=True)
        except OSError as error:
            raise PageownerError(f"{path}: cannot read: {error.strerror}") from error
        except Exception as error:  # drgn's for what is missing, or whatever elfutils says
            raise PageownerError(f"{path} is not the vmlinux of this kernel, or has no debugging"
                                 " information") from error
        self._lines: dict[int, str] = {}
        self._told = False

    def close(self) -> None:
        """Let go of the files."""
        self._program = None

    def symbols(self) -> tuple[NDArray[np.uint64], list[bytes]]:
        """The kernel's symbols in order of address: addresses, and names behind a letter for their
        kind, as /proc/kallsyms has it. Of several at one address the first is that which the
        kernel puts first (compare_symbols in scripts/kallsyms.c): weak ones are last, then those of
        the linker's script, then those with more underscores in front."""
        kinds = {"FUNC": b"t", "UNKNOWN": b"t", "OBJECT": b"d"}  # no files, no sections
        # Each part of one is read from the file when it is asked for.
        told = self.asked(lambda: [
            (symbol.address, symbol.binding.name, symbol.kind.name, symbol.name)
            for symbol in self._program.symbols()]) or ()
        found = sorted({
            (address, binding == "WEAK", _of_linker(name), len(name) - len(name.lstrip("_")),
             kinds[kind] + name.encode())
            for address, binding, kind, name in told
            if name and kind in kinds and not name.startswith(_NO_SYMBOLS)})
        return np.array([row[0] for row in found], np.uint64), [row[-1] for row in found]

    def types(self) -> AskedTypes:
        """The kernel's types."""
        return AskedTypes(_Dwarf(self))

    def type(self, name: str) -> Any:
        """drgn's type of this name; None if there is none."""
        return self._program.type(name)

    def asked(self, question: Callable[[], Found]) -> Found | None:
        """What drgn answers; None where it knows nothing. Raises PageownerError where the file is
        damaged."""
        try:
            return question()
        except LookupError:
            return None
        except Exception as error:  # drgn's own, and that of texts that are none
            raise PageownerError(f"{self._path}: its debugging information is damaged:"
                                 f" {' '.join(str(error).split())[:200]}") from error

    def lines_of(self, address: int) -> str:
        """Where the call that returns to an address stands in the source, as
        scripts/decode_stacktrace.sh has it, ``mm/page_alloc.c:4715``: of what the compiler put in
        line first the innermost, then its callers. Empty if that is not known."""
        known = self._lines.get(address)
        if known is None:
            known = self._lines[address] = self._look_up(address)
        return known

    def _look_up(self, address: int) -> str:
        if not address:
            return ""
        try:
            found = self.asked(lambda: [
                f"{place.filename}:{place.line or '?'}"
                for place in self._program.source_location(address - 1)])
        except PageownerError as error:  # frames without lines are better than none
            if not self._told:
                logging.getLogger("pageowner").warning("%s", error)
            self._told = True
            return ""
        places = found or []
        # A file's name with blanks or brackets would not be read as one again.
        if any(not place.isprintable() or set(place) & set(" ()[]") for place in places):
            return ""
        if len(" ".join(places)) > _LONGEST:
            places = [places[0], "...", places[-1]]
        return " ".join(places)


def _of_linker(name: str) -> bool:
    """As may_be_linker_script_provide_symbol() has it."""
    return name.startswith("__") and (name.startswith(("__start_", "__stop_", "__end_"))
                                      or name.endswith(("_start", "_end")))


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
        texts = np.array([self._placed(name, address) for name, address in zip(
            self.resolve(distinct), distinct.tolist(), strict=True)], object)
        named = texts[back].reshape(rows.shape)
        ended = np.concatenate([rows == 0, np.ones((len(rows), 1), bool)], axis=1)
        return ["\n".join(row[skip:depth]) for row, depth in zip(
            named, ended.argmax(axis=1).tolist(), strict=True)]

    def _placed(self, name: str, address: int) -> str:
        symbol, blank, module = name.partition(" ")
        # No call returns to where a function begins: what was interrupted there stands before it.
        lines = "" if "+0x0/" in symbol else self._lines_of(address)
        return f"{symbol} ({lines}){blank}{module}" if lines else name


_Asked = TypeVar("_Asked", bound=Callable[..., Any])


def _guarded(method: _Asked) -> _Asked:
    @wraps(method)
    def guarded(self: _Dwarf, *words: str) -> Any:
        return self.debug.asked(lambda: method(self, *words))

    return guarded  # type: ignore[return-value]


class _Dwarf:
    """`pageowner.kernel_memory.access.Btf` of what drgn knows."""

    def __init__(self, debug: DebugInfo) -> None:
        self.debug = debug

    @_guarded
    def size(self, name: str) -> int | None:
        found = self._struct(name)
        return None if found is None else int(found.size or 0)

    @_guarded
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

    @_guarded
    def enumerator(self, name: str, value: str) -> int | None:
        found = self.debug.type(f"enum {name}")
        return next((int(each.value) for each in found.enumerators or () if each.name == value),
                    None)

    def _struct(self, name: str) -> Any:
        try:
            return self.debug.type(f"struct {name}")
        except LookupError:
            return self.debug.type(f"union {name}")


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
