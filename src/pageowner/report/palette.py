"""All colours of ours, which people with any colour vision can tell apart.

On a terminal nothing is said by colour alone: numbers have signs, findings have words. Green is
not used there: beside red or yellow many do not see it.

Values: the palette of Okabe and Ito (Color Universal Design, 2008) without black, and a wine red of
Tol's. Ages: eight steps of cividis (Nuñez, Anderton, Renslow 2018), bright for young.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pageowner.analysis.picture import Category

__all__ = ["AGE_COLOURS", "BACKGROUND", "CURSOR", "FEWER", "MORE", "ROLE_COLOURS", "SAME", "STYLES",
           "VALUE_COLOURS", "colours", "hexadecimal", "shaded", "signs"]

STYLES = {
    "": "", "bold": "bold", "dim": "dim", "name": "", "title": "reverse",
    "title_chosen": "reverse bold underline", "columns": "bold underline", "heading": "bold cyan",
    "telling": "bold yellow", "good": "cyan", "well": "bold cyan", "warn": "yellow",
    "bad": "bold red", "grows": "bold red", "shrinks": "cyan", "bars": "cyan"}
"""The styles of lines on a terminal by what they mean, in rich's words: ``telling`` is the frame
that explains a stack, ``columns`` the titles of a table."""

CURSOR = "bold black on cyan"

VALUE_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
                 "#882255")
AGE_COLOURS = ("#fee838", "#e1cc55", "#c3b369", "#a59c74", "#8a8678", "#707173", "#575d6d",
               "#26447a")
ROLE_COLOURS = {"other": "#c8c8c8", "unknown": "#8f8f8f", "free": "#242424", "unseen": "#242424",
                "held": "#4c4c4c"}
BACKGROUND = "#000000"

MORE, FEWER, SAME = "#e0342b", "#3b7dd8", "#d9d9d9"
"""Of what has more pages, what has fewer, and what has as many."""

_SIGNS = {"other": "+", "unknown": "?", "free": ".", "unseen": ".", "held": "#"}
_PALEST = 0.4


def colours(categories: Sequence[Category], by: str) -> list[str]:
    """The colour of each category, as ``#rrggbb``."""
    from pageowner.analysis.picture import AGE

    values = iter(AGE_COLOURS if by == AGE else VALUE_COLOURS)
    return [next(values) if category.role == "value" else ROLE_COLOURS[category.role]
            for category in categories]


def signs(categories: Sequence[Category]) -> list[str]:
    """The character of each category where there are no colours."""
    values = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return [next(values) if category.role == "value" else _SIGNS[category.role]
            for category in categories]


def shaded(code: NDArray[np.uint8], share: NDArray[np.float32],
           palette: Sequence[str]) -> NDArray[np.uint8]:
    """Red, green and blue of each cell (n x 3): its category's colour, darker the less of the cell
    it has."""
    import numpy as np

    table = np.array([[int(colour[at:at + 2], 16) for at in (1, 3, 5)] for colour in palette],
                     np.float32)
    strength = (_PALEST + (1 - _PALEST) * share)[:, None]
    result: NDArray[np.uint8] = np.rint(table[code] * strength).astype(np.uint8)
    return result


def hexadecimal(rgb: NDArray[np.uint8]) -> str:
    """One colour as ``#rrggbb``."""
    return "#" + "".join(f"{int(part):02x}" for part in rgb)
