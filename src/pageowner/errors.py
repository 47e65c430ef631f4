"""The two ways a command ends badly, caught once in `pageowner.cli.main`."""

from __future__ import annotations

__all__ = ["PageownerError", "UsageError"]


class PageownerError(Exception):
    """What went wrong, in one line: what, where (file, byte, record) and what to do.

    The command line prints it on stderr and exits with `exit_status`.
    """

    exit_status = 1


class UsageError(PageownerError):
    """The words of the command are wrong (exit status 2)."""

    exit_status = 2
