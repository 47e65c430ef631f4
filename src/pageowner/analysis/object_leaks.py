"""Leaks of a machine whose objects are followed: of objects, and of the kernel's pages that are no
slabs'.

A slab page's owner is who made the slab grow. Where objects are followed, those who fill it are
known, and slab pages are left out, unless the objects that grew are too few for them: some objects
are not seen (in bulk, where BPF may not trace functions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.analysis.leaks import KINDS
from pageowner.analysis.one_leak import WHOLE_PAGES, joined
from pageowner.analysis.subsystems import (
    PRIVATE,
    WAYS,
    allocator_of,
    functions,
    role_of,
    subsystem,
)
from pageowner.kernel.stack_roles import DENTRIES, INODE_DATA, SLAB_GROWTH

if TYPE_CHECKING:
    from pageowner.kernel.frames import Frame

__all__ = ["leaks_of_objects", "with_pages"]

_MOST = 0.5
"""What explains half of something or more explains it, beside the noise."""

_SLAB = WAYS.index("slab")

_IN_PAGES = ("pages", "gained", "came", "each", "rate", "rate_low", "rate_high", "settled",
             "stayed")


def leaks_of_objects(found: pa.Table, pinned: int | None = None) -> pa.Table:
    """The table of `leaks.Watch.leaks` of objects, in bytes, with what is known of the caches that
    the kernel can take back: dentries leak if they are in use. The books of a slab (`SLAB_GROWTH`)
    are what its objects are, what is kept of an inode (`INODE_DATA`) is what that is, and both are
    left out where these are suspects.

    ``pinned``: by how many bytes the dentries in use grew meanwhile; None: unknown.
    """
    if "stack" not in found.column_names:
        return found
    rows = found.to_pylist()
    dentries = [row for row in rows if row["kind"] == "reclaimable" and _of(row, DENTRIES)
                and not _of(row, SLAB_GROWTH)]
    gained = sum(row["gained"] for row in dentries)
    if dentries and pinned is not None and pinned >= gained * _MOST:
        most = max(dentries, key=lambda row: int(row["gained"]))
        if most["gained"] >= gained * _MOST:
            most["kind"] = "leak"
    books: list[dict[str, Any]] = []
    for names, way in ((SLAB_GROWTH, _way_to_slab), (INODE_DATA, _way_to_inode)):
        belongs = [row for row in rows if row["kind"] == "leak" and _of(row, names)]
        kinds: dict[tuple[Frame, ...], set[str]] = {}
        for row in rows if belongs else ():
            if row["stack"] is not None and not _of(row, SLAB_GROWTH | INODE_DATA):
                kinds.setdefault(way(row["stack"]), set()).add(row["kind"])
        for row in belongs:
            known = kinds.get(way(row["stack"]), {"leak"})
            row["kind"] = next(kind for kind in KINDS if kind in known)
        books += belongs
    return pa.Table.from_pylist([row for row in rows if row not in books or row["kind"] != "grows"],
                                found.schema)


def with_pages(objects: pa.Table, pages: pa.Table, page_size: int) -> pa.Table:
    """`leaks_of_objects`, and beside them the leaks of ``pages`` (`leaks.Watch.leaks`, in pages of
    ``page_size`` bytes) that no object explains, in bytes; what is one leak is one row, as
    `one_leak.joined` has it. What programs take for themselves is left out, which is no part of
    the kernel's, and pages without an owner, which are known by their number alone."""
    ours = [row | {WHOLE_PAGES: False} for row in objects.to_pylist()]
    beside = [_in_bytes(row, page_size) | {WHOLE_PAGES: True} for row in pages.to_pylist()
              if row["stack"] is not None and subsystem(row["stack"]) not in PRIVATE]
    of_slabs = [allocator_of(row["stack"]) == "slab" for row in beside]
    grown = sum(row["gained"] for row, of_slab in zip(beside, of_slabs, strict=True)
                if of_slab and row["kind"] != "grows")
    if sum(row["gained"] for row in ours if row["kind"] != "grows") >= grown * _MOST:
        beside = [row for row, of_slab in zip(beside, of_slabs, strict=True) if not of_slab]
    # Ctrl-C may have come after a look at pages and before that at objects.
    looks = min((len(row["series"]) for row in ours + beside), default=0)
    for row in ours + beside:
        row |= {name: row[name][:looks] for name in ("series", "settled_series")}
    # keys of a table without rows have no type
    schema = pa.unify_schemas([objects.schema, pages.schema], promote_options="permissive").append(
        pa.field(WHOLE_PAGES, pa.bool_()))
    return joined(pa.Table.from_pylist(ours + beside, schema))


def _in_bytes(row: dict[str, Any], page_size: int) -> dict[str, Any]:
    scaled = {name: None if row[name] is None else row[name] * page_size for name in _IN_PAGES}
    series = {name: [value * page_size for value in row[name]]
              for name in ("series", "settled_series")}
    tasks = [task | {"pages": task["pages"] * page_size} for task in row["tasks"]]
    return row | scaled | series | {"tasks": tasks}


def _of(row: dict[str, Any], names: frozenset[str]) -> bool:
    return any(frame.name in names for frame in functions(row["stack"] or ""))


def _way_to_slab(stack: str) -> tuple[Frame, ...]:
    """The frames of a stack that are further out than the slab allocator: the same of an object,
    and of the books of its slab."""
    chain = functions(stack)
    inside = [place for place, frame in enumerate(chain) if role_of(frame) == _SLAB]
    return tuple(chain[inside[-1] + 1:]) if inside else tuple(chain)


def _way_to_inode(stack: str) -> tuple[Frame, ...]:
    """The frames of a stack from where an inode is made outwards."""
    chain = functions(stack)
    places = [place for place, frame in enumerate(chain) if frame.name == "alloc_inode"]
    return tuple(chain[places[0]:]) if places else tuple(chain)
