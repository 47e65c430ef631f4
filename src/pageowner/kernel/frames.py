"""One line of a kernel stack: its function, its module, and the name behind the symbol.

The kernel prints a frame with ``%pS`` (lib/vsprintf.c, symbol_string): ``func+0x1f/0x90 [module]``,
with a build id after the module if the kernel was asked for it. Kernels before 4.12 put the address
in front: `` [<ffffffff811682c4>] func+0x114/0x220``. scripts/decode_stacktrace.sh puts the line of
source for the offset, ``func (mm/slub.c:2024) module``, and other tools put it behind the offset.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["UNWINDERS", "Frame", "frame_lines", "frames", "function_name", "parse_frame",
           "spellings"]


class Frame(NamedTuple):
    """A function, named as in the source, and its module (None: built into vmlinux)."""

    name: str
    module: str | None

    def __str__(self) -> str:
        return f"{self.name} [{self.module}]" if self.module else self.name


_LINE = re.compile(
    r"""\s*
    (?:\[<[^>\]\n]*>\]\s+)?            # the address, before 4.12
    (?:\?\s+)?                          # a doubtful frame of a stack dump
    (?P<symbol>\S+?)
    (?:\+(?:0x[0-9a-f]+(?:/0x[0-9a-f]+)?|\d+))?
    (?:\s+(?P<place>[^\s()\[\]]+:\d+(?::\d+)?)
      |\s+\([^\s()]+:(?:\d+|\?)(?:\s.*)?\)(?:\s+(?P<bare>[A-Za-z0-9_-]+))?)?
    (?:\s+\[(?P<module>[^\s\]]+)(?:\s[0-9a-f]+)?\])?
    \s*$""",
    re.VERBOSE,
)

# ULONG_MAX ends the entries of save_stack_trace() on many architectures, and 0 those that an
# unwinder did not fill (kernel/stacktrace.c of 4.20); "%pS" of 0 was "(null)" before 4.15.
_END_MARK = re.compile(
    r"\s*(?:\[<[^>\]\n]*>\]\s+)?(?:0x0+|0xf{8}(?:f{8})?|\(null\))\s*$")

UNWINDERS = frozenset((
    "save_stack_trace", "__save_stack_trace", "save_stack_trace_tsk", "__save_stack_trace_tsk",
    "save_stack_trace_regs", "stack_trace_save", "stack_trace_save_tsk", "arch_stack_walk",
    "walk_stackframe", "notrace_walk_stackframe", "dump_trace", "unwind_frame", "unwind_backtrace",
    "save_context_stack", "save_raw_context_stack", "__save_stack_address"))
"""What takes a stack and is in front of it where it was not skipped: x86 from 4.7 to 4.15, arm64 in
4.9 and 5.10, arm, s390, powerpc, mips and riscv (arch/*/kernel/stacktrace.c)."""

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
    """The frame of one line of a stack; None for an empty line, and for the mark that ends the
    entries of an unwinder (all bits set, 0 or ``(null)``), which is no function.

    A line in no known form is a frame whose name is the whole line, so that nothing is lost.
    """
    found = _LINE.match(line)
    if found is None:
        text = line.strip()
        return Frame(text, None) if text and not _END_MARK.match(line) else None
    if _END_MARK.match(line):
        return None
    module = found["module"] or found["bare"]
    if found["place"] and module == "inline":  # said of a function, not the name of a module
        module = None
    return Frame(function_name(found["symbol"]), module)


def spellings(line: str) -> tuple[str, ...]:
    """How the function of a line of a stack is called: by its symbol, as the line has it, and by
    its name; nothing where `parse_frame` finds no frame."""
    frame, found = parse_frame(line), _LINE.match(line)
    if frame is None:
        return ()
    return (line.strip().partition("+")[0] if found is None else found["symbol"], frame.name)


class _Lines(dict[str, "Frame | None"]):
    """Lines that were parsed: a million stacks have some ten thousand of them."""

    def __missing__(self, line: str) -> Frame | None:
        if len(self) >= 1 << 17:  # a dump may be hostile
            self.clear()
        frame = self[line] = parse_frame(line)
        return frame


_KNOWN = _Lines()


def frames(stack: str) -> list[Frame]:
    """The frames of a stack, innermost first, without the `UNWINDERS` in front, unless there are no
    others."""
    known = _KNOWN
    chain = [known[line] for line in stack.split("\n")]
    found: list[Frame] = (
        [frame for frame in chain if frame is not None] if None in chain else chain)  # type: ignore[assignment]
    if found and found[0].name in UNWINDERS:
        return found[_unwinding(found):]
    return found


def frame_lines(stack: str) -> list[tuple[str, Frame]]:
    """`frames`, each with its line."""
    found = [(line, frame) for line in stack.split("\n") if (frame := _KNOWN[line]) is not None]
    return found[_unwinding([frame for _, frame in found]):]


def _unwinding(chain: list[Frame]) -> int:
    """How many frames in front are of what took the stack; 0 if all are."""
    return next((place for place, frame in enumerate(chain) if frame.name not in UNWINDERS), 0)
