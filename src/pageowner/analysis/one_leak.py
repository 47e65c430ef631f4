"""Leaks that are one thing: an open file is a dentry, a ``struct file``, what a security module
keeps of it, and the object of its kind, each of another cache and allocated through another stack;
a thread is objects, and pages for its kernel stack.

Two leaks are taken for one where the same processes allocated most of both, on the same way into
the kernel: the outer frames of their stacks are the same, down to a function of their own. The leak
is then called by the stack of an object that ends nearest to what they share, and is not of what
every open file has, nor of what many of them share: that of the object itself. The others are told
beside it.
"""

from __future__ import annotations

from statistics import median_high
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.analysis.subsystems import functions
from pageowner.kernel.stack_roles import COMPANIONS, SLAB_GROWTH

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WHOLE_PAGES", "joined"]

WHOLE_PAGES = "whole_pages"
"""A column of rows that are no objects, true for these; such are not joined with one another, since
programs take all their memory through the same few functions, and stand after objects."""

_OWN_WAY = 2
"""Frames that are the same, where nothing else tells that a leak and a cache belong together."""

_MOST = 0.5
"""Of two leaks so much must have been allocated by the same processes; or, where many processes
leak, by those of the same name on the same way: the workers of one program."""

_FEW = 3
"""What is there once for more than so many of the other objects, such as a node of a tree, is
shared by them."""

_SUMS = ("pages", "gained", "came", "rate", "rate_low", "rate_high", "settled")
_SERIES = ("series", "settled_series")


def joined(found: pa.Table) -> pa.Table:
    """The table of `leaks.Watch.leaks` with such leaks as one row each, their numbers summed, and
    ``with``, the stacks of the others and what each of them gained, most first.

    A table that has no stacks is returned as it is, but for the column `WHOLE_PAGES`.
    """
    if "stack" not in found.column_names:
        return found
    rows = sorted(found.to_pylist(), key=lambda row: row["kind"] != "leak")
    groups: list[list[dict[str, Any]]] = []
    for row in rows:
        kin = next((group for group in groups if _are_kin(group[0], row)), None)
        if kin is None:
            groups.append([row])
        else:
            kin.append(row)
    whole = [_one(group) for group in groups]
    whole.sort(key=lambda row: (row["kind"] != "leak", row["kind"] != "reclaimable",
                                row.get(WHOLE_PAGES, False),
                                -row["rate_low"] if row["kind"] != "grows" else
                                -(row["stayed"] or 0)))
    schema = found.schema.append(pa.field("with", pa.list_(pa.struct(
        {"stack": pa.string(), "gained": pa.int64()}))))
    return pa.table({name: pa.array([row[name] for row in whole], schema.field(name).type)
                     for name in schema.names if name != WHOLE_PAGES})


def _are_kin(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both leak, through the same processes and the same call; or the other one is cache of
    those processes which comes with the leak."""
    if row["kind"] != "leak" or row["stack"] is None or other["stack"] is None:
        return False
    if row.get(WHOLE_PAGES) and other.get(WHOLE_PAGES):
        return False
    shared = _shared(row["stack"], other["stack"])
    if _same(row["tasks"], other["tasks"], "tgid") < _MOST and not (
            shared >= _OWN_WAY and _is_of_many(row) and _is_of_many(other)
            and _same(row["tasks"], other["tasks"], "comm") >= _MOST):
        return False
    if other["kind"] == "reclaimable":  # the leak keeps the kernel from taking it back
        return shared >= _OWN_WAY
    return other["kind"] == "leak" and shared > 0


def _is_of_many(row: dict[str, Any]) -> bool:
    """Whether no process allocated most of what is known of a leak."""
    return max(_shares(row["tasks"], "tgid").values(), default=1) <= _MOST


def _same(tasks: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], name: str) -> float:
    """Which share of two leaks was allocated by the same processes (``tgid``), or by those of the
    same name (``comm``), of what is known of them: 1, all, as much each; 0, none."""
    of_these, of_those = (_shares(part, name) for part in (tasks, others))
    return sum(min(share, of_those.get(whose, 0)) for whose, share in of_these.items())


def _shares(tasks: Sequence[dict[str, Any]], name: str) -> dict[int | str, float]:
    known, shares = sum(task["pages"] for task in tasks), dict[int | str, float]()
    for task in tasks:
        if task[name] is not None:
            shares[task[name]] = shares.get(task[name], 0) + task["pages"] / max(known, 1)
    return shares


def _shared(stack: str, other: str) -> int:
    """How many of the outermost frames are the same, but for how the CPU came into the kernel."""
    number = 0
    for frame, same in zip(reversed(functions(stack)), reversed(functions(other)), strict=False):
        if frame != same:
            break
        number += 1
    return number


def _one(group: list[dict[str, Any]]) -> dict[str, Any]:
    """A row for the leak that all of these are."""
    if len(group) == 1:
        return group[0] | {"with": []}
    shared = min(_shared(group[0]["stack"], row["stack"]) for row in group[1:])
    usual = median_high([_number(row) for row in group if not row.get(WHOLE_PAGES)] or [0.0])
    group = sorted(group, key=lambda row: (
        row["kind"] != "leak", not row.get(WHOLE_PAGES) and _number(row) * _FEW < usual,
        _is_companion(row["stack"], shared), row.get(WHOLE_PAGES, False),
        len(functions(row["stack"])) - shared, -row["gained"]))
    first, others = group[0], group[1:]
    sums = {name: sum(row[name] for row in group) for name in _SUMS}
    stayed = None if first["stayed"] is None else sum(row["stayed"] or 0 for row in group)
    series = {name: [sum(numbers) for numbers in zip(*(row[name] for row in group), strict=True)]
              for name in _SERIES}
    tasks: dict[tuple[str | None, int | None], int] = {}
    for task in (task for row in group for task in row["tasks"]):
        name = task["comm"], task["tgid"]
        tasks[name] = tasks.get(name, 0) + task["pages"]
    whose = [{"comm": comm, "tgid": tgid, "pages": pages} for (comm, tgid), pages
             in sorted(tasks.items(), key=lambda task: -task[1])]
    told = [{"stack": row["stack"], "gained": row["gained"]}
            for row in sorted(others, key=lambda row: -row["gained"])]
    only_pages = all(row.get(WHOLE_PAGES) for row in group)
    return first | sums | series | {WHOLE_PAGES: only_pages, "stayed": stayed, "tasks": whose,
                                    "with": told}


def _number(row: dict[str, Any]) -> float:
    """How many objects were gained, by the size of those that are there."""
    return float(row["gained"] / row["each"]) if row["each"] else 0.0


def _is_companion(stack: str, shared: int) -> bool:
    """Whether its memory only comes with something else: a slab's books, or what every open file
    has, if that is within what is its own."""
    names = {frame.name for frame in functions(stack)}
    own = functions(stack)[:len(functions(stack)) - shared]
    return bool(names & SLAB_GROWTH) or any(frame.name in COMPANIONS for frame in own)
