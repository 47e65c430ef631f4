"""The sorted text, in the words of the kernel's tool of 6.12; written whole or not at all."""

from __future__ import annotations

from pageowner.errors import PageownerError
from pageowner.formats.whole_file import output
from pageowner.sorting.blocks import CMA, OTHERS, SLAB, VMALLOC

__all__ = ["write"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from pageowner.sorting.groups import Group
    from pageowner.sorting.options import Options

_NAMES = ((CMA, b"CMA "), (SLAB, b"SLAB "), (VMALLOC, b"VMALLOC "), (OTHERS, b"OTHERS "))
_ALLOCATORS = {
    bits: b"allocated by " + b"".join(name for bit, name in _NAMES if bits & bit)
    for bits in range(2, 2 * OTHERS, 2)
}


def write(groups: Iterable[Group], options: Options) -> int:
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


def _write(groups: Iterable[Group], options: Options, file: BinaryIO) -> int:
    parts_of = _culled if options.cull else _whole
    parts: list[bytes] = []
    count = 0
    for group in groups:
        parts += parts_of(group, options)
        count += 1
        if len(parts) > 1000:
            file.write(b"".join(parts))
            parts.clear()
    file.write(b"".join(parts))
    file.flush()
    return count


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
