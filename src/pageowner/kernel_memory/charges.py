"""Which memory cgroup a page is charged to, in the words of the kernel's page owner.

print_page_owner_memcg in mm/page_owner.c of 5.18 to 7.3, and folio_memcg_check in
include/linux/memcontrol.h: bit 0 of memcg_data marks the objects of a slab, bit 1 memory that is
charged through an obj_cgroup. Without bit 1 the rest points to the mem_cgroup, or, since 7.x, to an
obj_cgroup too; a mem_cgroup is known by its subsystem. (Debian's 6.12.118 prints as 7.x would, and
follows a pointer too many: it crashes, where this does not.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.kernel.task_names import to_text
from pageowner.kernel_memory.access import offset, strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.kernel_memory.access import Memory

__all__ = ["SLAB", "Charge", "charges"]

SLAB = "Slab cache page"
_OBJECTS, _KERNEL = np.uint64(1), np.uint64(2)
_FLAGS = np.uint64(7)
"""OBJEXTS_FLAGS_MASK: the bits below a pointer; a third one since 6.10."""
_ONLINE = 2
"""CSS_ONLINE of include/linux/cgroup-defs.h."""
_LONGEST = 79
"""Bytes of a name that the kernel prints."""


class Charge(NamedTuple):
    """``line``: as in a record, None if there is none; ``name``: of the cgroup."""

    line: str | None
    name: str | None


def charges(memory: Memory, data: NDArray[np.uint64]) -> tuple[list[Charge], int]:
    """Of each memcg_data, which are distinct; and how many point to no cgroup that can be read.
    Raises PageownerError where the kernel's types lack what is needed."""
    found = [Charge(None, None)] * len(data)
    for place in np.flatnonzero(data & _OBJECTS != 0).tolist():
        found[place] = Charge(SLAB, None)
    wanted = np.flatnonzero((data & _OBJECTS == 0) & (data & ~_FLAGS != 0))
    if not len(wanted):
        return found, 0
    groups = _groups(memory, data[wanted])
    known = wanted[groups != 0]
    names, online = _names(memory, groups[groups != 0])
    for place, name, is_online in zip(known.tolist(), names, online.tolist(), strict=True):
        if name is not None:
            through = "(via objcg) " if data[place] & _KERNEL else ""
            text = to_text(name)
            found[place] = Charge(
                f"Charged {through}to {'' if is_online else 'offline '}memcg {text}", text)
    return found, sum(found[place].line is None for place in wanted.tolist())


class _Follow:
    """Pointers from structs, followed for many at once; what cannot be read becomes 0."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def __call__(self, address: NDArray[np.uint64], at: int, kind: str = "<u8"
                 ) -> NDArray[np.uint64]:
        raw, good = self.memory.copy(address + np.uint64(at), np.dtype(kind).itemsize)
        found: NDArray[np.uint64] = np.where(
            good & (address != 0), raw.view(kind).ravel().astype(np.uint64), np.uint64(0))
        return found


def _groups(memory: Memory, data: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The mem_cgroup that each leads to; 0 for none."""
    types, follow = memory.types, _Follow(memory)
    subsystem = offset(types, "mem_cgroup", "css") + offset(types, "cgroup_subsys_state", "ss")
    ours = memory.symbol("memory_cgrp_subsys")
    pointer = data & ~_FLAGS
    behind = follow(pointer, offset(types, "obj_cgroup", "memcg"))

    def is_group(address: NDArray[np.uint64]) -> NDArray[np.bool_]:
        there: NDArray[np.bool_] = address != 0
        if ours is not None:
            there &= follow(address, subsystem) == np.uint64(ours)
        return there

    direct = (data & _KERNEL == 0) & is_group(pointer)
    return np.where(direct, pointer, np.where(is_group(behind), behind, np.uint64(0)))


def _names(memory: Memory, groups: NDArray[np.uint64]) -> tuple[
        list[bytes | None], NDArray[np.bool_]]:
    """The names of cgroups, as cgroup_name() gives them: the last part of the path, ``/`` of the
    root; and whether they are online."""
    types, follow = memory.types, _Follow(memory)
    css = groups + np.uint64(offset(types, "mem_cgroup", "css"))
    online = follow(css, offset(types, "cgroup_subsys_state", "flags"), "<u4") & np.uint64(_ONLINE)
    cgroup = follow(css, offset(types, "cgroup_subsys_state", "cgroup"))
    node = follow(cgroup, offset(types, "cgroup", "kn"))
    # since 6.15 __parent
    parent = follow(node, offset(types, "kernfs_node", "parent", "__parent"))
    text = follow(node, offset(types, "kernfs_node", "name"))
    names = strings(memory, text, _LONGEST)
    return ([None if not kn else b"/" if not above else name[:_LONGEST] if name is not None
             else None for name, kn, above in zip(names, node.tolist(), parent.tolist(),
                                                  strict=True)], online != 0)
