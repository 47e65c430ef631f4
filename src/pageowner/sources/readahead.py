"""Begin to read a large dump before the command line is understood.

Importing what understands it, and what answers, takes as long as the reading, which other processes
do. Only a few plain questions are recognised; anything else is read when its turn comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.model.snapshot import Snapshot
    from pageowner.sources.opening import Opened
    from pageowner.sources.page_owner_count import Tally
    from pageowner.sources.page_owner_parser import Raw

__all__ = ["begin", "forget", "is_of_groups", "taken", "taken_groups", "taken_whole"]

_COUNTING = "report"
_OPTIONS = {"--by", "--sort", "--reverse", "--top", "--all", "--full", "--json", "--page-size"}
"""Those with which it counts."""

_READING = {"save", "frag", "map"}
"""What needs a table of all records."""

_begun: dict[str, tuple[Opened, Callable[[], list[Tally]]]] = {}
_begun_whole: dict[str, tuple[Opened, Callable[[], list[Raw]]]] = {}
_begun_groups: dict[str, tuple[Opened, Callable[[], Snapshot]]] = {}


def begin(argv: Sequence[str]) -> None:
    """Start to read the one large plain text that the words name, if they do."""
    import os

    forget()
    verb, words = "".join(argv[:1]), argv[1:]
    if verb not in _READING and (verb != _COUNTING or any(
            word.startswith("-") and word.partition("=")[0] not in _OPTIONS for word in words)):
        return
    # A pipe or a device is not touched: looking at it would be reading from it.
    files = [word for word in words if not word.startswith("-") and os.path.isfile(word)]
    if verb in _READING:
        files = [file for file in files if _is_dump(file)]
    if len(files) != 1:
        return
    from contextlib import suppress

    from pageowner.errors import PageownerError
    from pageowner.model.source_kinds import PARQUET
    from pageowner.sources import page_owner, vmcore
    from pageowner.sources.opening import open_source
    from pageowner.sources.page_owner_parser import START
    from pageowner.sources.restoring import restored

    with suppress(PageownerError):  # said when its turn comes
        opened = open_source(files[0])
        try:
            is_text = not (opened.head.startswith(PARQUET) or vmcore.is_vmcore(opened.head))
            text = restored(opened) if is_text and page_owner.is_large(opened) else None
            if text is not None and verb == _COUNTING:
                _begin_counting(files[0], opened, text)
            elif text is opened and opened.head.startswith(START):
                _begun_whole[files[0]] = opened, page_owner.begin_read(opened)
        finally:
            if not any(files[0] in begun for begun in (_begun, _begun_whole, _begun_groups)):
                opened.close()


def _begin_counting(file: str, opened: Opened, text: Opened) -> None:
    """``text``: what was opened, as the kernel printed it."""
    from pageowner.sources import groups, page_owner
    from pageowner.sources.page_owner_parser import START

    if text is opened and not opened.head.startswith(START):
        if (begin_text := groups.beginner(opened)) is not None:
            _begun_groups[file] = opened, begin_text(opened)
    elif text is opened or (text.shares is not None and groups.reader(text) is None):
        if text is not opened:
            text.file = opened.stream  # closed with it
        _begun[file] = text, page_owner.begin_count(text)


def _is_dump(file: str) -> bool:
    """Whether it begins as a dump does; others are what is written, or read beside it."""
    from pageowner.sources.page_owner_parser import START

    try:
        with open(file, "rb") as there:
            return there.read(len(START)) == START
    except OSError:
        return False


def forget() -> None:
    """Close what was begun and nobody took."""
    for opened, _ in (*_begun.values(), *_begun_whole.values(), *_begun_groups.values()):
        opened.close()
    _begun.clear()
    _begun_whole.clear()
    _begun_groups.clear()


def taken(source: object) -> tuple[Opened, Callable[[], list[Tally]]] | None:
    """What was begun to be counted of this source, once."""
    return _begun.pop(source, None) if isinstance(source, str) else None


def taken_whole(source: object) -> tuple[Opened, Callable[[], list[Raw]]] | None:
    """What was begun to be read of it, once."""
    return _begun_whole.pop(source, None) if isinstance(source, str) else None


def is_of_groups(source: object) -> bool:
    """Whether a text of groups was begun to be read."""
    return isinstance(source, str) and source in _begun_groups


def taken_groups(source: object) -> tuple[Opened, Callable[[], Snapshot]] | None:
    """What was begun to be read of it, a text of groups, once."""
    return _begun_groups.pop(source, None) if isinstance(source, str) else None
