"""Stacks and tasks of the tracker's tables as texts: the one place where they are decoded, but for
`tracker.single`, which does without NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.kernel.task_names import to_text
from pageowner.tracker.read import reading
from pageowner.tracker.read.records import without_tracing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.kernel.kallsyms import Kallsyms, RunningKallsyms
    from pageowner.tracker.read.maps import Store

__all__ = ["StackTexts", "Task", "encoded", "stacks", "tasks"]


class Task(NamedTuple):
    """A task as the kernel named it at its last allocation."""

    comm: str
    tgid: int
    pid: int


def stacks(store: Store, symbols: Kallsyms, ids: NDArray[np.uint32]) -> list[str | None]:
    """The text of each stack, without frames of tracing itself; None for id 0, for one that the
    table does not have, and for one that is being written."""
    table = store.stacks
    entries = table[np.where(ids < len(table), ids, 0)]
    depth = np.arange(store.depth)
    n = np.where((ids > 0) & (ids < len(table)), entries["n"], 0)
    frames = np.where(depth[None, :] < n[:, None], entries["frames"], 0)
    return [without_tracing(text.split("\n")) for text in symbols.stacks(frames)]


class StackTexts:
    """Stacks by id, each decoded once, by the symbols of when it is first asked for: a slot keeps
    its stack, and the modules of that time are those that were on it, if any is."""

    def __init__(self, store: Store, running: RunningKallsyms) -> None:
        self._store, self._running = store, running
        self._known: dict[int, str | None] = {0: None}

    def of(self, ids: Iterable[int]) -> list[str | None]:
        """The text of each, as `stacks` has it; one that is being written is asked for again."""
        ids = list(ids)
        new = [stack_id for stack_id in dict.fromkeys(ids) if stack_id not in self._known]
        if new:
            self._running.renew()
            texts = stacks(self._store, self._running.symbols, np.array(new, np.uint32))
            self._known.update((stack_id, text) for stack_id, text in zip(new, texts, strict=True)
                               if text is not None)
        return [self._known.get(stack_id) for stack_id in ids]


def tasks(store: Store, ids: NDArray[np.uint32]) -> list[Task | None]:
    """The task of each id; None where another one has its place in the table since."""
    entries, known = reading.known_tasks(store.tasks, ids)
    return [Task(to_text(comm), tgid, pid) if there else None for comm, tgid, pid, there in zip(
        entries["comm"].tolist(), entries["tgid"].tolist(), entries["pid"].tolist(),
        known.tolist(), strict=True)]


def encoded(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Each value's place among the distinct ones, and these."""
    found = pa.array(values).dictionary_encode()
    return found.indices.to_numpy().astype(np.int64), found.dictionary.to_numpy()
