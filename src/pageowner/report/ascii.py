"""Output where a terminal or a locale has ASCII alone: signs become the nearest ASCII ones."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ERRORS", "SIGNS", "ascii_only", "is_ascii", "prepare", "wants_ascii"]

SIGNS = {"←": "<", "→": ">", "…": "~", "µ": "u", "×": "x", "▁": "_", "▂": "_", "▃": ".", "▄": "-",
         "▅": "=", "▆": "=", "▇": "+", "█": "#", "▓": "%", "▒": ":", "░": ".", "▀": "^"}
"""What our own views draw, each as one character of ASCII, so that columns stay where they are."""

ERRORS = "pageowner.plain"
"""The name of the error handler that `prepare` gives to streams."""

_TABLE = str.maketrans(SIGNS)


def ascii_only(text: str) -> str:
    """The text in ASCII, character for character; what has no sign of its own becomes ``?``."""
    if text.isascii():
        return text
    return text.translate(_TABLE).encode("ascii", "replace").decode()


def is_ascii(file: TextIO | None) -> bool:
    """Whether what is written here can be ASCII alone."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name == "ascii"


def wants_ascii(environment: Mapping[str, str]) -> bool:
    """Whether the locale was chosen to be C. Left out altogether it says nothing: then terminals
    are taken to be UTF-8, as Python does.

    Python itself sets LC_CTYPE to C.UTF-8 where LANG is C (PEP 538), which so counts as C.
    """
    chosen = environment.get("LC_ALL")
    if not chosen:
        kind = environment.get("LC_CTYPE")
        chosen = environment.get("LANG") if kind in (None, "", "C.UTF-8") else kind
    return chosen in ("C", "POSIX")


def prepare(file: object) -> None:
    """Let a stream write any text: as signs of ASCII where its encoding has no others, and on a
    terminal also where the locale is C."""
    import io

    if not isinstance(file, io.TextIOWrapper):
        return
    codecs.register_error(ERRORS, _replace)
    if file.isatty() and wants_ascii(os.environ):
        file.reconfigure(encoding="ascii", errors=ERRORS)
    else:
        file.reconfigure(errors=ERRORS)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    rest = error.object[error.start:error.end]
    if rest[0] in SIGNS:
        return SIGNS[rest[0]], error.start + 1
    return codecs.backslashreplace_errors(
        UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1,
                           error.reason))
