"""How numbers and hostile names are written in every report."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from pageowner.model.source_kinds import kind_of

if TYPE_CHECKING:
    from pageowner.model.metadata import Metadata

__all__ = ["UNKNOWN", "age", "count", "count_of", "cut", "printable", "size", "source_name",
           "titled"]

UNKNOWN = "-"
"""In a table, what is not known."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DAY = 86400
# Letters and symbols that look like nothing: Hangul fillers, the empty Braille pattern.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_HASH = 6  # bytes, at the end of a text that is cut


def printable(text: str) -> str:
    """The text with every character that a terminal could act on, or hide, made visible.

    Control characters, line breaks, bidirectional overrides, unassigned code points, blank
    letters, and marks with nothing before them to combine with become ``\\xNN`` or ``\\uNNNN``.
    """
    if text.isascii() and text.isprintable():
        return text
    # isprintable() is false for the categories Other and Separator, but for the space
    shown = "".join(c if c.isprintable() and c not in _BLANK else _escape(c) for c in text)
    return _escape(shown[0]) + shown[1:] if unicodedata.category(shown[0])[0] == "M" else shown


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 1 << 8 else (
        f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}")


def cut(text: str, longest: int, whole: str | None = None) -> str:
    """The text with at most ``longest`` characters. One that is cut ends with a hash of ``whole``,
    by default the text: others that begin like it stay others."""
    if len(text) <= longest:
        return text
    end = "…" + blake2b((text if whole is None else whole).encode("utf-8", "surrogatepass"),
                        digest_size=_HASH).hexdigest()
    return text[:longest - len(end)] + end


@lru_cache(1 << 12)
def size(size_bytes: float) -> str:
    """Bytes with three or four digits and a binary unit: ``4 KiB``, ``1.5 GiB``."""
    value, unit = float(size_bytes), 0
    while abs(value) >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 100 or value == int(value) else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def count(number: int) -> str:
    """A whole number with commas."""
    return f"{number:,}"


def count_of(number: int, noun: str) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def age(duration_ns: float) -> str:
    """A length of time, two units at most: ``3.2 s``, ``5 min``, ``2 h 10 min``, ``3 d 4 h``."""
    seconds = duration_ns / 1e9
    if seconds < 0.001:
        return f"{duration_ns / 1e3:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if seconds < _DAY:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{int(seconds // _DAY)} d {int(seconds % _DAY // 3600)} h"


def source_name(source: str | None, meta: Metadata) -> str:
    """What tells a source from another one: the file as it was named, the machine where it was
    none, and the kernel and the moment as far as they are known."""
    here = meta.host or "this machine"
    facts = [meta.host if source and kind_of(meta).live else None,
             f"kernel {meta.kernel}" if meta.kernel else None, meta.taken_at]
    known = ", ".join(fact for fact in facts if fact)
    return printable(f"{source or here} ({known})" if known else source or here)


def titled(meta: Metadata) -> str:
    """What was read, and what that is: the live state, a dump, or a capture with its moment."""
    if kind_of(meta).live and meta.source:
        return source_name(meta.source, meta)
    what = kind_of(meta).title
    kernel = f", kernel {meta.kernel}" if meta.kernel else ""
    named = meta.source if not kind_of(meta).live else (meta.host or "this machine")
    return printable(f"{named} ({what}{kernel})")
