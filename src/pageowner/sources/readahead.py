"""Begin to read a large dump before the command line is understood.

Importing what understands it takes as long as a tenth of the reading, which other processes do.
Only the plain question is recognised, ``report FILE`` without filters; anything else is read when
its turn comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.sources.opening import Opened
    from pageowner.sources.page_owner_count import Tally

__all__ = ["begin", "forget", "taken"]

_VERB = "report"
_OPTIONS = {"--by", "--sort", "--reverse", "--top", "--all", "--full", "--json"}
"""Those that do not change what is read."""

_begun: dict[str, tuple[Opened, Callable[[], list[Tally]]]] = {}


def begin(argv: Sequence[str]) -> None:
    """Start to count the records of the one large plain dump that the words name, if they do."""
    import os
    from contextlib import suppress

    forget()
    words = argv[1:]
    if list(argv[:1]) != [_VERB] or any(
            word.startswith("-") and word.partition("=")[0] not in _OPTIONS for word in words):
        return
    # A pipe or a device is not touched: looking at it would be reading from it.
    files = [word for word in words if not word.startswith("-") and os.path.isfile(word)]
    if len(files) != 1:
        return
    from pageowner.errors import PageownerError
    from pageowner.sources import page_owner
    from pageowner.sources.opening import open_source
    from pageowner.sources.page_owner_parser import START

    with suppress(PageownerError):  # said when its turn comes
        opened = open_source(files[0])
        try:
            if opened.head.startswith(START) and page_owner.is_large(opened):
                _begun[files[0]] = opened, page_owner.begin_count(opened)
        finally:
            if files[0] not in _begun:
                opened.close()


def forget() -> None:
    """Close what was begun and nobody took."""
    for opened, _ in _begun.values():
        opened.close()
    _begun.clear()


def taken(source: object) -> tuple[Opened, Callable[[], list[Tally]]] | None:
    """What was begun for this source, once."""
    return _begun.pop(source, None) if isinstance(source, str) else None
