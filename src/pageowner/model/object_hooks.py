"""The hooks on objects of slabs and of the percpu allocator, each declared once: what it is
attached to, which counter shows it at work, and what is not seen without it.

Tracepoints of include/trace/events/kmem.h and percpu.h, whose arguments are found by name:

===== ===========================================================================================
since what changed
===== ===========================================================================================
5.19  ``percpu_alloc_percpu`` has the call site, the bytes taken and the gfp flags
6.0   ``kmem_cache_alloc`` has the cache
6.1   ``kmalloc_node`` and ``kmem_cache_alloc_node`` are gone: one tracepoint for all
6.18  ``kfree_rcu()`` of caches with sheaves goes past every tracepoint (mm/slub.c); in 7.x all have
===== ===========================================================================================

Objects are allocated and freed in bulk past the tracepoints (``kfree_rcu()``, the network's
buffers): that is seen where BPF may trace the functions.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALLOCATED_BY", "FREED_BY", "OBJECT_HOOKS", "ObjectHook"]


@dataclass(frozen=True)
class ObjectHook:
    """A row of the table.

    - ``name``: of the tracepoint, or of what its functions do
    - ``program``: of tracker/bpf/objects.bpf.h, which may be there twice (`hook_states.NESTED`)
    - ``seen_by``: the counter (enum counter in records.h) that shows it at work
    - ``lost``: what is not seen without it; empty where nothing is known of slabs then
    - ``needs``: arguments of the tracepoint without which it cannot do its work
    - ``functions``: it traces the first of these that BTF knows; none: it is on the tracepoint
    - ``newer``: other kernels have no such thing and miss nothing, unless they have a struct of the
      name ``with_type``
    - ``only_without``: a hook that sees the same and more
    """

    name: str
    program: str
    seen_by: str
    lost: str = ""
    needs: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    newer: bool = False
    with_type: str = ""
    only_without: str = ""

    @property
    def seen_by_second(self) -> str:
        """The counter that shows the second copy of the program at work."""
        return f"objects_nested_{self.seen_by.removeprefix('objects_')}"


_STAY = "are counted until something else is in their place"

# Those on frees first: a free of what was not seen allocated does no harm.
OBJECT_HOOKS = (
    ObjectHook("kfree", "on_kfree", "objects_kfree", needs=("ptr",)),
    ObjectHook("kmem_cache_free", "on_cache_free", "objects_cache_free", needs=("ptr",)),
    ObjectHook("kmem_cache_free_bulk", "on_free_bulk", "objects_bulk_free",
               f"objects freed in bulk (kfree_rcu, network buffers) {_STAY}",
               functions=("kmem_cache_free_bulk",)),
    ObjectHook("kfree_rcu_sheaf", "on_rcu_sheaf", "objects_sheaf_free",
               f"objects freed by kfree_rcu {_STAY}", functions=("__kfree_rcu_sheaf",),
               newer=True, with_type="slab_sheaf"),
    ObjectHook("rcu_invoke_kfree_bulk_callback", "on_rcu_free", "objects_rcu_free",
               f"objects freed by kfree_rcu {_STAY}", needs=("nr_records", "p"), newer=True,
               only_without="kmem_cache_free_bulk"),
    ObjectHook("percpu_free_percpu", "on_percpu_free", "objects_percpu_free",
               f"percpu objects that are freed {_STAY}", needs=("ptr",)),
    ObjectHook("kmalloc", "on_kmalloc", "objects_kmalloc",
               needs=("bytes_req", "bytes_alloc", "gfp_flags", "node")),
    ObjectHook("kmem_cache_alloc", "on_cache_alloc", "objects_cache",
               needs=("s", "gfp_flags", "node")),
    ObjectHook("kmem_cache_alloc_bulk", "on_alloc_bulk", "objects_bulk",
               "objects allocated in bulk (network buffers) are not seen",
               functions=("kmem_cache_alloc_bulk_noprof", "kmem_cache_alloc_bulk")),
    ObjectHook("percpu_alloc_percpu", "on_percpu_alloc", "objects_percpu",
               "percpu memory is not seen", needs=("call_site", "bytes_alloc", "gfp_flags")),
)
"""All of them, in the order in which they are attached."""

ALLOCATED_BY = ("objects_kmalloc", "objects_cache", "objects_percpu", "objects_bulk")
FREED_BY = tuple(hook.seen_by for hook in OBJECT_HOOKS if hook.seen_by not in ALLOCATED_BY)
"""Counters of objects seen allocated, and seen freed, each by one hook."""
