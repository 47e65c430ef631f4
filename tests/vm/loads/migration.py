"""Migration between two NUMA nodes: single pages (move_pages), a task's all (migrate_pages)."""

import ctypes
import os
from contextlib import ExitStack
from pathlib import Path

from common import (
    HUGE,
    MADV_HUGEPAGE,
    MIB,
    PAGE,
    CannotLoad,
    Region,
    counters,
    main,
    since,
    small_pages,
    syscall,
)

MPOL_MF_MOVE = 2
COUNTERS = ("pgmigrate_success", "thp_migration_success", "thp_migration_split")


def node_mask(node: int) -> ctypes.Array[ctypes.c_ulong]:
    """A mask with one node in it, as the system calls take it."""
    return (ctypes.c_ulong * 1)(1 << node)


def move_pages(region: Region, node: int, step: int) -> int:
    """Move the page at every `step` bytes; how many are on `node` afterwards."""
    count = region.size // step
    pages = (ctypes.c_void_p * count)(*range(region.start, region.start + region.size, step))
    nodes = (ctypes.c_int * count)(*[node] * count)
    status = (ctypes.c_int * count)()
    syscall("move_pages", "move_pages", 0, count, pages, nodes, status, MPOL_MF_MOVE)
    return sum(where == node for where in status)


def load(held: ExitStack) -> str:
    """Small and huge pages to the other node and back, one part bound to it for good."""
    if not Path("/sys/devices/system/node/node1").exists():
        raise CannotLoad("this machine has one NUMA node")
    before = counters(*COUNTERS)
    small, huge, task = small_pages(24 * MIB), Region(16 * MIB), small_pages(16 * MIB)
    huge.advise(MADV_HUGEPAGE)
    for region in (small, huge, task):
        region.touch()
    moved = move_pages(small, 1, 2 * PAGE)
    moved += move_pages(small, 0, 4 * PAGE)
    moved += move_pages(huge, 1, HUGE)
    task.bind(1, task.size // 2)
    for source, target in ((0, 1), (1, 0)):
        masks = node_mask(source), node_mask(target)
        syscall("migrate_pages", "migrate_pages", os.getpid(), 8, *masks)
    return (
        f"{moved} pages moved one by one, 8 MiB bound to node 1, the task to node 1 and back;"
        f" {since(before, *COUNTERS)}"
    )


if __name__ == "__main__":
    main("migration", load)
