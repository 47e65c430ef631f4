"""Figures of a snapshot, of a look at the running tracker, and of the kernel's own counters."""

from __future__ import annotations

import calendar
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pageowner.analysis.owners import owners
from pageowner.analysis.subsystems import distinctive_frame, module_of, stack_identity, subsystem
from pageowner.kernel.containers import OF_PATH
from pageowner.model.live import OBJECT_KEYS, seen
from pageowner.model.schema import KEYS
from pageowner.model.source_kinds import OBJECTS
from pageowner.report.text import cut, printable
from pageowner.server.figures import MOST_LEAKS, MOST_OWNERS, Growth, StackOwner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa

    from pageowner.analysis.balance import Balance
    from pageowner.model.live import Health, Look
    from pageowner.model.snapshot import Snapshot

__all__ = ["of_balance", "of_health", "of_leaks", "of_look", "of_snapshot", "stack_id"]

_LONGEST = 200  # characters of a name: labels are kept for as long as a database of metrics lives
NO_STACK = "none"
NO_CGROUP = "none"


def stack_id(stack: str | None) -> str:
    """The identity of a stack as text."""
    return NO_STACK if stack is None else f"{stack_identity(stack):016x}"


def name_of(text: str) -> str:
    """A name that may be hostile as a label: printable, and not too long (`cut`)."""
    return cut(printable(text), _LONGEST, text)


def of_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """Fields of `Figures`."""
    unit, meta = snapshot.meta.page_size, snapshot.meta

    def sums(by: str) -> dict[Any, int]:
        table = owners(snapshot, by)
        return {value: pages * unit for value, pages in zip(
            table[by].to_pylist(), table["pages"].to_pylist(), strict=True)}

    states = {str(name or "owned"): pages for name, pages in sums("state").items()}
    if "free" in meta.frames:
        states["free"] = meta.frames["free"] * unit
    taken = None
    if meta.taken_at:
        with suppress(ValueError):
            taken = float(calendar.timegm(time.strptime(meta.taken_at, "%Y-%m-%dT%H:%M:%SZ")))
    counters: dict[str, float] = {"damaged": meta.counters.get("damaged", 0)}
    keys = list(OBJECT_KEYS if meta.kind == OBJECTS else KEYS)
    return {"taken": taken, "keys": keys, "states": states, "health": counters,
            **_named(sums("subsystem"), {} if meta.kind == OBJECTS else sums("memcg"),
                     sums("stack").items(), meta.container_names())}


def of_look(look: Look, health: Health, page_size: int, names: Mapping[str, str]
            ) -> dict[str, Any]:
    """Fields of `Figures`. The look has stacks and cgroups; ``names``: of containers, by id."""
    import numpy as np

    def sums(name: str) -> dict[Any, int]:
        codes, labels = look.fields[name]
        pages = np.bincount(codes, look.pages, max(len(labels), 1)).astype(np.int64)
        found: dict[Any, int] = {}
        for label, number in zip(labels, (pages * page_size).tolist(), strict=False):
            found[label] = found.get(label, 0) + number
        return found

    stacks = sums("stack")
    uses: dict[Any, int] = {}
    for stack, number in stacks.items():
        use = "unknown" if stack is None else subsystem(stack)
        uses[use] = uses.get(use, 0) + number
    # The health is of some moments later; what owners have is the sum of the look's own.
    states = {name: pages * page_size for name, pages in health.pages.items()}
    return {"states": states | {"owned": sum(stacks.values())},
            **_named(uses, sums("memcg"), stacks.items(), names)}


def _named(uses: Mapping[Any, int], cgroups: Mapping[Any, int],
           stacks: Iterable[tuple[str | None, int]], names: Mapping[str, str]) -> dict[str, Any]:
    named: dict[str, int] = {}
    within: dict[str, list[str]] = {}
    for name, number in cgroups.items():
        label = NO_CGROUP if name is None else name_of(str(name))
        named[label] = named.get(label, 0) + number
        pod, container = (OF_PATH[word](name, names) for word in ("pod", "container"))
        if pod or container:
            within[label] = [name_of(pod or ""), name_of(container or "")]
    largest, other = _largest(named)
    by_id: dict[str, tuple[str | None, int]] = {}
    for stack, number in stacks:
        identity = stack_id(stack)
        by_id[identity] = stack, by_id.get(identity, (None, 0))[1] + number
    sizes, rest = _largest({identity: number for identity, (_, number) in by_id.items()})
    return {"subsystems": {"unknown" if use is None else name_of(str(use)): number
                           for use, number in uses.items()},
            "cgroups": largest if set(largest) != {NO_CGROUP} else {}, "other_cgroups": other,
            "containers": {name: within[name] for name in largest if name in within},
            "stacks": [StackOwner(identity, *words_of(by_id[identity][0]), number)
                       for identity, number in sizes.items()], "other_stacks": rest}


def words_of(stack: str | None) -> tuple[str, str, str]:
    """Function, module and subsystem of a stack."""
    if stack is None:
        return "", "", ""
    frame = distinctive_frame(stack).partition(" [")[0].partition("+")[0]
    return name_of(frame or "unknown"), name_of(module_of(stack)), name_of(subsystem(stack))


def _largest(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """The largest, most first, and the sum of the others."""
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    return ({name: sizes[name] for name in order[:MOST_OWNERS]},
            sum(sizes[name] for name in order[MOST_OWNERS:]))


def of_leaks(table: pa.Table, page_size: int) -> list[Growth]:
    """What `leaks` found by stack, the first of it: a table of `Watch.leaks`."""
    found = []
    for row in table.slice(0, MOST_LEAKS).to_pylist():
        rate, low, high = (row[name] * page_size / 3600
                           for name in ("rate", "rate_low", "rate_high"))
        found.append(Growth(
            row["kind"], stack_id(row["stack"]), *words_of(row["stack"]),
            name_of(row["program"] or ""), name_of(row["note"] or ""), rate, low, high,
            row["confidence"], row["gained"] * page_size, list(row["failed"])))
    return found


def of_health(health: Health, counters: Mapping[str, int],
              memo: Mapping[str, int]) -> dict[str, float]:
    """The tracker's own state, by the names that `metrics` knows."""
    allocs, frees = seen(counters)
    return {"hooks": health.hooks, "all_hooks": health.all_hooks, "missed": health.missed,
            "lost": health.lost, "stale": health.stale, "checked": health.checked,
            "memory": health.memory, "allocs": allocs, "frees": frees,
            "memo_different": memo.get("differences", 0), "memo_checks": memo.get("checks", 0)}


def of_balance(found: Balance) -> dict[str, Any]:
    """Fields of `Figures`."""
    return {"balance": {row.key: row.bytes for row in found.rows}, "total": found.total,
            "available": found.available}
