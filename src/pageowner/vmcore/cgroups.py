"""The cgroups that pages are charged to, by number and path, as /proc/kpagecgroup and the cgroup
file system have them (mm/memcontrol.c, page_cgroup_ino; include/linux/kernfs.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.cgroups import Cgroups
from pageowner.kernel.task_names import to_text
from pageowner.kernel_memory.access import offset, strings
from pageowner.vmcore.structs import value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore

__all__ = ["Charges"]

_OBJECTS, _KERNEL, _FLAGS = 1, 2, 7
"""MEMCG_DATA_OBJEXTS (before 6.10 _OBJCGS), MEMCG_DATA_KMEM, and the bits below a pointer."""
_ONLINE = 2
"""CSS_ONLINE."""
_DEEPEST = 64


class Charges:
    """Each memcg_data is followed once; ``unknown`` counts those that lead to no cgroup."""

    def __init__(self, memory: Vmcore) -> None:
        self._memory = memory
        self._inodes: dict[int, int] = {0: 0}
        self._nodes: dict[int, int] = {}
        self.unknown = 0

    def inodes(self, data: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The inode of the first cgroup upwards that is online; 0 for what is not charged."""
        distinct, places = np.unique(data, return_inverse=True)
        for item in distinct.tolist():
            if item not in self._inodes:
                try:
                    self._inodes[item] = self._inode(item)
                except PageownerError:
                    self._inodes[item] = 0
                    self.unknown += 1
        table = np.array([self._inodes[item] for item in distinct.tolist()], np.uint64)
        return table[places.reshape(data.shape)]

    def _inode(self, data: int) -> int:
        if data & _OBJECTS or not data & ~_FLAGS:
            return 0
        memory, group = self._memory, data & ~_FLAGS
        if data & _KERNEL or not self._is_group(group):
            group = value(memory, group, "obj_cgroup", "memcg")
        if not self._is_group(group):
            raise PageownerError("it leads to no cgroup")
        state = group + offset(memory.types, "mem_cgroup", "css")
        for _ in range(_DEEPEST):
            if not state or value(memory, state, "cgroup_subsys_state", "flags") & _ONLINE:
                break
            state = value(memory, state, "cgroup_subsys_state", "parent")
        if not state:
            return 0
        cgroup = value(memory, state, "cgroup_subsys_state", "cgroup")
        node = value(memory, cgroup, "cgroup", "kn")
        inode = value(memory, node, "kernfs_node", "id")
        self._nodes[inode] = node
        return inode

    def _is_group(self, group: int) -> bool:
        ours = self._memory.symbol("memory_cgrp_subsys")
        if ours is None:
            return True
        try:
            return value(self._memory, group, "mem_cgroup", "css.ss") == ours
        except PageownerError:
            return False

    def paths(self) -> Cgroups:
        """The paths of all that were met."""
        found = Cgroups(origin="vmcore")
        for inode, node in self._nodes.items():
            try:
                found.known[inode] = self._path(node)
            except PageownerError:
                continue  # shown by its number
        return found

    def _path(self, node: int) -> str:
        memory, parts = self._memory, list[str]()
        for _ in range(_DEEPEST):
            above = value(memory, node, "kernfs_node", "__parent", "parent")
            if not above:
                return "/" + "/".join(reversed(parts))
            (name,) = strings(memory, np.array(
                [value(memory, node, "kernfs_node", "name")], np.uint64), 256)
            if name is None:
                break
            parts.append(to_text(name))
            node = above
        raise PageownerError("a cgroup's path has no end")
