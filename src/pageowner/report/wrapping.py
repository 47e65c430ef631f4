"""Words of ours, broken between words where a terminal ends; never in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.report.terminal import PIPE_WIDTH

if TYPE_CHECKING:
    from pageowner.report.terminal import Paper

__all__ = ["entry", "prose"]

_LEAST_WORDS = 20
"""Characters of a line behind its indent, however narrow the paper."""


def prose(paper: Paper, text: str, style: str = "", indent: int = 0) -> None:
    """A paragraph, whose lines after the first are two cells further in."""
    for number, line in enumerate(_broken(text, paper.width, indent + 2, indent)):
        paper.line(" " * (indent + 2 * (number > 0)) + line, style)


def entry(paper: Paper, title: str, text: str, style: str = "", title_style: str | None = None
          ) -> None:
    """Words behind a title of a fixed width; where a terminal ends they go on below themselves. The
    title has the style of the words unless it is given one."""
    title_style = style if title_style is None else title_style
    if not text:
        paper.line(title.rstrip(), title_style)
        return
    for line in _broken(text, paper.width, len(title), len(title)):
        paper.parts([(title, title_style), (line, style)])
        title = " " * len(title)


def _broken(text: str, width: int, indent: int, first: int) -> list[str]:
    """Lines that fit behind their indents, of which the first line has its own."""
    if width >= PIPE_WIDTH:
        return [text]
    from textwrap import wrap

    least = max(width, indent + _LEAST_WORDS)
    lines = wrap(text, least, initial_indent=" " * first, subsequent_indent=" " * indent,
                 break_on_hyphens=False)
    return [line[indent if number else first:] for number, line in enumerate(lines)] or [""]
