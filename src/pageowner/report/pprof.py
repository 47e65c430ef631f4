"""A profile that ``pprof`` reads: gzip of the message ``perftools.profiles.Profile``.

Written by hand, since it takes a varint and four kinds of messages; field numbers are those of
``proto/profile.proto`` in https://github.com/google/pprof.
"""

from __future__ import annotations

import gzip
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from pageowner.report.samples import shown
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pageowner.analysis.profile import Sample
    from pageowner.kernel.frames import Frame
    from pageowner.metadata import Metadata

__all__ = ["write"]

_KERNEL = "vmlinux"
_TYPES = (("pages", "count"), ("blocks", "count"), ("bytes", "bytes"))


_SMALL = [bytes([number]) for number in range(0x80)]


def _varint(number: int) -> bytes:
    if 0 <= number <= 0x7f:
        return _SMALL[number]
    number &= (1 << 64) - 1  # negative ones as their two's complement
    parts = bytearray()
    while number > 0x7f:
        parts.append(number & 0x7f | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _number(field: int, value: int) -> bytes:
    """A field of the wire's type 0; nothing for 0, which is what a reader takes it for."""
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    """A field of the wire's type 2: a message, text, or packed numbers."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _bytes(field, b"".join(map(_varint, values)))


class _Numbered(dict[str, int]):
    """Distinct texts and their places; "" is 0, as the format wants it."""

    def __init__(self) -> None:
        super().__init__({"": 0})

    def __missing__(self, text: str) -> int:
        self[text] = place = len(self)
        return place


def write(file: BinaryIO, samples: Iterable[Sample], meta: Metadata) -> None:
    """One location and function for each function of each module, a mapping for each module, and
    the values pages, blocks and bytes for each sample, its labels as pprof's."""
    text = _Numbered()
    body = bytearray()
    for kind, unit in _TYPES:
        body += _bytes(1, _number(1, text[kind]) + _number(2, text[unit]))
    mappings: dict[str, int] = {_KERNEL: 1}  # the first is taken for the program
    locations: dict[tuple[str, str], int] = {}
    places: dict[Frame, bytes] = {}
    said: dict[tuple[str, str | int | None], bytes] = {}
    for one in shown(samples):
        for frame in one.frames[::-1]:
            if frame not in places:
                where = frame.name, frame.module or _KERNEL
                mappings.setdefault(where[1], len(mappings) + 1)
                places[frame] = _varint(locations.setdefault(where, len(locations) + 1))
        for label in (*one.labels.items(), ("subsystem", one.subsystem)):
            if label not in said:
                said[label] = _label(text, *label)
        values = one.pages, one.blocks, one.pages * meta.page_size
        # innermost first
        body += _bytes(2, _bytes(1, b"".join([places[frame] for frame in one.frames[::-1]]))
                       + _packed(2, values)
                       + b"".join([said[label] for label in one.labels.items()])
                       + said["subsystem", one.subsystem])
    for name, place in mappings.items():
        # has_functions: they are named, and need no symbols looked up
        body += _bytes(3, _number(1, place) + _number(5, text[name]) + _number(7, 1))
    for (name, module), place in locations.items():
        body += _bytes(4, _number(1, place) + _number(2, mappings[module])
                       + _bytes(4, _number(1, place)))
        body += _bytes(5, _number(1, place) + _number(2, text[name]) + _number(3, text[name])
                       + _number(4, text[module]))
    body += _number(9, _time_ns(meta)) + _bytes(11, _number(1, text["pages"])
                                                + _number(2, text["count"])) + _number(12, 1)
    body += b"".join(_packed(13, [text[line]]) for line in _comments(meta))
    body += _number(14, text["bytes"])
    strings = b"".join(_bytes(6, one.encode(errors="replace")) for one in text)
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, compresslevel=6) as packed:
        packed.write(body + strings)


def _label(text: _Numbered, name: str, value: str | int | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int):
        return _bytes(3, _number(1, text[name]) + _number(3, value))
    return _bytes(3, _number(1, text[name]) + _number(2, text[value]))


def _comments(meta: Metadata) -> Sequence[str]:
    said = {"source": meta.source, "host": meta.host, "kernel": meta.kernel}
    return [f"{name}: {printable(value)}" for name, value in said.items() if value]


def _time_ns(meta: Metadata) -> int:
    try:
        return int(datetime.fromisoformat(meta.taken_at or "").timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0
