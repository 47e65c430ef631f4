"""Lines of /proc/allocinfo as they were before a mail quoted, wrapped or encoded them.

A line of a module is often longer than mail allows: what is behind its place, ``[ice] func:name``,
is then a line of its own. No line of /proc/allocinfo begins with a mark of a quotation, or ends
with ``=``.
"""

from __future__ import annotations

import re
from quopri import decodestring

__all__ = ["HEAD", "restored"]

HEAD = 1 << 16
"""Bytes at the beginning from which is told what was done."""

_NUMBERS = rb"[ \t]*-?\d[\d.KMGTPEi]*[ \t]+\d+[ \t]+"
_ENCODED = re.compile(rb"^(?:[>|] ?)*" + _NUMBERS + rb"[^\n]*=\r?$", re.MULTILINE)
_MARKS = re.compile(rb"^(?:[>|] ?)+", re.MULTILINE)
_QUOTED = re.compile(rb"^(?:[>|] ?)+" + _NUMBERS + rb"[^\s:]+:\d+", re.MULTILINE)
_NOT_QUOTED = re.compile(rb"^" + _NUMBERS + rb"[^\s:]+:\d+", re.MULTILINE)
_WRAPPED = re.compile(rb"^(" + _NUMBERS + rb"[^\s:]+:\d+(?: \[[^\]\s]+\])?)[ \t]*\r?\n"
                      rb"[ \t]*((?:\[[^\]\s]+\][ \t]+)?func:\S)", re.MULTILINE)


def restored(text: bytes) -> tuple[bytes, list[str]]:
    """The text without what was done to it, and what that is.

    Of a mail that quotes a list and has another one, both are of different times: only the longer
    one is given back as it was, and the other is left as it is.
    """
    undone = []
    if _ENCODED.search(text, 0, HEAD):
        text = decodestring(text)
        undone.append("encoded as quoted-printable")
    head = text[:HEAD]
    if len(_QUOTED.findall(head)) > len(_NOT_QUOTED.findall(head)):
        text = _MARKS.sub(b"", text)
        undone.append("marks of a quotation in front of lines")
    if _WRAPPED.search(text, 0, HEAD):
        text = _WRAPPED.sub(rb"\1 \2", text)
        undone.append("lines wrapped")
    return text, undone
