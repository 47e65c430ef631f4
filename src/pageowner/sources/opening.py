"""Open a source as a stream of bytes, whatever it is packed in: file, pipe, ``-``, .gz .xz .zst.

What a file is packed in is told by its first bytes, not by its name. Standard library only, but
for .zst; nothing here knows what the bytes mean.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar, cast

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pageowner.sources.whole_records import QuickText

__all__ = ["Opened", "Pieces", "Shares", "after", "ahead", "by_record", "from_file", "open_source",
           "pieces", "reading"]

_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

T = TypeVar("T")

_HEAD = 64
_RECORDS = 1 << 16


class Shares(NamedTuple):
    """Parts of a plain file of ``size`` bytes, which processes can read side by side. ``cut`` gives
    the first place of a text where a part may begin, a negative number if there is none; ``part``
    what stands between two bytes of the file; ``listed`` the stacks that were listed by handle
    there, once it is read."""

    file: int
    size: int
    cut: Callable[[bytes], int]
    part: Callable[[int, int], Opened]
    listed: Callable[[], dict[bytes, bytes]]


@dataclass
class Opened:
    """An open source: ``stream`` gives the unpacked bytes from the start.

    ``size`` is that of a plain regular file, which can be read by byte ranges; None for pipes,
    packed files and files of the kernel, which have none. ``head`` is the first bytes unpacked.
    ``file`` is what the bytes come from, unless that is ``stream``. ``quick`` gives the same as the
    stream, but not as text; ``shares`` gives parts of it. At the end of a ``with`` block
    both are closed; standard input stays open.
    """

    name: str
    stream: BinaryIO
    size: int | None
    head: bytes
    file: BinaryIO | io.BufferedReader | io.FileIO | None = None
    undone: list[str] = field(default_factory=list)
    page_size: int | None = None
    quick: QuickText | None = None
    shares: Shares | None = None

    def close(self) -> None:
        """Close the stream and the file."""
        self.stream.close()
        if self.file is not None:
            self.file.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Ctrl-C: a thread may wait in the stream for a pipe, and whoever closes it for the thread
        if kind is None or issubclass(kind, Exception):
            self.close()


def open_source(source: str | os.PathLike[str]) -> Opened:
    """Open a path, or standard input for ``-``.

    Raises PageownerError, naming the file, if it cannot be read or unpacked.
    """
    name = os.fsdecode(source)
    raw: io.FileIO
    if name == "-" and sys.stdin is None:
        raise PageownerError("standard input is closed; name a file")
    try:
        if name != "-" and os.path.isdir(name):
            raise IsADirectoryError  # which FileIO says too, and leaves the folder open
        raw = io.FileIO(sys.stdin.fileno() if name == "-" else name, closefd=name != "-")
        mode = os.fstat(raw.fileno())
    except IsADirectoryError as error:
        raise PageownerError(f"{name}: is a directory, not a dump or a saved snapshot") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PageownerError(f"{name}: cannot read: {reason}") from error
    try:
        return _looked_at(raw, name, mode)
    except Exception:
        raw.close()
        raise


def from_file(file: io.FileIO, name: str) -> Opened:
    """An open file, for who opens it in a way of its own; it is closed with what is returned, or if
    it cannot be read, which raises PageownerError."""
    try:
        return _looked_at(file, name, os.fstat(file.fileno()))
    except Exception:
        file.close()
        raise


def _looked_at(raw: io.FileIO, name: str, mode: os.stat_result) -> Opened:
    """An open file, by what its first bytes say that it is packed in."""
    label = "standard input" if name == "-" else name
    regular = stat.S_ISREG(mode.st_mode)
    with reading(label):
        whole = raw if regular and mode.st_size else by_record(raw) if regular else _begun(raw)
        buffered = io.BufferedReader(whole, 1 << 16)
        packed = buffered.peek(_HEAD)[:_HEAD]
    for magic, kind in _MAGIC.items():
        if packed.startswith(magic):
            unpacked = io.BufferedReader(cast(io.RawIOBase, _unpack(kind, buffered)), 1 << 16)
            with reading(label):
                head = unpacked.peek(_HEAD)[:_HEAD]
            # Held here, since what unpacks lets go of it unclosed.
            return Opened(label, unpacked, None, head, buffered)
    size = mode.st_size if regular and mode.st_size and name != "-" else None
    return Opened(label, buffered, size, packed, raw)


class Pieces(io.RawIOBase):
    """A stream of what ``more`` gives, called with the number of bytes that are wanted: any number
    of bytes, none at the end. ``file`` is what they come from; it is closed with the stream."""

    def __init__(self, more: Callable[[int], bytes], file: io.FileIO | None = None) -> None:
        self._more, self._file = more, file
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return super().fileno() if self._file is None else self._file.fileno()

    def close(self) -> None:
        super().close()
        if self._file is not None:
            self._file.close()

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = memoryview(self._more(len(buffer)))
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def after(first: bytes, rest: BinaryIO | io.FileIO) -> Callable[[int], bytes]:
    """For `Pieces`: bytes that were read already, and then ``rest``."""
    begin = [first]
    return lambda wanted: begin.pop() if begin else rest.read(wanted) or b""


def by_record(file: io.FileIO) -> Pieces:
    """A file of the kernel, which has no size: each read has room for a whole record.

    Page owner fails with ENOMEM where a read asks for less than the next record takes
    (print_page_owner, mm/page_owner.c), and a buffered reader asks for what its buffer still holds.
    """
    return Pieces(lambda _: file.read(_RECORDS) or b"", file)


def _begun(raw: io.FileIO) -> Pieces:
    """A pipe may give its first bytes one by one: wait for enough to see what it holds."""
    first = b""
    while len(first) < _HEAD and (piece := raw.read(_HEAD - len(first))):
        first += piece
    return Pieces(after(first, raw), raw)


def _unpack(kind: str, stream: BinaryIO) -> BinaryIO:
    if kind == "gzip":
        import gzip

        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if kind == "xz":
        import lzma

        return cast(BinaryIO, lzma.LZMAFile(stream))
    try:
        import zstandard
    except ImportError as error:
        raise PageownerError(
            "the file is compressed with zstd: pip install zstandard, or decompress it: zstd -d"
        ) from error
    return cast(BinaryIO, _Zstd(zstandard.ZstdDecompressor(), stream))


class _Zstd(io.RawIOBase):
    """Unpacks frame after frame. Raises EOFError if the last is cut short, which zstandard's own
    stream_reader takes for the end."""

    # Input this short unpacks to megabytes at most, whatever it says.
    _STEP = 1 << 10

    def __init__(self, decompressor: Any, stream: BinaryIO) -> None:
        self._decompressor = decompressor
        self._stream = stream
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            packed = self._packed or self._stream.read(self._STEP)
            self._packed = b""
            if not packed:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(packed))
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


class reading:
    """Turns what goes wrong while bytes are read and unpacked into one clear line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: object) -> None:
        if error is None or isinstance(error, PageownerError):
            return
        if isinstance(error, OSError) and error.errno is not None:
            raise PageownerError(f"{self.name}: cannot read: {error.strerror}") from error
        if isinstance(error, (EOFError, OSError)) or type(error).__name__ in _UNPACK_ERRORS:
            raise PageownerError(
                f"{self.name}: the compressed file is damaged or truncated: {error}"
            ) from error


_UNPACK_ERRORS = {"LZMAError", "ZstdError", "BadGzipFile", "error"}


def pieces(stream: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    """The stream in pieces of ``size`` bytes, read ahead by a thread."""
    return ahead(lambda: stream.read(size), name)


def ahead(more: Callable[[], T | None], name: str) -> Iterator[T]:
    """What ``more`` gives of the source of this name, up to what is false, by a thread.

    Unpacking, system calls and Arrow's functions give up Python's lock, so that the next piece is
    made while the caller works on this one.
    """
    import queue
    import threading

    ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=3)
    stop = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            while True:
                piece = more()
                if not put(piece) or not piece:
                    return
        except BaseException as error:
            put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                with reading(name):
                    raise item
            if not item:
                return
            yield item
    finally:
        stop.set()
