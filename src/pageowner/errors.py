"""The two ways a command ends badly, caught once in `pageowner.cli.main`, and what was meant."""

from __future__ import annotations

# Type checkers take this name for true. Importing typing would be a third of the start-up time of
# page_owner_sort.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PageownerError", "UsageError", "near"]


class PageownerError(Exception):
    """An error, in one line: what is wrong, where (file, byte, record) and what to do.

    The command line prints it on stderr and exits with `exit_status`.
    """

    exit_status = 1


class UsageError(PageownerError):
    """The arguments are wrong (exit status 2)."""

    exit_status = 2


def near(word: str, known: Iterable[str]) -> str:
    """``did you mean 'report'?``, or ``choose from …`` all that is known if nothing is near."""
    from difflib import get_close_matches

    names = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), names, 1, 0.6)
    if found:
        return f"did you mean {names[found[0]]!r}?"
    return f"choose from {', '.join(names.values())}"
