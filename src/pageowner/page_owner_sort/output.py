"""The sorted text, in the words of the kernel's tool of 6.12; written whole or not at all."""

from __future__ import annotations

from pageowner.errors import PageownerError
from pageowner.page_owner_sort.blocks import CMA, OTHERS, PREFIX, SLAB, VMALLOC
from pageowner.page_owner_sort.groups import Singles, allocator_of
from pageowner.storage.whole_file import output

__all__ = ["write"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from pageowner.page_owner_sort.blocks import Fields
    from pageowner.page_owner_sort.groups import Group
    from pageowner.page_owner_sort.options import Options

_NAMES = ((CMA, b"CMA "), (SLAB, b"SLAB "), (VMALLOC, b"VMALLOC "), (OTHERS, b"OTHERS "))
_ALLOCATORS = {
    bits: b"allocated by " + b"".join(name for bit, name in _NAMES if bits & bit)
    for bits in range(2, 2 * OTHERS, 2)
}


def write(groups: Iterable[Group | Singles], options: Options) -> int:
    """Write the groups to ``options.output``; returns how many there were.

    A regular file is replaced when all is written, with its mode kept; anything else (-, a pipe, a
    terminal, /dev/stdout) is written as it is. Raises PageownerError if that fails, BrokenPipeError
    if the reader has gone.
    """
    path = options.output
    try:
        if path == "-":
            with open(1, "wb", closefd=False) as file:
                return _write(groups, options, file)
        with output(path, keeps_mode=True) as file:
            return _write(groups, options, file)
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard output" if path == "-" else path
        raise PageownerError(f"cannot write {name}: {error.strerror}") from error


def _write(groups: Iterable[Group | Singles], options: Options, file: BinaryIO) -> int:
    parts_of = _culled if options.cull else _whole
    parts: list[bytes] = []
    count = 0
    around = _Around()
    for group in groups:
        if isinstance(group, Singles):
            parts += _singles(group, around)
            count += len(group.times)
        else:
            parts += parts_of(group, options)
            count += 1
        if len(parts) > 1000:
            file.write(b"".join(parts))
            parts.clear()
    file.write(b"".join(parts))
    file.flush()
    return count


class _Around(dict[tuple[int, int], tuple[bytes, bytes]]):
    """By kind and bits: the text of a single block before its time, and behind its times.

    ``whole`` are the kinds of another format, whose text has the time in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[Fields] = []
        self.whole: set[int] = set()

    def __missing__(self, kind: tuple[int, int]) -> tuple[bytes, bytes]:
        fields = self.fields[kind[0]]
        title = b"1 times, %d pages, %b:\n" % (
            fields.pages, _ALLOCATORS[allocator_of(fields, kind[1])])
        if fields.head is None:
            self.whole.add(kind[0])
            around = title + fields.text, b"\n"
        else:
            around = b"%b%b%b " % (title, PREFIX, fields.head), b" ns\n%b\n" % fields.stack
        self[kind] = around
        return around


def _singles(blocks: Singles, around: _Around) -> list[bytes]:
    around.fields = blocks.fields
    parts = [b""] * (3 * len(blocks.times))
    parts[::3], parts[2::3] = zip(*map(around.__getitem__, blocks.kinds), strict=True)
    # one call for all the numbers
    parts[1::3] = repr(blocks.times)[1:-1].encode().split(b", ")
    if blocks.frees:
        for place, free in enumerate(blocks.frees):
            if free >= 0:
                parts[3 * place + 1] += b" ns, free_ts %d" % free
    if around.whole:
        for place, (kind, _) in enumerate(blocks.kinds):
            if kind in around.whole:
                parts[3 * place + 1] = b""
    return parts


def _whole(group: Group, options: Options) -> list[bytes]:
    return [
        b"%d times, %d pages, " % (group.times, group.pages),
        _ALLOCATORS[group.allocator],
        b":\n",
        *group.parts(time=options.keeps_time),
        b"\n",
    ]


def _culled(group: Group, options: Options) -> list[bytes]:
    cull, fields = options.cull, group.fields
    parts = [b"%d times, %d pages" % (group.times, group.pages)]
    if "pid" in cull or options.pids is not None:
        parts.append(b", PID %d" % fields.pid)
    if "tgid" in cull or options.tgids is not None:
        parts.append(b", TGID %d" % fields.tgid)
    if "name" in cull or options.names is not None:
        parts.append(b", task_comm_name: " + fields.comm)
    if "module" in cull or options.modules is not None:
        parts.append(b", module: " + fields.module)
    if "free" in cull:
        parts.append(b" (RELEASED)" if group.released else b" (UNRELEASED)")
    if "allocator" in cull:
        parts.append(b", " + _ALLOCATORS[group.allocator])
    if "stacktrace" in cull:
        parts.append(b":\n" + fields.stack)
    parts.append(b"\n")
    return parts
