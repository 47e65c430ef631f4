"""Who owns every page of a Linux machine's memory.

>>> import pageowner
>>> snapshot = pageowner.read("page_owner.txt")
>>> snapshot.report(by="comm")            # an Arrow table
>>> snapshot.save("now.parquet")

`read` takes a path to a dump of the kernel's page owner (any version, plain or .gz .xz .zst), a
saved snapshot, ``"-"`` for standard input, or nothing for this machine's own state.
"""

from __future__ import annotations

from pageowner.errors import PageownerError as PageownerError
from pageowner.errors import UsageError as UsageError

__version__ = "0.1.0"

_HOMES = {
    name: f"pageowner.{module}" for module, names in {
        "analysis.balance": ("Balance",),
        "analysis.diff": ("Difference",),
        "analysis.explain": ("Explanation",),
        "analysis.filters": ("Filter",),
        "analysis.leaks": ("Leaks",),
        "analysis.query": ("Answer",),
        "api.fleet": ("Fleet",),
        "model.snapshot": ("Metadata", "Snapshot"),
        "page_owner_sort.sorting": ("sort",),
        "sources.source": ("Moment", "read"),
        "tracker.control": ("Options", "Status", "off", "on"),
        "tracker.doctor": ("Finding", "doctor"),
        "tracker.read.capture": ("capture",),
    }.items() for name in names}
"""Where public names live, but for those of `_calls`. Type checkers read all of them in
``__init__.pyi``, which scripts/facade writes."""


_CALLS: dict[str, str] = {}


def _calls() -> dict[str, str]:
    """Where each call that has a module of its own in api/ lives, and the classes of its results:
    those of its ``__all__`` that have no capitals alone."""
    if _CALLS:
        return _CALLS
    import os
    import re

    folder = os.path.join(os.path.dirname(__file__), "api")
    for file in sorted(os.listdir(folder)):
        module, ending = os.path.splitext(file)
        if ending == ".py":
            with open(os.path.join(folder, file), encoding="utf-8") as opened:
                listed = re.search(r"^__all__ = \[(.*?)\]", opened.read(), re.MULTILINE | re.DOTALL)
            names = re.findall(r'"(\w+)"', listed[1]) if listed else []
            if module in names:
                _CALLS.update((name, f"pageowner.api.{module}") for name in names
                              if name == module or (name[0].isupper() and not name.isupper()))
    return _CALLS


def __getattr__(name: str) -> object:
    # Lazy, so that page_owner_sort and `pageowner --help` do not wait for pyarrow.
    if name == "__all__":
        return sorted({"PageownerError", "UsageError", "__version__", *_HOMES, *_calls()})
    home = None if name.startswith("__") else _HOMES.get(name) or _calls().get(name)
    if home is None:
        raise AttributeError(f"module 'pageowner' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))  # type: ignore[call-overload]
