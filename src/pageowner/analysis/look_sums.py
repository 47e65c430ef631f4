"""A look at the running tracker as a snapshot of sums by stack and task: a hundredth of a capture's
size and time, for when there is neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pageowner.model.metadata import Metadata
from pageowner.model.snapshot import Snapshot
from pageowner.model.source_kinds import TRACKER_SUMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pageowner.model.live import Look

__all__ = ["FIELDS", "grown", "sums_by_stack", "sums_of_look"]

FIELDS = ("stack", "task")
_OF_FRAMES = ("free", "filtered", "in_motion")


def sums_of_look(look: Look, pages: Mapping[str, int], about: Mapping[str, Any]) -> Snapshot:
    """A row for each stack and task with ``blocks`` and, as ``amount``, pages, the largest first;
    and one for each state of ``pages`` that has no owners. What is free, left out by a filter, or
    was being written has none, as in a capture. ``about``: fields of the metadata.
    """
    stack_codes, stacks = look.fields["stack"]
    task_codes, tasks = look.fields["task"]
    order = np.argsort(-look.pages, kind="stable")
    owners = [tasks[code] for code in task_codes[order].tolist()]
    rest = [(state, number) for state, number in pages.items()
            if number > 0 and state in ("early", "untracked")]
    frames = {name: number for name, number in pages.items() if name in _OF_FRAMES}
    none = [None] * len(rest)
    return Snapshot.from_columns({
        "stack": pa.array([stacks[code] for code in stack_codes[order].tolist()] + none,
                          pa.string()),
        "comm": pa.array([None if task is None else task[0] for task in owners] + none,
                         pa.string()),
        "tgid": pa.array([None if task is None else task[1] for task in owners] + none,
                         pa.int32()),
        "pid": pa.array([None if task is None else task[2] for task in owners] + none, pa.int32()),
        "state": ["owned"] * len(order) + [state for state, _ in rest],
        "blocks": np.concatenate([look.blocks[order], np.zeros(len(rest), np.int64)]),
        "amount": np.concatenate([look.pages[order],
                                  np.array([number for _, number in rest], np.int64)])},
        Metadata(kind=TRACKER_SUMS, clock_ns=look.time_ns, frames=frames, **about))


def sums_by_stack(look: Look) -> dict[str | None, int]:
    """Pages by stack."""
    codes, stacks = look.fields["stack"]
    pages = np.bincount(codes, look.pages, max(len(stacks), 1)).astype(np.int64).tolist()
    found: dict[str | None, int] = {}
    for stack, number in zip(stacks, pages, strict=False):
        found[stack] = found.get(stack, 0) + number
    return found


def grown(before: Mapping[str | None, int], now: Mapping[str | None, int],
          pages: int) -> list[tuple[str | None, int]]:
    """The stacks that have so many pages more now, and how many, most first."""
    found = [(stack, number - before.get(stack, 0)) for stack, number in now.items()
             if number - before.get(stack, 0) >= pages]
    return sorted(found, key=lambda stack_and_pages: -stack_and_pages[1])
