"""Bytes that a task chose for its name, as text that Arrow and JSON can hold, and back.

A name is up to 15 arbitrary bytes (include/linux/sched.h, TASK_COMM_LEN). UTF-8 stays as it is;
any other byte becomes ``\\xNN``, and so does a backslash that would otherwise read as such an
escape, which makes the mapping one to one.
"""

from __future__ import annotations

import re

__all__ = ["to_bytes", "to_text"]

_LOOKS_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def to_text(raw: bytes) -> str:
    """The name as text; `to_bytes` gives back the same bytes."""
    if b"\\" in raw:
        raw = _LOOKS_ESCAPED.sub(rb"\\x5c", raw)
    return raw.decode("utf-8", "backslashreplace")


def to_bytes(text: str) -> bytes:
    """The inverse of `to_text`."""
    raw = text.encode("utf-8", "surrogatepass")
    if b"\\x" in raw:
        raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), raw)
    return raw
