"""A dump in chunks: from a file, a part of one, a pipe, or through a decompressor.

A chunk ends just before the empty line of its last block. A file of known size is read in parts
by several processes where that pays; everything else is read in order as it comes.
"""

from __future__ import annotations

import os
import re
import stat

from pageowner.errors import PageownerError
from pageowner.page_owner_sort import parts
from pageowner.page_owner_sort.counting import Tally
from pageowner.page_owner_sort.parts import last_record

__all__ = ["count"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pageowner.page_owner_sort.options import Options

    Read = Callable[[int], bytes]

_SORTED = re.compile(rb"\s*[0-9]+ times(?:, [0-9]+ pages|:\s?Page allocated via order )")
"""As `pageowner.sources.page_owner_sorted` recognises it."""

_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"


def count(options: Options) -> Tally:
    """Read the whole of ``options.source``. Raises PageownerError where that fails."""
    source = options.source
    name = "standard input" if source == "-" else source
    try:
        fd = 0 if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PageownerError(f"cannot open {source}: {error.strerror}") from error
    try:
        return _count(options, fd, name)
    except OSError as error:
        # gzip's own errors have no strerror
        raise PageownerError(f"cannot read {name}: {error.strerror or error}") from error
    finally:
        if fd:
            os.close(fd)


def _count(options: Options, fd: int, name: str) -> Tally:
    status = os.fstat(fd)
    # /sys/kernel/debug/page_owner is a regular file, of size 0
    regular = stat.S_ISREG(status.st_mode)
    start = _by_record(fd) if regular and not status.st_size else _start(fd)
    in_parts = regular and status.st_size > 0 and os.lseek(fd, 0, 1) == 0
    head = os.pread(fd, 1 << 16, 0) if in_parts else _read_up_to(start, 1 << 16)
    if head.startswith(b"PAR1"):
        raise PageownerError(f"{name} is a saved snapshot, and this sorts dumps; make one of it:"
                             f" pageowner dump {name}")
    if _SORTED.match(head):
        raise PageownerError(f"{name} (page_owner_sort output) has groups of allocations with"
                             " counts; sort the dump that it was made of")
    compressed = head.startswith((_GZIP, _XZ, _ZSTD))
    crlf = b"\r\n\r\n" in head and b"\n\n" not in head
    if in_parts and not compressed and not crlf:
        from pageowner.page_owner_sort import workers

        return workers.count(options, fd, status.st_size)
    tally = Tally(options)
    read = start if in_parts else _after(head, start)
    if compressed:
        read = _decompressed(read, head, name)
        crlf = False
    _add_stream(tally, _without_cr(read) if crlf else read)
    return tally


def _add_stream(tally: Tally, read: Read) -> None:
    rest = b""
    while True:
        # twice what did not hold one whole block, so that a long one is not searched for ever
        wanted = max(parts.CHUNK, len(rest))
        more = _read_up_to(read, wanted)
        data = rest + more
        if len(more) < wanted:
            tally.add_end(data)
            return
        cut = last_record(data)
        if cut >= 0:
            tally.add(data[:cut])
            rest = data[cut + 2 :]
        else:
            rest = data


def _start(fd: int) -> Read:
    def read(size: int) -> bytes:
        return os.read(fd, size)

    return read


def _by_record(fd: int) -> Read:
    """Asks for no less than a record takes: the kernel's page owner then fails with ENOMEM
    (print_page_owner, mm/page_owner.c)."""
    held = b""

    def read(size: int) -> bytes:
        nonlocal held
        held = held or os.read(fd, max(size, 1 << 16))
        piece, held = held[:size], held[size:]
        return piece

    return read


def _after(head: bytes, read: Read) -> Read:
    """Reads what was read already, then the rest."""
    waiting = [head]

    def read_on(size: int) -> bytes:
        if waiting:
            first = waiting.pop()
            if len(first) > size:
                waiting.append(first[size:])
            return first[:size]
        return read(size)

    return read_on


def _read_up_to(read: Read, size: int) -> bytes:
    pieces = []
    while size > 0:
        data = read(size)
        if not data:
            break
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)


def _without_cr(read: Read) -> Read:
    kept = b""

    def translate(size: int) -> bytes:
        nonlocal kept
        while True:
            data = read(size)
            text = kept + data
            kept = b"\r" if data and text.endswith(b"\r") else b""
            text = text[: len(text) - len(kept)].replace(b"\r\n", b"\n")
            if text or not data:
                return text

    return translate


def _decompressed(read: Read, head: bytes, name: str) -> Read:
    """The text in a compressed stream; members or frames may follow each other."""
    import zlib

    failures: tuple[type[Exception], ...]
    if head.startswith(_XZ):
        import lzma

        failures = (lzma.LZMAError,)
        make: Callable[[], Any] = lzma.LZMADecompressor
    elif head.startswith(_GZIP):
        failures = (zlib.error,)
        make = lambda: zlib.decompressobj(wbits=31)  # noqa: E731
    else:
        try:
            import zstandard
        except ImportError as error:
            raise PageownerError(
                f"{name} is compressed with zstd: pip install zstandard, or unpack it first"
            ) from error
        failures = (zstandard.ZstdError,)
        make = lambda: zstandard.ZstdDecompressor().decompressobj()  # noqa: E731
    machine = make()
    fed = False
    ahead = b""

    def text(_size: int) -> bytes:
        nonlocal machine, fed, ahead
        while True:
            data, ahead = ahead or read(parts.CHUNK // 4), b""
            if not data:
                if fed and not machine.eof:
                    raise PageownerError(f"{name} is cut off: the compressed data has no end")
                return b""
            if machine.eof:
                # zeros may pad the end of a file
                data = data.lstrip(b"\0")
                if not data:
                    continue
                machine = make()
            try:
                out: bytes = machine.decompress(data)
            except failures as error:
                raise PageownerError(f"{name} is damaged: {error}") from error
            fed = True
            if machine.eof:
                ahead = machine.unused_data
            if out:
                return out

    return text
