"""SOURCE, the same for every verb: what it names, and how it becomes a snapshot.

A path or ``-``: a dump of the kernel's page owner or a saved snapshot, told apart by their first
bytes. Nothing: this machine's own state.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.formats.opening import Opened, open_source, reading

if TYPE_CHECKING:
    from pageowner.snapshot import Snapshot

__all__ = ["KERNEL_PAGE_OWNER", "read"]

KERNEL_PAGE_OWNER = "/sys/kernel/debug/page_owner"

_PARQUET = b"PAR1"


def read(source: str | os.PathLike[str] | None = None) -> Snapshot:
    """The owners of pages as ``source`` knows them.

    Raises PageownerError, in one line, if it cannot be read, is of no kind that is known, or
    (with no source given) if nothing on this machine keeps the owners of pages.
    """
    return _read(open_source(KERNEL_PAGE_OWNER if source is None else source)
                 if source is not None or _kernel_has_it() else _nothing())


def _kernel_has_it() -> bool:
    return os.path.exists(KERNEL_PAGE_OWNER)


def _nothing() -> Opened:
    raise PageownerError(
        "nothing keeps the owners of pages here: name a dump or a snapshot, or boot the kernel"
        " with page_owner=on")


def _read(opened: Opened) -> Snapshot:
    if opened.head.startswith(_PARQUET):
        from pageowner.formats import parquet

        if opened.size is not None:
            return parquet.read(opened.name)
        import pyarrow as pa

        with reading(opened.name):
            whole = opened.stream.read()
        return parquet.read(pa.BufferReader(whole), opened.name)
    from pageowner.formats import page_owner

    return page_owner.read(opened)
