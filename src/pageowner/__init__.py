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
    from pageowner.analysis.balance import Balance
    from pageowner.analysis.diff import Difference
    from pageowner.analysis.explain import Explanation
    from pageowner.analysis.filters import Filter
    from pageowner.analysis.leaks import Leaks
    from pageowner.analysis.query import Answer
    from pageowner.api.balance import balance
    from pageowner.api.diff import diff
    from pageowner.api.explain import explain
    from pageowner.api.export import export
    from pageowner.api.flame import FlameGraph, flame
    from pageowner.api.frag import Blocking, Fragmentation, frag
    from pageowner.api.leaks import leaks
    from pageowner.api.map import Map, map
    from pageowner.api.owners import Owners, owners
    from pageowner.api.query import query
    from pageowner.api.record import Recorded, record
    from pageowner.api.serve import serve
    from pageowner.api.tracking import status
    from pageowner.api.watch import LiveOwners, watch
    from pageowner.api.who import Frames, who
    from pageowner.model.snapshot import Metadata, Snapshot
    from pageowner.page_owner_sort.sorting import sort
    from pageowner.sources.source import Moment, read
    from pageowner.tracker.control import Options, Status, off, on
    from pageowner.tracker.doctor import Finding, doctor
    from pageowner.tracker.read.capture import capture

__all__ = ["Answer", "Balance", "Blocking", "Difference", "Explanation", "Filter", "Finding",
           "FlameGraph", "Fragmentation", "Frames", "Leaks", "LiveOwners", "Map", "Metadata",
           "Moment", "Options", "Owners", "PageownerError", "Recorded", "Snapshot", "Status",
           "UsageError", "__version__", "balance", "capture", "diff", "doctor", "explain",
           "export", "flame", "frag", "leaks", "map", "off", "on", "owners", "query", "read",
           "record", "serve", "sort", "status", "watch", "who"]

__version__ = "0.1.0"

_HOMES = {
    name: f"pageowner.{module}" for module, names in {
        "analysis.balance": ("Balance",),
        "analysis.diff": ("Difference",),
        "analysis.explain": ("Explanation",),
        "analysis.filters": ("Filter",),
        "api.balance": ("balance",),
        "api.diff": ("diff",),
        "api.explain": ("explain",),
        "api.export": ("export",),
        "api.flame": ("FlameGraph", "flame"),
        "api.frag": ("Blocking", "Fragmentation", "frag"),
        "analysis.leaks": ("Leaks",),
        "analysis.query": ("Answer",),
        "api.leaks": ("leaks",),
        "api.map": ("Map", "map"),
        "api.owners": ("Owners", "owners"),
        "api.query": ("query",),
        "api.record": ("Recorded", "record"),
        "api.serve": ("serve",),
        "api.watch": ("LiveOwners", "watch"),
        "api.who": ("Frames", "who"),
        "api.tracking": ("status",),
        "model.snapshot": ("Metadata", "Snapshot"),
        "page_owner_sort.sorting": ("sort",),
        "sources.source": ("Moment", "read"),
        "tracker.control": ("Options", "Status", "off", "on"),
        "tracker.doctor": ("Finding", "doctor"),
        "tracker.read.capture": ("capture",),
    }.items() for name in names}
"""Where each public name lives."""


if not TYPE_CHECKING:  # a type checker would take any name for one of these
    def __getattr__(name: str) -> object:
        # Lazy, so that page_owner_sort and `pageowner --help` do not wait for pyarrow.
        if name in _HOMES:
            import importlib

            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'pageowner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
