"""The text of /proc/kallsyms: read in one place, and searched for a few symbols by name.

Names of addresses are in `kallsyms`, those of a few, without NumPy, in `few_symbols`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HIDDEN", "KALLSYMS", "Line", "Lines", "read"]

KALLSYMS = "/proc/kallsyms"

# kallsyms_show_value(), kernel/ksyms_common.c of 6.12
HIDDEN = ("all addresses are hidden; run as root with CAP_SYSLOG (containers seldom have it), and"
          " if that is not enough: sysctl kernel.kptr_restrict=1")
"""What to say where the kernel shows zeros for addresses."""


def read(path: str | os.PathLike[str] = KALLSYMS) -> bytes:
    """The whole text. Raises PageownerError if the file cannot be read."""
    parts = []
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(file, 1 << 16):
                parts.append(part)
        finally:
            os.close(file)
    except OSError as error:
        raise PageownerError(f"cannot read symbols from {path}: {error.strerror}") from error
    return b"".join(parts)


class Line(NamedTuple):
    """A line of /proc/kallsyms: the symbol's address, type letter and name, the address in the next
    line (0 if that was the last), and the byte behind the name in the file."""

    address: int
    kind: str
    name: str
    following: int
    stop: int


class Lines:
    """The text of /proc/kallsyms for those who look for a few symbols, and not for addresses: it is
    read once and searched, not taken apart."""

    def __init__(self, text: bytes, origin: str = KALLSYMS) -> None:
        self._text, self.origin = text, origin

    @classmethod
    def read(cls, path: str | os.PathLike[str] = KALLSYMS) -> Lines:
        """Raises PageownerError if the file cannot be read."""
        return cls(read(path), str(path))

    def starting(self, *prefixes: str) -> Iterator[Line]:
        """The symbols whose names begin with one of these, in the order of the file."""
        text = self._text
        # A space stands before each name; none is in it, and a tab before its module.
        names = re.compile(b" (?:%s)[^\n\t]*" % b"|".join(
            re.escape(prefix).encode() for prefix in prefixes))
        for found in names.finditer(text):
            begin, at = text.rfind(b"\n", 0, found.start()) + 1, found.start()
            yield Line(int(text[begin:text.index(b" ", begin)], 16), text[at - 1:at].decode(),
                       found[0][1:].decode("ascii", "backslashreplace"),
                       self._address_after(found.end()), found.end())

    def named(self, *names: str) -> dict[str, Line]:
        """Those of these symbols that there are; of several with one name, the last."""
        wanted = set(names)
        return {line.name: line for line in self.starting(*names) if line.name in wanted}

    def end_of(self, line: Line) -> int:
        """Where a function of the kernel itself ends: where the next one begins; 0 if there is
        none. The kernel's own symbols stand in the order of their addresses (scripts/kallsyms.c,
        compare_symbols)."""
        for found in re.compile(rb"\n([0-9a-f]+) [tT] ").finditer(self._text, line.stop):
            if (address := int(found[1], 16)) > line.address:
                return address
        return 0

    def _address_after(self, at: int) -> int:
        begin = self._text.find(b"\n", at) + 1
        end = self._text.find(b" ", begin)
        return int(self._text[begin:end], 16) if 0 < begin < end else 0
