"""Leaks of objects that are one thing: an open file is a dentry, a ``struct file``, what a security
module keeps of it, and the object of its kind, each of another cache and allocated through another
stack.

Two leaks are taken for one where the same process allocated most of both, on the same way into the
kernel: the outer frames of their stacks are the same, down to a function of their own. The leak is
then called by the stack that ends nearest to what they share, which is that of the object itself;
the others are told beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pageowner.analysis.subsystems import functions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["joined"]

_OWN_WAY = 2
"""Frames that are the same, where nothing else tells that a leak and a cache belong together."""

_SUMS = ("pages", "gained", "rate", "rate_low", "rate_high", "settled")


def joined(found: pa.Table) -> pa.Table:
    """The table of `leaks.Watch.leaks` with such leaks as one row each, their numbers summed, and
    ``with``, the stacks of the others and what each of them gained, most first.

    A table that has no stacks is returned as it is.
    """
    if "stack" not in found.column_names:
        return found
    rows = found.to_pylist()
    groups: list[list[dict[str, Any]]] = []
    for row in rows:
        kin = next((group for group in groups if _are_kin(group[0], row)), None)
        if kin is None:
            groups.append([row])
        else:
            kin.append(row)
    whole = [_one(group) for group in groups]
    whole.sort(key=lambda row: (row["kind"] != "leak", row["kind"] != "reclaimable",
                                -row["rate_low"] if row["kind"] != "grows" else
                                -(row["stayed"] or 0)))
    schema = found.schema.append(pa.field("with", pa.list_(pa.struct(
        {"stack": pa.string(), "gained": pa.int64()}))))
    return pa.table({name: pa.array([row[name] for row in whole], schema.field(name).type)
                     for name in schema.names}, schema=schema)


def _are_kin(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both leak, through the same process and the same call; or the other one is cache of
    that process which comes with the leak."""
    if row["kind"] != "leak" or row["stack"] is None or other["stack"] is None:
        return False
    whose = _whose(row)
    if whose is None or whose != _whose(other):
        return False
    shared = _shared(row["stack"], other["stack"])
    if other["kind"] == "reclaimable":  # the leak keeps the kernel from taking it back
        return shared >= _OWN_WAY
    return other["kind"] == "leak" and shared > 0


def _whose(row: dict[str, Any]) -> int | None:
    """The process that allocated more than half of what is known of a row; None if none did."""
    tasks: Sequence[dict[str, Any]] = row["tasks"]
    known = sum(task["pages"] for task in tasks)
    return tasks[0]["tgid"] if tasks and 2 * tasks[0]["pages"] > known else None


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
    group = sorted(group, key=lambda row: (row["kind"] != "leak",
                                           len(functions(row["stack"])) - shared, -row["gained"]))
    first, others = group[0], group[1:]
    sums = {name: sum(row[name] for row in group) for name in _SUMS}
    stayed = None if first["stayed"] is None else sum(row["stayed"] or 0 for row in group)
    series = [sum(numbers) for numbers in zip(*(row["series"] for row in group), strict=True)]
    tasks: dict[tuple[str | None, int | None], int] = {}
    for task in (task for row in group for task in row["tasks"]):
        name = task["comm"], task["tgid"]
        tasks[name] = tasks.get(name, 0) + task["pages"]
    whose = [{"comm": comm, "tgid": tgid, "pages": pages} for (comm, tgid), pages
             in sorted(tasks.items(), key=lambda task: -task[1])]
    told = [{"stack": row["stack"], "gained": row["gained"]}
            for row in sorted(others, key=lambda row: -row["gained"])]
    return first | sums | {"stayed": stayed, "series": series, "tasks": whose, "with": told}
