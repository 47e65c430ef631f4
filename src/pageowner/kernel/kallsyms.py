"""Addresses to names, as the kernel's own stack traces have them.

/proc/kallsyms is read once into arrays (no Python object per symbol); names are cut out of the text
only for the addresses that are asked for. The choice among symbols at one address, and the sizes,
follow kernel/kallsyms.c (get_symbol_pos) and kernel/module/kallsyms.c (find_kallsyms_symbol) of
6.12.
"""

from __future__ import annotations

import mmap
import os
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.symbol_text import HIDDEN, KALLSYMS, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["KALLSYMS", "Kallsyms", "RunningKallsyms", "load", "parse"]

MODULES = "/proc/modules"

_PAGE = np.uint64(mmap.PAGESIZE)

# Values of the hex digits; 255 for what is none.
_HEX = np.full(256, 255, np.uint8)
for _digit in b"0123456789abcdefABCDEF":
    _HEX[_digit] = int(chr(_digit), 16)


class _Symbols:
    """Symbols of one kind in address order: ``start``, ``end`` (exclusive), ``name`` position."""

    def __init__(self, start: NDArray[np.uint64], line: NDArray[np.int64],
                 end: NDArray[np.uint64]) -> None:
        self.start, self.line, self.end = start, line, end

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Index of the symbol that holds each address, or -1."""
        place: NDArray[np.int64] = np.searchsorted(self.start, addresses, side="right") - 1
        if len(self.start):
            place[addresses >= self.end[place]] = -1
        return place


class Kallsyms:
    """All symbols of a kernel.

    ``len()`` is the number of lines. Resolved addresses are remembered.
    """

    def __init__(self, text: bytes, origin: str = KALLSYMS) -> None:
        """Takes the whole text of /proc/kallsyms.

        Raises PageownerError if it is not such a text, or if all its addresses are hidden.
        """
        self._text = text
        self._known: dict[int, str] = {}
        address, self._kind, self._name, self._stop = _columns(text, origin)
        if not address.any():
            raise PageownerError(f"{origin}: {HIDDEN}")
        module = self._in_module(text)
        self._groups = self._make_groups(address, module)

    def __len__(self) -> int:
        return len(self._name)

    def resolve(self, addresses: NDArray[np.uint64] | Iterable[int]) -> list[str]:
        """``func+0x1f/0x90 [module]`` for each address, ``0xffff…`` where no symbol holds it.

        Each distinct address is looked up once, also over several calls.
        """
        wanted = np.asarray(addresses if isinstance(addresses, np.ndarray) else list(addresses),
                            dtype=np.uint64).ravel()
        distinct, index = np.unique(wanted, return_inverse=True)
        values = distinct.tolist()
        known = self._known
        new = [n for n, value in enumerate(values) if value not in known]
        if new:
            fresh = distinct[new]
            known.update(zip(fresh.tolist(), self._look_up(fresh), strict=True))
        names = [known[value] for value in values]
        return [names[n] for n in index.tolist()]

    def stacks(self, rows: NDArray[np.uint64], skip: int = 0) -> list[str]:
        """The text of stacks: one row of addresses each, innermost first, ended by a zero.

        Frames are joined by newlines; the first ``skip`` of each row are left out. The array has
        the shape (stacks, depth).
        """
        names = np.array(self.resolve(rows), dtype=object).reshape(rows.shape)
        ended = np.concatenate([rows == 0, np.ones((len(rows), 1), bool)], axis=1)
        depths = ended.argmax(axis=1).tolist()
        return ["\n".join(row[skip:depth]) for row, depth in zip(names, depths, strict=True)]

    def address_of(self, name: str) -> int | None:
        """The address of a symbol of the kernel itself, or None; of the first if there are more."""
        wanted = name.encode()
        start = 0
        while (found := self._text.find(b" " + wanted, start)) >= 0:
            after = self._text[found + 1 + len(wanted):found + 2 + len(wanted)]
            line = int(np.searchsorted(self._name, found + 1, side="right")) - 1
            if after in (b"\n", b"") and self._name[line] == found + 1:
                return int(self._text[self._text.rfind(b"\n", 0, found) + 1:found - 2], 16)
            start = found + 1
        return None

    # -- reading ---------------------------------------------------------------------------------

    def _in_module(self, text: bytes) -> NDArray[np.bool_]:
        """Which lines end with ``[module]``."""
        data = np.frombuffer(text, np.uint8)
        last: NDArray[np.bool_] = data[self._stop - 1] == ord("]")
        return last

    def _make_groups(self, address: NDArray[np.uint64],
                     module: NDArray[np.bool_]) -> list[_Symbols]:
        """The kernel's own symbols; the modules' text; the modules' data; BPF programs."""
        is_text = np.isin(self._kind, np.frombuffer(b"tTwW", np.uint8))
        core = np.flatnonzero(~module)
        others = np.flatnonzero(module)
        bpf = np.array([self._module_name(line) == b"bpf" for line in others.tolist()], np.bool_)
        groups = [self._core(address, core)]
        for lines in (others[~bpf & is_text[others]], others[~bpf & ~is_text[others]],
                      others[bpf]):
            start, chosen = _in_order(address, lines)
            groups.append(_Symbols(start, chosen, self._module_ends(start, chosen)))
        return groups

    def _core(self, address: NDArray[np.uint64], lines: NDArray[np.int64]) -> _Symbols:
        start, chosen = _in_order(address, lines)
        end = np.append(start[1:], (start[-1:] // _PAGE + np.uint64(1)) * _PAGE)
        # Below _stext lie per-CPU offsets and the like (include/asm-generic/sections.h, is_kernel).
        begin = self.address_of("_stext")
        if begin is not None:
            end = np.where(start < np.uint64(begin), start, end)
        # Without CONFIG_KALLSYMS_ALL only text is looked up (is_ksym_addr in kernel/kallsyms.c):
        # what lies between the sections is no code.
        kinds = self._kind[lines]
        has_data = np.isin(kinds, np.frombuffer(b"dDbBrR", np.uint8)).sum() > len(lines) // 20
        if not has_data:
            for limit in (self.address_of("_etext"), self.address_of("_einittext")):
                if limit is not None:
                    last = int(np.searchsorted(start, np.uint64(limit), side="left")) - 1
                    if last >= 0:
                        end[last] = min(int(end[last]), limit)
                    at = int(np.searchsorted(start, np.uint64(limit), side="left"))
                    if at < len(start) and int(start[at]) == limit:
                        end[at] = limit
        return _Symbols(start, chosen, end)

    def _module_ends(self, start: NDArray[np.uint64],
                     lines: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where symbols outside the kernel end: at the next of the same module, else at the end
        of their page, since a module's regions are whole pages."""
        if not len(start):
            return start
        page_end = (start // _PAGE + np.uint64(1)) * _PAGE
        following = np.append(start[1:], page_end[-1:])
        names = [self._module_name(line) for line in lines.tolist()]
        same = np.array([*(a == b for a, b in pairwise(names)), False])
        return np.where(same, following, np.minimum(following, page_end))

    def _module_name(self, line: int) -> bytes:
        whole = self._text[self._name[line]:self._stop[line]]
        return whole[whole.rfind(b"[") + 1:-1]

    # -- looking up ------------------------------------------------------------------------------

    def _look_up(self, addresses: NDArray[np.uint64]) -> list[str]:
        names: list[str | None] = [None] * len(addresses)
        for symbols in self._groups:
            places = symbols.find(addresses)
            for n in np.flatnonzero(places >= 0).tolist():
                if names[n] is None:
                    place = int(places[n])
                    names[n] = self._format(
                        int(symbols.line[place]),
                        int(addresses[n]) - int(symbols.start[place]),
                        int(symbols.end[place]) - int(symbols.start[place]))
        values = addresses.tolist()
        return [name or f"{value:#x}" for name, value in zip(names, values, strict=True)]

    def _format(self, line: int, offset: int, size: int) -> str:
        whole = self._text[self._name[line]:self._stop[line]].decode("ascii", "backslashreplace")
        name, tab, module = whole.partition("\t")
        # A BPF program carries no module name in a stack: kernel/bpf/core.c, bpf_address_lookup.
        suffix = f" {module}" if tab and module != "[bpf]" else ""
        return f"{name}+{offset:#x}/{size:#x}{suffix}"


def load(path: str | os.PathLike[str] = KALLSYMS) -> Kallsyms:
    """The symbols of the running kernel, or of a saved copy of /proc/kallsyms.

    Raises PageownerError if the file cannot be read, or hides its addresses.
    """
    return Kallsyms(read(path), str(path))


def parse(text: bytes) -> Kallsyms:
    """The symbols in a text like /proc/kallsyms; raises PageownerError as `Kallsyms` does."""
    return Kallsyms(text, "kallsyms")


class RunningKallsyms:
    """The symbols of the running kernel for whoever asks for hours: ``symbols`` are read anew where
    modules came or went, if the kernel still shows them. Raises PageownerError as `load` does."""

    def __init__(self, path: str | os.PathLike[str] = KALLSYMS, modules: str = MODULES) -> None:
        self._path, self._list = path, modules
        # First: one that is loaded meanwhile then shows the next time.
        self._modules = _modules(modules)
        self.symbols = load(path)

    def renew(self) -> None:
        """Read them if the modules are not those of the last time."""
        now = _modules(self._list)
        if now == self._modules:
            return
        try:
            self.symbols = load(self._path)
        except PageownerError as error:
            if HIDDEN not in str(error):
                raise
        self._modules = now  # hidden since (kptr_restrict), as their addresses are


def _modules(path: str) -> frozenset[tuple[bytes, ...]]:
    """Name, size and address of each module (kernel/module/procfs.c, m_show, 6.12); none where the
    kernel has no modules. The other words of a line change while the module stays."""
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return frozenset()
    return frozenset((*words[:2], *words[5:6]) for line in lines if (words := line.split()))


def _columns(text: bytes, origin: str) -> tuple[
        NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Of each line: the address, the type letter, where the name begins and where the line ends.

    A line is ``%0*lx %c %s`` (kernel/kallsyms.c, s_show): 16 hex digits on 64-bit kernels.
    """
    data = np.frombuffer(text, np.uint8)
    stops = np.flatnonzero(data == ord("\n"))
    if len(data) and data[-1] != ord("\n"):
        stops = np.append(stops, len(data))
    starts = np.concatenate([[0], stops[:-1] + 1]) if len(stops) else stops
    width = text.find(b" ")
    if not len(stops) or width not in (8, 16) or (stops - starts < width + 4).any():
        raise PageownerError(f"{origin}: this is not a list of kernel symbols")
    digits = _HEX[data[starts[:, None] + np.arange(width)]]
    if (digits > 15).any() or (data[starts + width] != ord(" ")).any():
        bad = int(np.flatnonzero((digits > 15).any(axis=1)
                                 | (data[starts + width] != ord(" ")))[0]) + 1
        raise PageownerError(f"{origin}: line {bad} is not a kernel symbol")
    packed = (digits[:, 0::2] << 4) | digits[:, 1::2]
    wide = np.zeros((len(starts), 8), np.uint8)
    wide[:, 8 - width // 2:] = packed
    address = wide.view(">u8").ravel().astype(np.uint64)
    return address, data[starts + width + 1], starts + width + 3, stops


def _in_order(address: NDArray[np.uint64],
              lines: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Addresses in order, one line each: of aliases, the first in the file is the kernel's choice.

    The kernel sorts its own table at build time so that the best name is first (scripts/kallsyms.c,
    compare_symbols: no weak ones, fewest underscores) and takes the first; of a module it takes the
    first in the symbol table.
    """
    order = np.argsort(address[lines], kind="stable")
    chosen = lines[order]
    start = address[chosen]
    first = np.ones(len(start), bool)
    first[1:] = start[1:] != start[:-1]
    return start[first], chosen[first]
