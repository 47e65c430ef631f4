"""What a kernel log says about memory: ``pageowner explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.analysis.explain import explained
from pageowner.sources.kernel_log import read

if TYPE_CHECKING:
    import os

    from pageowner.analysis.explain import Explanation

__all__ = ["explain"]


def explain(log: str | os.PathLike[str] | None = None, *,
            page_size: int | None = None) -> Explanation:
    """The reports about memory in a kernel log, each with what memory was used for, why an
    allocation failed, or who allocated and freed a page.

    ``log``: a file with output of dmesg, journalctl or a serial console (also .gz, .xz, .zst),
    ``"-"`` for standard input, or nothing for this machine's own log, which needs root.
    ``page_size``: bytes of a page, if the log does not show it.

    Raises PageownerError if the log cannot be read.
    """
    found = read(log)
    if page_size is not None and not found.page_size_known:
        found.page_size, found.page_size_known = page_size, True
    return explained(found)
