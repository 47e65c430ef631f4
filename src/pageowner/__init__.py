"""Who owns every page of a Linux machine's memory.

>>> import pageowner
>>> snapshot = pageowner.read("page_owner.txt")
>>> snapshot.report(by="comm")            # an Arrow table
>>> snapshot.save("now.parquet")

`read` takes a path to a dump of the kernel's page owner (any version, plain or .gz .xz .zst), a
saved snapshot, ``"-"`` for standard input, or nothing for this machine's own state.
"""

from __future__ import annotations

from pageowner.errors import PageownerError, UsageError

# Type checkers take this name for true. Importing typing would be a third of the start-up time of
# page_owner_sort.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pageowner.model.snapshot import Metadata, Snapshot
    from pageowner.sources.source import read

__all__ = ["Metadata", "PageownerError", "Snapshot", "UsageError", "__version__", "read"]

__version__ = "0.1.0"

_HOMES = {
    "read": "pageowner.sources.source",
    "Snapshot": "pageowner.model.snapshot",
    "Metadata": "pageowner.model.snapshot",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that page_owner_sort and `pageowner --help` do not wait for pyarrow.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pageowner' has no attribute {name!r}")
