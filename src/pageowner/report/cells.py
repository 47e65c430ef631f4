"""Texts cut and filled to a width in terminal cells: some characters take two, some none."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

__all__ = ["cell_len", "cut", "cut_front", "cut_path", "fitted"]


def cut(text: str, width: int) -> str:
    """``text``, with an ellipsis for what is beyond ``width`` terminal cells."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def cut_front(text: str, width: int) -> str:
    """The end of ``text``, with an ellipsis for what is before the last ``width`` cells."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return "…" + text if width > 0 else ""


def cut_path(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells: words as they are, and of a path behind them the end,
    which tells more than its beginning."""
    words, slash, path = text.partition("/")
    if not slash or cell_len(words) > width // 2:
        return cut(text, width)
    return words + cut_front(f"/{path}", width - cell_len(words))


def fitted(text: str, width: int, right: bool = False) -> str:
    """``text`` in exactly ``width`` cells: cut, or with blanks behind, or before it (``right``)."""
    text = cut(text, width)
    blanks = " " * (width - cell_len(text))
    return blanks + text if right else text + blanks
