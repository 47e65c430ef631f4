"""Who has most of each slab cache, of the objects that are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.analysis.keys import blocks_pages, key
from pageowner.analysis.subsystems import distinctive_frame
from pageowner.model.memory_facts import SlabUser

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot

__all__ = ["slab_users"]


def slab_users(objects: Snapshot) -> dict[str, SlabUser]:
    """By cache, the function and task that have most of its memory, of the objects in a capture of
    objects. Objects without a cache or a stack are left out."""
    cache, stack, comm = (key(objects, name) for name in ("cache", "stack", "comm"))
    functions = [None if text is None else distinctive_frame(text)
                 for text in stack.labels.to_pylist()]
    names = list(dict.fromkeys(functions)) or [None]
    place = np.array([names.index(function) for function in functions] or [0], np.int64)
    width, tasks = max(len(names), 1), max(len(comm.labels), 1)
    owner = (cache.codes * width + place[stack.codes]) * tasks + comm.codes
    owners, at = np.unique(owner, return_inverse=True)
    sizes = np.bincount(at, blocks_pages(objects), len(owners)) if len(owners) else np.zeros(0)
    whole = np.bincount(cache.codes, blocks_pages(objects), len(cache.labels))
    found: dict[str, SlabUser] = {}
    for number in np.argsort(-sizes, kind="stable").tolist():
        of, task = divmod(int(owners[number]), tasks)
        of, function = divmod(of, width)
        label, name = cache.labels[of].as_py(), names[function]
        if label is not None and name is not None and label not in found and whole[of]:
            found[label] = SlabUser(name, comm.labels[task].as_py(),
                                    float(sizes[number] / whole[of]), int(whole[of]))
    return found
