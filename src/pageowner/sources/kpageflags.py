"""Page flags for a dump: a copy of /proc/kpageflags made with it, or this machine's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pageowner.errors import PageownerError, UsageError
from pageowner.kernel import pageflags
from pageowner.sources.opening import open_source, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.model.snapshot import Snapshot

__all__ = ["page_flags"]


def page_flags(snapshot: Snapshot, path: str | os.PathLike[str] | None) -> NDArray[Any] | None:
    """The flags of all pages (uint64, from pfn 0 on) for a dump: of the file named, or of this
    machine, if that is what was read, and not saved since; else None.

    Raises UsageError for a capture, which brings its own, PageownerError for a file that is none.
    """
    if snapshot.meta.kind == "tracker":
        if path is not None:
            raise UsageError("kpageflags is for dumps; a capture brings its own")
        return None
    if path is not None:
        return _copied(os.fspath(path))
    if snapshot.meta.read_here:
        return pageflags.read()
    return None


def _copied(path: str) -> NDArray[Any]:
    """The flags in a copy of /proc/kpageflags, also a packed one, or from a pipe."""
    with open_source(path) as opened:
        if opened.size is not None or path.startswith("/proc/kpage"):
            flags, over = pageflags.read(path), (opened.size or 0) % 8
        else:
            import numpy as np

            with reading(opened.name):
                raw = opened.stream.read()
            over = len(raw) % 8
            flags = np.frombuffer(raw[:len(raw) - over], "<u8").astype(np.uint64)
    if why := pageflags.why_none(flags, over) if len(flags) or over else "it is empty":
        raise PageownerError(f"{path}: no page flags: {why}; copy them with: cat"
                             f" {pageflags.KPAGEFLAGS} >FILE")
    return flags
