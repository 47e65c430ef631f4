"""What one block of a page_owner dump says: the rules of tools/mm/page_owner_sort.c, 6.12.

A block is what stands between two empty lines, without its lines that begin with PFN. For the
first line that kernels since 5.18 print (print_page_owner() in mm/page_owner.c) the fields are
anchored at both sides of the task's name, so that no name can pose as a field; the kernel's tool
is deceived by one such as ``evil), ts 1 ns``. Every other text is read by the tool's own regular
expressions.
"""

from __future__ import annotations

import re

__all__ = ["CMA", "HEADER", "OTHERS", "PREFIX", "SLAB", "UNKNOWN", "VMALLOC", "Fields",
           "allocator_of", "split", "time_of", "without_time"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = b"Page allocated via order "

HEADER = re.compile(
    rb"Page allocated via order ([0-9]{1,2}), mask 0x[0-9a-f]+(?:\([^)\n]*\))?,"
    rb" pid ([0-9]{1,9}), tgid ([0-9]{1,9}) \((.{0,15})\),"
    rb" ts (0|[1-9][0-9]{0,18}) ns(?:, free_ts (0|[1-9][0-9]{0,18}) ns)?\n",
    re.DOTALL,
)
"""The first line of 5.18 and later. TASK_COMM_LEN bounds the name; it may hold any byte but NUL."""

CMA, SLAB, VMALLOC, OTHERS = 2, 4, 8, 16
"""The allocators of a page, as bits, in the order in which they sort."""

UNKNOWN = 255
"""In place of CMA and SLAB: what the PFN line before the first block of this part says."""

_ORDER = re.compile(rb"order\s*([0-9]*),")
_PID = re.compile(rb"pid\s*([0-9]*),")
_TGID = re.compile(rb"tgid\s*([0-9]*) ")
_COMM = re.compile(rb"tgid\s*[0-9]*\s*\((.*)\),\s*ts")
_TS = re.compile(rb"ts\s*([0-9]*)\s*ns")
_FREE_TS = re.compile(rb"free_ts\s*([0-9]*)\s*ns")
_MODULE = re.compile(rb"\+0x[0-9a-f]+/0x[0-9a-f]+\s*\[([a-zA-Z0-9_-]+)\]")

_NO_TIME = (1 << 64) - 1


class Fields:
    """What blocks of one kind have in common.

    ``head`` is the first line from the order up to ``ts``, None for a text of another format,
    which is then whole in ``text``, without its time unless that was to be kept. ``pages`` is
    what one block counts (2**order), ``vmalloc`` is VMALLOC or 0.
    """

    __slots__ = ("comm", "head", "module", "pages", "pid", "stack", "text", "tgid", "vmalloc")

    def __init__(self, head: bytes | None, rest: bytes) -> None:
        """``rest``: the lines after the first, without the last newline; or the whole text."""
        self.head = head
        if head is not None:
            match = HEADER.fullmatch(PREFIX + head + b" 0 ns\n")
            assert match is not None
            order, pid, tgid, self.comm = match.group(1, 2, 3, 4)
            self.pages = _pages(order)
            self.pid, self.tgid = int(pid), int(tgid)
            self.text = b""
            self.stack = rest + b"\n" if rest else b""
            self.module = _module(self.stack)
            self.vmalloc = _vmalloc(PREFIX + head + b"\n" + self.stack)
        else:
            self._read(rest)

    def _read(self, text: bytes) -> None:
        line = text + b"\n"
        self.text = text
        self.stack = text.partition(b"\n")[2]
        self.pages = _pages(_first(_ORDER, line))
        self.pid = _int32(_first(_PID, line))
        self.tgid = _int32(_first(_TGID, line))
        self.comm = _first(_COMM, line)
        self.module = _module(line)
        self.vmalloc = _vmalloc(line)


def split(text: bytes, bits: int) -> Iterator[tuple[bytes | None, bytes, int, int, int]]:
    """The blocks of a text: (head, rest, time, free time, bits); see `Fields` for the first two.

    Times are in ns; the time is 2**64 - 1 and the free time -1 where there is none. ``bits``, what
    the last PFN line before the text says of CMA and SLAB, holds until the next such line, as in
    the kernel's tool. What no empty line ends is no block. The text of another format is whole,
    with its time and its last newline.
    """
    here = 0
    while here < len(text):
        match = HEADER.match(text, here)
        start = here
        if match:
            here = match.end()
        lines = []
        while True:
            end = text.find(b"\n", here)
            if end < 0:
                return
            line = text[here : end + 1]
            here = end + 1
            if line == b"\n":
                break
            if line.startswith(b"PFN"):
                bits = allocator_of(line)
            else:
                lines.append(line)
        if match:
            head = text[start + len(PREFIX) : match.start(5) - 1]
            free = match.group(6)
            yield (head, b"".join(lines)[:-1], int(match.group(5)), -1 if free is None else
                   int(free), bits)
        else:
            whole = b"".join(lines)
            free = _first(_FREE_TS, whole)
            yield None, whole, time_of(whole), int(free) if 0 < len(free) < 20 else -1, bits


def time_of(text: bytes) -> int:
    """The time of allocation of a text of any format, in ns; 2**64 - 1 if it has none."""
    digits = _first(_TS, text + b"\n")
    return min(int(digits[:24]), _NO_TIME) if digits else _NO_TIME


def without_time(text: bytes) -> bytes:
    """A text of any format without the digits of its time of allocation."""
    match = _TS.search(text)
    return text[: match.start(1)] + text[match.end(1) :] if match else text


def allocator_of(line: bytes) -> int:
    """What a PFN line says: CMA by the migrate type, SLAB by the page's flags."""
    return (CMA if b"CMA" in line else 0) | (SLAB if b"slab" in line else 0)


def _first(pattern: re.Pattern[bytes], text: bytes) -> bytes:
    match = pattern.search(text)
    return match.group(1) if match else b""


def _pages(order: bytes) -> int:
    if not order or len(order) > 24 or int(order) > 64:
        return 0
    return 1 << int(order)


def _int32(digits: bytes) -> int:
    # strtol(3) into a pid_t
    if not digits or len(digits) > 24 or int(digits) >= 1 << 63:
        return -1
    return ((int(digits) + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _module(text: bytes) -> bytes:
    # of the innermost frame that is in one
    return _first(_MODULE, text) or b"vmlinux"


def _vmalloc(text: bytes) -> int:
    # vmalloc() called alloc_pages*(): the frame before __vmalloc_node_range() says so
    call = text.find(b"__vmalloc_node_range")
    if call < 0:
        return 0
    line = text.rfind(b"\n", 0, call)
    before = text.rfind(b"\n", 0, max(line, 0)) + 1
    return VMALLOC if text.find(b"alloc_pages", before, call) >= 0 else 0
