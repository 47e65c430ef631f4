"""Symbols of modules and of BPF programs, as /proc/kallsyms has them.

kernel/module/kallsyms.c of 6.0 to 7.3 (module_get_kallsym; struct mod_kallsyms),
kernel/trace/ftrace.c (ftrace_mod_get_kallsym: functions of modules' init sections, kept where
something traced when they were freed) and kernel/bpf/core.c (bpf_get_kallsym; struct bpf_ksym).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset, strings
from pageowner.vmcore.structs import linked, place, text, value

if TYPE_CHECKING:
    from pageowner.vmcore.memory import Vmcore

__all__ = ["bpf_symbols", "init_symbols", "module_symbols"]

_SYMBOL = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"),
                    ("value", "<u8"), ("size", "<u8")])
"""Elf64_Sym."""
_MOST_SYMBOLS = 1 << 20
_MOST_BYTES = 1 << 28
"""Lines of all modules; an Ubuntu with all of its modules loaded has a tenth of that."""
_NAMES_AT_ONCE = 1 << 16
_LONGEST = 512
_NO_NAME = b"?"


def module_symbols(memory: Vmcore) -> bytes:
    """Lines of all modules, in the kernel's order. One whose symbols cannot be read has none, and
    its frames are shown as addresses."""
    head = memory.symbol("modules")
    if head is None:
        return b""
    at = offset(memory.types, "module", "list")
    lines: list[bytes] = []
    size = 0
    for link in linked(memory, head):
        try:
            lines.append(_of_module(memory, link - at))
        except PageownerError:
            continue
        size += len(lines[-1])
        if size > _MOST_BYTES:  # damaged
            break
    return b"".join(lines)


def _of_module(memory: Vmcore, module: int) -> bytes:
    table = value(memory, module, "module", "kallsyms")
    if not table:
        return b""
    name = _clean(text(memory, module, "module", "name"))
    count = value(memory, table, "mod_kallsyms", "num_symtab")
    if not 0 < count <= _MOST_SYMBOLS:
        return b""
    symbols = np.frombuffer(memory.read(value(memory, table, "mod_kallsyms", "symtab"),
                                        count * _SYMBOL.itemsize), _SYMBOL)
    kinds = memory.read(value(memory, table, "mod_kallsyms", "typetab"), count)
    missing = memory.missing
    table_of_names, _ = memory.fill(value(memory, table, "mod_kallsyms", "strtab"),
                                    min(int(symbols["name"].max()), 1 << 26) + _LONGEST)
    memory.missing = missing  # behind the last one there may be nothing
    names = table_of_names.tobytes()
    lines = []
    for at, address, kind in zip(symbols["name"].tolist(), symbols["value"].tolist(), kinds,
                                 strict=True):
        # Damaged, it may have no end for as long as the table is.
        symbol = _clean(names[at:at + _LONGEST].partition(b"\0")[0])
        if symbol != _NO_NAME and 33 <= kind < 127:
            lines.append(b"%016x %c %b\t[%b]\n" % (address, kind, symbol, name))
    return b"".join(lines)


def init_symbols(memory: Vmcore) -> bytes:
    """Lines of the functions that modules began with, whose memory was freed since."""
    head = memory.symbol("ftrace_mod_maps")
    if head is None or memory.types.member("ftrace_mod_map", "funcs") is None:
        return b""
    at, at_function = (offset(memory.types, name, "list")
                       for name in ("ftrace_mod_map", "ftrace_mod_func"))
    lines = []
    try:
        for link in linked(memory, head):
            of = link - at
            module = _clean(text(memory, value(memory, of, "ftrace_mod_map", "mod"), "module",
                                 "name"))
            for function in linked(memory, place(memory, of, "ftrace_mod_map", "funcs")):
                start, name = (value(memory, function - at_function, "ftrace_mod_func", member)
                               for member in ("ip", "name"))
                (told,) = strings(memory, np.array([name], np.uint64), _LONGEST)
                lines.append(b"%016x T %b\t[%b]\n" % (start, _clean(told or b""), module))
                if len(lines) > _MOST_SYMBOLS:
                    return b""
    except PageownerError:
        pass  # the rest is shown as addresses
    return b"".join(lines)


def bpf_symbols(memory: Vmcore) -> bytes:
    """Lines of the BPF programs and trampolines that were loaded."""
    head = memory.symbol("bpf_kallsyms")
    if head is None or memory.types.member("bpf_ksym", "lnode") is None:
        return b""
    at = offset(memory.types, "bpf_ksym", "lnode")
    name_at = offset(memory.types, "bpf_ksym", "name")
    lines = []
    try:
        for link in linked(memory, head):
            start = value(memory, link - at, "bpf_ksym", "start")
            raw, good = memory.fill(link - at + name_at, _LONGEST // 4)
            if good:
                lines.append(b"%016x t %b\t[bpf]\n" % (
                    start, _clean(raw.tobytes().partition(b"\0")[0])))
    except PageownerError:
        pass  # the rest is shown as addresses
    return b"".join(lines)


def _clean(name: bytes) -> bytes:
    """A name that cannot end its line, nor its word."""
    return name.translate(None, b"\n\t \r\0")[:_LONGEST] or _NO_NAME
