"""Lines of /proc/allocinfo, one by one: `pageowner.sources.allocinfo` says what they are."""

from __future__ import annotations

import re
from typing import NamedTuple

from pageowner.kernel.limits import PFN_BITS
from pageowner.kernel.task_names import to_text
from pageowner.sources.damage import SHOWN_DAMAGE, Damage
from pageowner.sources.group_columns import Groups, Line
from pageowner.sources.page_owner_body import Body

__all__ = ["NO_LINE", "Lines", "Share", "is_of_allocinfo", "parse_place"]

_VERSION = re.compile(rb"allocinfo - version: (\d{1,9}(?:\.\d{1,9})?)\s*\Z")
_PLACE = rb"([^\s:]+:\d{1,9})(?: (\[[^\]\s]+\]))? func:(\S+)( accurate:no)?\s*\Z"
_PLACE_ALONE = re.compile(_PLACE)
_LINE = re.compile(rb"\s*(-?\d{1,20})(\.\d{1,3})?([KMGTPE]?)i?\s+(\d{1,20})\s+" + _PLACE)
_NOTHING = b"           0        0 "
_HEADING = b"#     <size>  <calls> <tag info>"
_UNITS = {b"": 0, b"K": 10, b"M": 20, b"G": 30, b"T": 40, b"P": 50, b"E": 60}
_KNOWN = (b"1.0", b"2.0")
NO_LINE = Line()
"""What no line tells: the order and the task."""


class Share(NamedTuple):
    """The lines of a part of a text for another process: columns, and what `Lines` says; whether
    they are of one list."""

    body: bytes
    blocks: bytes
    pages: bytes
    bodies: list[Body]
    version: str | None
    is_one: bool
    whole: int
    inaccurate: int
    rounded: int
    total: int
    damaged: int
    damage: list[Damage]


class Lines(Groups):
    """The lines of a text that hold something; ``whole``: those that could be read."""

    def __init__(self) -> None:
        super().__init__()
        self.version: str | None = None
        self.whole = self.inaccurate = self.rounded = 0
        self.total = 0  # of the sizes
        self.second: int | None = None
        """The byte where another list begins, which is not read."""
        self._whole_before = 0

    def share(self) -> Share:
        """All lines, for `add_share` of others."""
        import numpy as np

        body = np.frombuffer(self.body, np.int64)
        return Share(body.astype(np.int32).tobytes(), self.blocks.tobytes(), self.pages.tobytes(),
                     self.bodies, self.version, self.second is None, self.whole, self.inaccurate,
                     self.rounded, self.total, self.damaged, self.damage)

    def add_share(self, share: Share) -> bool:
        """Add the lines of the next part of a text; false if they have to be read again behind
        those in front."""
        import numpy as np

        if not share.is_one or (self.whole and share.version) or (
                self.total + share.total >> PFN_BITS):
            return False
        body = np.frombuffer(share.body, np.int32).astype(np.int64) + len(self.bodies)
        self.put_all(NO_LINE, body, np.frombuffer(share.blocks, np.int64),
                     np.frombuffer(share.pages, np.int64))
        self.bodies += share.bodies
        self.version = share.version or self.version
        self.whole += share.whole
        self.inaccurate += share.inaccurate
        self.rounded += share.rounded
        self.total += share.total
        self.damaged += share.damaged
        self.damage = (self.damage + share.damage)[:SHOWN_DAMAGE]
        return True

    def take(self, text: bytes, offset: int) -> None:
        """Lines of the text that begin at this byte of it, one by one."""
        for line in text.split(b"\n"):
            if (line.startswith(_NOTHING) and len(words := line.split()) == 4
                    and words[3].startswith(b"func:") and b":" in words[2]):
                self.whole += 1
            elif line.strip():
                self._take(line, offset)
                if self.second is not None:
                    return
            offset += len(line) + 1

    def _take(self, line: bytes, offset: int) -> None:
        found = _LINE.match(line)
        if found is None:
            if version := _VERSION.match(line):
                if self.version is not None and self.whole > self._whole_before:
                    self.second = offset
                    return
                self._whole_before = self.whole  # of a sorted list it is not the first line
                self.version = version[1].decode()
                if version[1] not in _KNOWN:
                    self.lost(offset, f"version {self.version} of the format, which is not known")
            elif line.strip() != _HEADING.strip():
                self.lost(offset, "a line that /proc/allocinfo does not have")
            return
        number, fraction, unit, calls, place, module, function, inaccurate = found.groups()
        size = (int(number) << _UNITS[unit]) + int(
            float(fraction or 0) * (1 << _UNITS[unit]))
        if size < 0 or int(calls) >> PFN_BITS or self.total + size >> PFN_BITS:
            self.lost(offset, "a size or a number of calls that cannot be")
            return
        self.whole += 1
        self.inaccurate += inaccurate is not None
        self.rounded += bool(unit or fraction)
        self.total += size
        if size or int(calls):
            self.put(NO_LINE, len(self.bodies), int(calls), size, -1, 0)
            self.bodies.append(_body(place, module, function, inaccurate))


def _body(place: bytes, module: bytes | None, function: bytes, inaccurate: bytes | None) -> Body:
    behind = b" " + module if module else b""
    return Body(to_text(place + behind + b"\n" + function + behind),
                notes=None if inaccurate is None else "accurate:no")


def parse_place(text: bytes) -> Body | None:
    """What stands behind the numbers of a line, and a blank; None if it is not one."""
    found = _PLACE_ALONE.match(text)
    return None if found is None else _body(*found.groups())


def is_of_allocinfo(line: bytes) -> bool:
    """Whether this is a line of /proc/allocinfo, or the first one."""
    return (b" func:" in line and _LINE.match(line) is not None) or (
        line.startswith(b"allocinfo - ") and _VERSION.match(line) is not None) or (
        line.strip() == _HEADING.strip())
