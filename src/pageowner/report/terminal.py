"""Where reports are drawn: a rich console that fits the terminal, or plain text for a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

from pageowner.report.palette import STYLES
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

__all__ = ["PIPE_WIDTH", "Paper", "console", "is_terminal", "output_encoding",
           "paper"]

PIPE_WIDTH = 10_000
"""Nothing is cut short where the output is no terminal."""


def is_terminal(file: TextIO | None = None) -> bool:
    """Whether a person reads this as it is written."""
    return (file or sys.stdout).isatty()


def output_encoding() -> Callable[[str], bytes]:
    """How texts of a dump are written to standard output: as they were, but for a terminal, which
    would act on escape sequences in them."""
    from pageowner.kernel.task_names import to_bytes

    if not is_terminal():
        return to_bytes
    encoding, errors = sys.stdout.encoding, sys.stdout.errors or "strict"
    return lambda text: printable(text).encode(encoding, errors)


def console(width: int | None = None) -> Console:
    """For standard output: coloured on a terminal unless NO_COLOR is set, plain otherwise."""
    from rich.console import Console

    if width is None and not is_terminal():
        width = PIPE_WIDTH
    # markup and highlighting would act on what tasks call themselves
    return Console(width=width or shutil.get_terminal_size().columns, markup=False,
                   highlight=False, emoji=False, soft_wrap=False, legacy_windows=False)


class Paper:
    """Lines, one below the other, of ``width`` terminal cells at best. Whoever writes them has
    made them printable."""

    def __init__(self, width: int = PIPE_WIDTH) -> None:
        self.width = width

    def line(self, text: str = "", style: str = "") -> None:
        """One line in one of `palette.STYLES`; plain text has none."""
        print(text)

    def parts(self, parts: Sequence[tuple[str, str]]) -> None:
        """One line of several styles: texts, each with its own."""
        self.line("".join(text for text, _ in parts))


class _Screen(Paper):
    """A terminal, through rich."""

    def __init__(self) -> None:
        self._console = console()
        super().__init__(self._console.width)

    def line(self, text: str = "", style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(text, style=STYLES[style]), soft_wrap=True)

    def parts(self, parts: Sequence[tuple[str, str]]) -> None:
        from rich.text import Text

        styled = [(text, STYLES[style]) for text, style in parts]
        self._console.print(Text.assemble(*styled), soft_wrap=True)


def paper() -> Paper:
    """For standard output. rich, which is long to import, is for those who see its colours."""
    return _Screen() if is_terminal() or os.environ.get("FORCE_COLOR") else Paper()
