"""Slab caches as /proc/slabinfo has them, out of a dump.

mm/slub.c of 6.1, 6.12 and 7.3 (get_slabinfo, count_partial; struct kmem_cache_node): a node counts
its slabs and their objects with CONFIG_SLUB_DEBUG (in 7.3 each stands beside others of its node, in
``per_node``); ``oo`` has the order of a slab above its 16
lower bits, which are its objects. Free objects are counted on the lists of partly used slabs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.slabs import SlabCache
from pageowner.kernel_memory.access import member, offset, strings, symbol, word
from pageowner.vmcore.structs import has, linked, place, value

if TYPE_CHECKING:
    from pageowner.vmcore.memory import Vmcore

__all__ = ["slab_caches"]

_OBJECTS = 0xFFFF
"""OO_MASK."""
_MOST_CACHES = 1 << 14
_MOST_ORDER = 16
_RECLAIM = 0x20000
"""SLAB_RECLAIM_ACCOUNT before 6.9, which is no enumerator."""
_MOST_PARTIAL = 10_000
"""Slabs of a list that are looked at; of a longer one the rest counts as the mean of these."""


def slab_caches(memory: Vmcore) -> tuple[list[SlabCache], set[str]]:
    """All of them, and the names of those whose pages count as reclaimable. Raises PageownerError
    where the kernel does not count slabs, or its structures are not as they should be."""
    if not has(memory, "kmem_cache_node", "nr_slabs"):
        raise PageownerError("its kernel does not count the slabs of caches (CONFIG_SLUB_DEBUG)")
    bit = memory.types.enumerator("_slab_flag_bits", "_SLAB_RECLAIM_ACCOUNT")
    reclaim = _RECLAIM if bit is None else 1 << (bit & 31)
    at = offset(memory.types, "kmem_cache", "list")
    found, reclaimable = list[SlabCache](), set[str]()
    for link in linked(memory, symbol(memory, "slab_caches")):
        if len(found) == _MOST_CACHES:
            raise PageownerError("the kernel's list of slab caches has no end")
        cache = link - at
        pointer = np.array([value(memory, cache, "kmem_cache", "name")], np.uint64)
        (raw,) = strings(memory, pointer, 64)
        name = (raw or b"?").decode("utf-8", "backslashreplace")
        found.append(_cache(memory, cache, name))
        if value(memory, cache, "kmem_cache", "flags") & reclaim:
            reclaimable.add(name)
    return found, reclaimable


def _cache(memory: Vmcore, cache: int, name: str) -> SlabCache:
    layout = value(memory, cache, "kmem_cache", "oo")
    order, each = layout >> 16 & 0xFFFF, layout & _OBJECTS
    if order > _MOST_ORDER:
        raise PageownerError(f"the slab cache at {cache:#x} is damaged")
    slabs = objects = free = 0
    for node in _nodes(memory, cache):
        slabs += value(memory, node, "kmem_cache_node", "nr_slabs")
        objects += value(memory, node, "kmem_cache_node", "total_objects")
        free += _free(memory, node)
    return SlabCache(name, max(objects - free, 0), objects,
                     value(memory, cache, "kmem_cache", "size"), slabs << order, each, 1 << order)


def _nodes(memory: Vmcore, cache: int) -> list[int]:
    """Addresses of the nodes of a cache."""
    types = memory.types
    table = member(types, "kmem_cache", "node", "per_node")
    each = 8 if types.member("kmem_cache", "node") else types.size("kmem_cache_per_node_ptrs") or 8
    first = table.offset if types.member("kmem_cache", "node") else table.offset + offset(
        types, "kmem_cache_per_node_ptrs", "node")
    count = min(table.size // each, word(memory, symbol(memory, "nr_node_ids"), "<u4")
                if memory.symbol("nr_node_ids") is not None else 1)
    found = [word(memory, cache + first + each * number) for number in range(count)]
    return [node for node in found if node]


def _free(memory: Vmcore, node: int) -> int:
    """Free objects in the slabs that are partly used."""
    types = memory.types
    struct = "slab" if types.member("slab", "slab_list") is not None else "page"
    at = offset(types, struct, "slab_list")
    used, all_of = (member(types, struct, name) for name in ("inuse", "objects"))
    first = min(used.first_bit, all_of.first_bit) // 32
    free = 0
    partial = linked(memory, place(memory, node, "kmem_cache_node", "partial"))
    for looked, link in enumerate(partial, 1):
        bits = word(memory, link - at + 4 * first)
        there, taken = (bits >> field.first_bit - 32 * first & (1 << field.bits) - 1
                        for field in (all_of, used))
        free += max(there - taken, 0)
        if looked == _MOST_PARTIAL:
            return free * max(value(memory, node, "kmem_cache_node", "nr_partial"),
                              looked) // looked
    return free
