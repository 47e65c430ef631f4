"""Whether a text is as the kernel printed it, which nearly every one is: told at little cost.

Of one that is not, alterations.py says what was done to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.sources.page_owner_grammar import parse_header, parse_pfn_line
from pageowner.sources.page_owner_parser import CUT, START

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LINE_ENDS", "has_header", "has_other_line_ends", "is_as_printed", "is_header",
           "is_pfn_line", "without_cr"]

LINE_ENDS = "other line ends"
"""What was done to a text whose lines end with a carriage return."""

# Longer than a name can hold: a line end with \\r in front of a record.
_CR_BETWEEN = b"\r\n" + START
_ENTITIES = (b"&lt;", b"&nbsp;", b"\n\xc2\xa0")
_FLAGS = re.compile(rb"Flags 0x[0-9a-f]+\([^()\s]*\)\s*\Z")


def without_cr(text: bytes) -> bytes:
    """``\\n`` for ``\\r\\n`` and ``\\r\\r\\n``."""
    while b"\r\r\n" in text:
        text = text.replace(b"\r\r\n", b"\r\n")
    return text.replace(b"\r\n", b"\n")


def has_other_line_ends(text: bytes) -> bool:
    """Whether lines of a part of a text end with ``\\r\\n``; a name that does is no line."""
    return b"\r\n" in text and _CR_BETWEEN in text


def is_header(line: bytes) -> bool:
    """Whether a line is the first of a record, without its `START`, and nothing else."""
    try:
        return parse_header(line)[-1] == len(line)
    except ValueError:
        return False


def has_header(record: bytes) -> bool:
    """Whether a record without its `START` begins with a first line, which goes on where a name has
    a line end in it."""
    return _is_parsed(parse_header, record)


def is_pfn_line(line: bytes) -> bool:
    """Whether a line is a whole PFN line."""
    if b"(" in line and not _FLAGS.search(line):
        return False
    return _is_parsed(parse_pfn_line, line)


def _is_parsed(parse: Callable[[bytes], object], text: bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def is_as_printed(head: bytes) -> bool:
    """Whether the beginning of a text, of some records, shows no alteration."""
    if not head.startswith(START) or b"\r" in head or head.count(START) != head.count(CUT) + 1:
        return False
    for record in head[len(START):].split(CUT):
        try:
            rest = record[parse_header(record)[-1]:]
        except ValueError:
            return False
        line, _, after = rest.partition(b"\n")
        if not is_pfn_line(line) if line.startswith(b"PFN") else not line.strip() and after:
            return False
    return not any(entity in head for entity in _ENTITIES)
