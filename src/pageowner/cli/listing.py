"""Which verbs there are: a module of this folder begins with the name of its verb, and its line in
the help: three quotes, ````pageowner NAME``: what it does.``"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["lines"]

_FIRST = re.compile(r'"""``pageowner (?:(\w+) )?([\w-]+)``: (.*?)(?:"""|\n\n)', re.DOTALL)
_ENOUGH = 1 << 10


def lines(order: Sequence[str], group: str = "") -> dict[str, str]:
    """Verbs, of a ``group`` of them such as fleet or of none, and what each does, in a line. They
    are in this order; others follow by name. Nothing is imported."""
    found = {}
    with os.scandir(os.path.dirname(__file__)) as files:
        for file in files:
            if file.name.endswith(".py"):
                with open(file.path, encoding="utf-8") as opened:
                    first = _FIRST.match(opened.read(_ENOUGH))
                if first and (first[1] or "") == group:
                    found[first[2]] = " ".join(first[3].split())
    return dict(sorted(found.items(), key=lambda verb: (
        order.index(verb[0]) if verb[0] in order else len(order), verb[0])))
