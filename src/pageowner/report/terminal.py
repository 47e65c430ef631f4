"""Where reports are drawn: a rich console that fits the terminal, or plain text for a pipe."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PIPE_WIDTH", "console", "is_terminal"]

PIPE_WIDTH = 10_000
"""Nothing is cut short where the output is no terminal."""


def is_terminal(file: TextIO | None = None) -> bool:
    """Whether a person reads this as it is written."""
    return (file or sys.stdout).isatty()


def console(width: int | None = None) -> Console:
    """For standard output: coloured on a terminal unless NO_COLOR is set, plain otherwise."""
    from rich.console import Console

    if width is None and not is_terminal():
        width = PIPE_WIDTH
    # markup and highlighting would act on what tasks call themselves
    return Console(width=width or shutil.get_terminal_size().columns, markup=False,
                   highlight=False, emoji=False, soft_wrap=False, legacy_windows=False)
