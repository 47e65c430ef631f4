"""A vmcore as the kernel's memory: drgn finds the pages, what is in them we read ourselves.

No debugging information is needed: symbols are those of the kernel's own table (kallsyms), whose
place VMCOREINFO has since 6.0 (kernel/vmcore_info.c, commit 5fd8fea935a1), types those of its BTF.
Of older kernels, and of those without BTF, both are taken from a vmlinux.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.kallsyms import Kallsyms
from pageowner.system.closing import Closing
from pageowner.vmcore import info
from pageowner.vmcore.debug_info import DebugInfo, SymbolsWithLines, installed
from pageowner.vmcore.limits import Limits
from pageowner.vmcore.notes import end_of, find_note, has_note
from pageowner.vmcore.symbols import WITH_VMLINUX, KernelSymbols, kernel_symbols, tells_symbols
from pageowner.vmcore.types import BtfTypes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import AskedTypes

__all__ = ["Vmcore"]

_SYMBOLS = "its kallsyms"
_DATA = "init_task"
"""A symbol of data, which every kernel has."""
_NEEDS = "pip install 'pageowner[crash]'"
_NO_NOTE = ("; it has no VMCOREINFO: give the guest QEMU's device vmcoreinfo, or have it dumped as"
            " ELF")
_AT_ONCE = 1 << 20
_ADDRESSES = 1 << 14
"""How many small pieces are gathered at once."""
_LARGE = 2048
"""Bytes from which on each piece is read by itself."""
_TOP = 1 << 64
_MOST_BTF = 1 << 27


class Vmcore(Closing):
    """The memory, for as long as this is open; use it with ``with``. It is a
    `pageowner.kernel_memory.access.Memory`.

    ``info``: its VMCOREINFO. ``symbols``: those of the kernel and its modules. ``missing``: how
    many of the pages that were wanted are not in it. ``live``: it is /proc/kcore, whose kernel
    runs while it is read. ``machine``: drgn's name of its architecture, such as ``x86_64``.
    """

    def __init__(self, path: str, vmlinux: str | None = None) -> None:
        """``vmlinux``: its kernel's, with debugging information. Raises PageownerError, in one line
        without the name of the file."""
        try:
            import drgn
        except ImportError as error:
            raise PageownerError(f"a vmcore is read through drgn, which is not installed: {_NEEDS}"
                                 ) from error
        self.live = path.startswith("/proc/")
        note = _note(path)
        logging.getLogger("drgn").setLevel(logging.CRITICAL)
        self._program: Any = None
        try:
            self._program = drgn.Program(**({} if note is None else {"vmcoreinfo": note}))
            self._program.set_core_dump(path)
        except Exception as error:  # as which drgn gives whatever libkdumpfile says
            hint = _NO_NOTE if "vmcoreinfo" in str(error).lower() or "ARCH_NAME" in str(
                error) else ""
            raise PageownerError(f"cannot be read as a vmcore: {_line(error)}"
                                 f"{_cut(path) or hint}") from error
        self._limits = Limits(os.path.getsize(path))
        self.missing = 0
        try:
            text = self._program["VMCOREINFO"].string_()
        except Exception as error:
            why = _cut(path) or (": a process's core dump, or one of QEMU's without the device"
                                 " vmcoreinfo")
            raise PageownerError("has no VMCOREINFO, by which a kernel tells where its things are"
                                 f"{why}") from error
        self.machine = self._program.platform.arch.name.lower()
        self.info = info.parse(text.decode("utf-8", "backslashreplace"))
        self.release = self.info.release
        self.section_size_bits = self.info.numbers.get("SECTION_SIZE_BITS")
        self.page_size = self.info.page_size
        if not self.page_size:
            raise PageownerError("its VMCOREINFO does not say how large a page is")
        self._shift = np.uint64(self.page_size.bit_length() - 1)
        self._debug = None if vmlinux is None else DebugInfo(self._program, vmlinux)
        self._core = self._kernel_symbols()
        self.types = self._types()
        self._symbols: Kallsyms | None = None

    @property
    def symbols(self) -> Kallsyms:
        """The symbols of the kernel, its modules and BPF programs, as /proc/kallsyms would have
        them."""
        if self._symbols is None:
            from pageowner.vmcore.modules import bpf_symbols, init_symbols, module_symbols

            text = (self._core.text + module_symbols(self) + init_symbols(self)
                    + bpf_symbols(self))
            self._symbols = (SymbolsWithLines(text, _SYMBOLS, self._debug.lines_of)
                             if self._debug else Kallsyms(text, _SYMBOLS))
        return self._symbols

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self.types, BtfTypes):
            self.types.close()
        if self._debug:
            self._debug.close()
        self._debug = self._symbols = self._program = None

    def symbol(self, name: str) -> int | None:
        """The address of a symbol of the kernel itself."""
        return self._core.address_of(name)

    def _debug_info(self) -> DebugInfo | None:
        """What was given, else what is installed for this kernel. None if there is neither."""
        for path in installed(self.release) if self._debug is None else ():
            with suppress(PageownerError):  # of another build, or without debugging information
                self._debug = DebugInfo(self._program, path)
                break
        return self._debug

    def _kernel_symbols(self) -> KernelSymbols:
        found = kernel_symbols(self) if tells_symbols(self) else None
        # without CONFIG_KALLSYMS_ALL the kernel's own table has functions alone
        if (found is None or found.address_of(_DATA) is None) and (debug := self._debug_info()):
            return KernelSymbols(*debug.symbols())
        return kernel_symbols(self) if found is None else found  # which says what is missing

    def _types(self) -> AskedTypes:
        start, stop = (self.symbol(name) for name in ("__start_BTF", "__stop_BTF"))
        if start is not None and stop is not None and 0 < stop - start < _MOST_BTF:
            return BtfTypes(self.read(start, stop - start))
        if debug := self._debug_info():
            return debug.types()
        raise PageownerError("the kernel in it has no type information (CONFIG_DEBUG_INFO_BTF):"
                             f" {WITH_VMLINUX}")

    # -- bytes -----------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> bytes:
        """So many bytes. Raises PageownerError if one of them is not there."""
        found, good = self.fill(address, size)
        if not good:
            raise PageownerError(f"the page of kernel memory at {address:#x} is not in it")
        return found.tobytes()

    def fill(self, address: int, size: int) -> tuple[NDArray[np.uint8], bool]:
        """So many bytes, zeros for those that are not there, and whether all are."""
        address %= _TOP
        self._limits.check(self.missing)
        found = np.zeros(size, np.uint8)
        whole = True
        for start in range(0, size, _AT_ONCE):
            self._limits.check(self.missing)
            part = found[start:start + _AT_ONCE]
            whole &= self._fill(address + start, part)
        return found, whole

    def _fill(self, address: int, into: NDArray[np.uint8]) -> bool:
        if address + len(into) > _TOP:
            return False
        try:
            into[:] = np.frombuffer(self._program.read(address, len(into)), np.uint8)
        except Exception:  # see `_try`
            page = self.page_size
            if address // page == (address + len(into) - 1) // page:
                self.missing += 1
                return False
            middle = (address + len(into) // 2) // page * page
            cut = middle - address if middle > address else page - address % page
            first = self._fill(address, into[:cut])
            return self._fill(address + cut, into[cut:]) and first
        return True

    def copy(self, addresses: NDArray[np.uint64], size: int, out: NDArray[np.uint8] | None = None
             ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """So many bytes (at most 128 KiB) from each address: an array of the shape (addresses,
        size), which is ``out`` if that is given, zeros for what is not there, and which of them
        are there."""
        self._limits.check(self.missing)
        addresses = np.asarray(addresses, np.uint64)
        found = np.zeros((len(addresses), size), np.uint8) if out is None else out
        good = np.zeros(len(addresses), bool)
        if len(addresses) == 1 and 0 < size < _LARGE:
            good[0] = self._one(int(addresses[0]), found[0])
        elif size >= _LARGE:
            for place, address in enumerate(addresses.tolist()):
                piece, good[place] = self.fill(address, size)
                found[place] = piece if good[place] else 0
        elif size:
            for start in range(0, len(addresses), _ADDRESSES):
                part = slice(start, start + _ADDRESSES)
                found[part], good[part] = self._gather(addresses[part], size)
        return found, good

    def _one(self, address: int, into: NDArray[np.uint8]) -> bool:
        """A single small piece: what follows a list reads many, one after the other."""
        good = address + len(into) <= _TOP and self._try(address, into)
        if not good:
            into[:] = 0
            self.missing += 1
        return good

    def _gather(self, addresses: NDArray[np.uint64], size: int) -> tuple[
            NDArray[np.uint8], NDArray[np.bool_]]:
        """Small pieces: each page that has some of them is read once, neighbours together."""
        first = addresses >> self._shift
        last = (addresses + np.uint64(size - 1)) >> self._shift
        ordered = last >= first  # else the piece goes beyond the end of all addresses
        pages = np.unique(np.concatenate([first[ordered], last[ordered]]))
        held = np.zeros((len(pages), self.page_size), np.uint8)
        there = np.zeros(len(pages), bool)
        bounds = np.flatnonzero(np.diff(pages) != 1) + 1
        for run in np.split(np.arange(len(pages)), bounds):
            self._pages(pages, held, there, run)
        place = np.searchsorted(pages, first)
        place[~ordered] = 0
        good = ordered & (there[place] & there[np.minimum(
            place + (last != first), max(len(pages) - 1, 0))] if len(pages) else False)
        at = place * self.page_size + (addresses & np.uint64(self.page_size - 1)).astype(np.int64)
        at[~good] = 0
        found = (held.ravel()[at[:, None] + np.arange(size)] if len(pages)
                 else np.zeros((len(addresses), size), np.uint8))
        found[~good] = 0
        return found, good

    def _pages(self, pages: NDArray[np.uint64], held: NDArray[np.uint8],
               there: NDArray[np.bool_], run: NDArray[np.int64]) -> None:
        """Read a run of neighbours."""
        for start in range(0, len(run), _AT_ONCE // self.page_size):
            part = run[start:start + _AT_ONCE // self.page_size]
            address = int(pages[part[0]]) << int(self._shift)
            into = held[part[0]:part[-1] + 1].reshape(-1)
            if len(part) > 1 and self._try(address, into):
                there[part] = True
                continue
            for place in part.tolist():
                there[place] = self._try(int(pages[place]) << int(self._shift), held[place])
                self.missing += not there[place]

    def _try(self, address: int, into: NDArray[np.uint8]) -> bool:
        try:
            into[:] = np.frombuffer(self._program.read(address, len(into)), np.uint8)
        except Exception:  # drgn has its own for a page that is not there, one for each other fault
            return False
        return True


def _note(path: str) -> str | None:
    """The kernel's own VMCOREINFO, for an ELF dump that has no note of it."""
    with open(path, "rb") as file:
        if not file.read(4).startswith(b"\x7fELF") or has_note(file):
            return None
        return find_note(file)


def _cut(path: str) -> str:
    """That the file is shorter than it says, if so."""
    with open(path, "rb") as file:
        end, size = (end_of(file) if file.read(4) == b"\x7fELF" else 0), os.path.getsize(path)
    if end <= size:
        return ""
    return f": the file is cut short, at byte {size:,} of {end:,}; copy it again, whole"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
