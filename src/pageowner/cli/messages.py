"""What is said beside the output, on stderr: one line each, broken between words on a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from pageowner.report.text import printable

__all__ = ["heed_log", "say", "told", "written"]


def say(text: str, prefix: str = "pageowner: ") -> int:
    """Say it; the number of lines that took. Every character of it is made visible.

    In one write: print() makes several, between which another thread may say something."""
    lines = _lines(prefix + printable(text))
    sys.stderr.write("\n".join(lines) + "\n")
    return len(lines)


def told(text: str) -> None:
    """Say what an event was, as `say`: on stderr, and so in the journal of a service."""
    say(text)


def written(file: str, what: str = "", about: str | None = None) -> None:
    """Say of a file that it was written: ``about`` it, or its size and ``what`` it is for; of a
    pipe nothing. Where nobody listens, the file is there all the same."""
    from pageowner.report.text import size

    if os.path.isfile(file):
        try:
            say(f"{file}: {about or size(os.path.getsize(file))}{what}", "")
        except OSError:
            # what is left of it would be tried again at the end, and make that a failure
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stderr.fileno())
            os.close(null)


def heed_log() -> None:
    """Say what the package logs, as what is said here."""
    import logging

    class Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger = logging.getLogger("pageowner")
    if not logger.handlers:
        logger.addHandler(Saying())
        logger.propagate = False


def _lines(line: str) -> list[str]:
    """The line, as wide as the terminal that stderr is; programs that read it get it whole, and
    so do terminals what takes more than a cell a character."""
    width = _width()
    if not width or not line.isascii():
        return [line]
    from textwrap import wrap

    return wrap(line, max(width, 20), subsequent_indent="  ", break_on_hyphens=False,
                break_long_words=False) or [""]


def _width() -> int:
    """Columns of the terminal that stderr is; 0 where it is none."""
    if not sys.stderr.isatty():
        return 0
    with suppress(ValueError):
        if (columns := int(os.environ.get("COLUMNS", "0"))) > 0:
            return columns
    with suppress(OSError):
        return os.get_terminal_size(sys.stderr.fileno()).columns
    return 0
