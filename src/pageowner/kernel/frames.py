"""One line of a kernel stack: its function, its module, and the name behind the symbol.

The kernel prints a frame with ``%pS`` (lib/vsprintf.c, symbol_string): ``func+0x1f/0x90 [module]``,
with a build id after the module if the kernel was asked for it. Kernels before 4.12 put the address
in front: `` [<ffffffff811682c4>] func+0x114/0x220``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Frame", "frames", "function_name", "parse_frame"]


class Frame(NamedTuple):
    """A function, named as in the source, and its module (None: built into vmlinux)."""

    name: str
    module: str | None

    def __str__(self) -> str:
        return f"{self.name} [{self.module}]" if self.module else self.name


_LINE = re.compile(
    r"""\s*
    (?:\[<[0-9a-fA-F]*>\]\s+)?          # the address, before 4.12
    (?:\?\s+)?                          # a doubtful frame of a stack dump
    (?P<symbol>\S+?)
    (?:\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?)?
    (?:\s+\[(?P<module>[^\s\]]+)(?:\s[0-9a-f]+)?\])?
    \s*$""",
    re.VERBOSE,
)

# What compilers add: GCC clones a function when it specialises (constprop), drops arguments
# (isra), splits (part, cold) or links it whole-program (lto_priv, llvm).
_COMPILER = re.compile(
    r"\.(?:isra|constprop|part|cold|lto_priv|llvm|localalias|__uniq)(?:\.[0-9a-zA-Z]+)*(?=\.|$)"
)

# The wrappers of a system call, from SYSCALL_DEFINEx: arch/*/include/asm/syscall_wrapper.h and
# include/linux/syscalls.h. All of them share one body, so their symbols are often aliases.
_SYSCALL = re.compile(
    r"^__(?:x64|ia32|arm64|s390x?|riscv|se|do|x32)_(?P<compat>compat_)?sys_(?=\w)"
)


@lru_cache(maxsize=1 << 16)
def function_name(symbol: str) -> str:
    """The name in the source of a symbol.

    Drops compiler suffixes (``.isra.0``, ``.constprop.0``, ``.part.0``, ``.cold``), the ``_noprof``
    that memory allocation profiling adds since 6.10 (include/linux/alloc_tag.h), and calls every
    wrapper of a system call ``sys_…``.
    """
    name = _COMPILER.sub("", symbol).removesuffix("_noprof")
    return _SYSCALL.sub(lambda found: f"{found['compat'] or ''}sys_", name)


def parse_frame(line: str) -> Frame | None:
    """The frame of one line of a stack; None for an empty line.

    A line in no known form is a frame whose name is the whole line, so that nothing is lost.
    """
    found = _LINE.match(line)
    if found is None:
        text = line.strip()
        return Frame(text, None) if text else None
    return Frame(function_name(found["symbol"]), found["module"])


class _Lines(dict[str, "Frame | None"]):
    """Lines that were parsed: a million stacks have some ten thousand of them."""

    def __missing__(self, line: str) -> Frame | None:
        if len(self) >= 1 << 17:  # a dump may be hostile
            self.clear()
        frame = self[line] = parse_frame(line)
        return frame


_KNOWN = _Lines()


def frames(stack: str) -> list[Frame]:
    """The frames of a stack, innermost first."""
    known = _KNOWN
    chain = [known[line] for line in stack.split("\n")]
    return [frame for frame in chain if frame is not None] if None in chain else chain  # type: ignore[return-value]
