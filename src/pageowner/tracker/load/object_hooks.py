"""The hooks on objects of slabs and of the percpu allocator, where they are asked for.

Each program is loaded for itself, beside the maps of the tracker, with the places of the arguments
as this kernel's tracepoint has them (include/trace/events/kmem.h):

========= ==========================================================================================
since     what changed
========= ==========================================================================================
5.19      ``percpu_alloc_percpu`` has the call site, the bytes taken and the gfp flags
6.0       ``kmem_cache_alloc`` has the cache
6.1       ``kmalloc_node`` and ``kmem_cache_alloc_node`` are gone: one tracepoint each
6.18      ``kfree_rcu()`` of caches with sheaves goes past every tracepoint (mm/slub.c)
========= ==========================================================================================

Objects are freed in bulk (``kfree_rcu()``, the network's buffers) past the tracepoints too: that is
seen where BPF may trace the function, or the kernel has CONFIG_RCU_TRACE.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pageowner.model.hook_states import ATTACHED
from pageowner.tracker.load.libbpf import BpfError

if TYPE_CHECKING:
    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.load.loading import Tracker

__all__ = ["OBJECT_HOOKS", "REQUIRED", "attach_objects"]

_NOT_THERE = 255


@dataclass(frozen=True)
class _Hook:
    """``program`` on the tracepoint ``name``, or on the first of ``functions`` that there is;
    ``needs``: arguments without which it cannot do its work."""

    name: str
    program: str
    functions: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# Those on frees first: a free of what was not seen allocated does no harm.
OBJECT_HOOKS = (
    _Hook("kfree", "on_kfree", needs=("ptr",)),
    _Hook("kmem_cache_free", "on_cache_free", needs=("ptr",)),
    _Hook("kmem_cache_free_bulk", "on_free_bulk", ("kmem_cache_free_bulk",)),
    _Hook("kfree_rcu_sheaf", "on_rcu_sheaf", ("__kfree_rcu_sheaf",)),
    _Hook("rcu_invoke_kfree_bulk_callback", "on_rcu_free", needs=("nr_records", "p")),
    _Hook("percpu_free_percpu", "on_percpu_free", needs=("ptr",)),
    _Hook("kmalloc", "on_kmalloc", needs=("bytes_req", "bytes_alloc", "gfp_flags", "node")),
    _Hook("kmem_cache_alloc", "on_cache_alloc", needs=("s", "gfp_flags", "node")),
    _Hook("kmem_cache_alloc_bulk", "on_alloc_bulk",
          ("kmem_cache_alloc_bulk_noprof", "kmem_cache_alloc_bulk")),
    _Hook("percpu_alloc_percpu", "on_percpu_alloc",
          needs=("call_site", "bytes_alloc", "gfp_flags")),
)

REQUIRED = ("kfree", "kmem_cache_free", "kmalloc", "kmem_cache_alloc")
"""Without these nothing is known of slabs."""

_PLACES = {"object_gfp": "gfp_flags", "object_requested": "bytes_req",
           "object_bytes": "bytes_alloc", "object_of_cache": "s"}
"""Parameters of the programs, and the argument whose place each is."""

_ONLY_WITHOUT = {"rcu_invoke_kfree_bulk_callback": "kmem_cache_free_bulk"}
"""Hooks that see the same as another one, where that is attached."""

_NEWER = ("kfree_rcu_sheaf", "rcu_invoke_kfree_bulk_callback")
"""Hooks on what a kernel may do without: it is not told of where it is not there."""


def attach_objects(tracker: Tracker, directory: str | None, skip: int) -> dict[str, str]:
    """Attach what this kernel allows and pin the links (``link_NAME``); name to ``attached`` or
    why not, as in `hook_states`.

    ``skip``: the frames of tracing at the top of a stack of a tracepoint. Raises BpfError where one
    of `REQUIRED` is refused.
    """
    tracker.skip_frames(dict.fromkeys(("kmalloc", "cache_alloc", "percpu_alloc"), skip))
    states: dict[str, str] = {}
    for hook in OBJECT_HOOKS:
        if states.get(_ONLY_WITHOUT.get(hook.name, "")) == ATTACHED:
            continue
        state = _attach(tracker, hook, directory)
        if state is not None:
            states[hook.name] = state
    return states


def _attach(tracker: Tracker, hook: _Hook, directory: str | None) -> str | None:
    traced, names = _arguments(tracker.bpf, hook)
    if names is None or not set(hook.needs) <= set(names):
        if hook.name in _NEWER:
            return None
        what = f"the tracepoint {hook.name} as it is known" if not hook.functions else traced
        if hook.name in REQUIRED:
            raise BpfError(errno.EOPNOTSUPP, f"this kernel has not {what}; objects need Linux 6.1")
        return f"missing: this kernel has not {what}"
    values = {parameter: names.index(argument) if argument in names else _NOT_THERE
              for parameter, argument in _PLACES.items()} if not hook.functions else {}
    try:
        link = tracker.attach(hook.program, traced if hook.functions else None,
                              {**values, "hold": int(tracker.may_hold)})
        if directory is not None:
            tracker.bpf.pin(link.fd, f"{directory}/link_{hook.name}")
    except BpfError as error:
        if hook.name in REQUIRED:
            raise
        if hook.functions and error.errno in (errno.EPERM, errno.EACCES):
            return f"refused: the kernel does not let BPF trace {traced}"
        return f"refused: {error.strerror}"
    return ATTACHED


def _arguments(bpf: Libbpf, hook: _Hook) -> tuple[str, list[str] | None]:
    """What is traced, and the names of its arguments; None where the kernel has it not."""
    if not hook.functions:
        names = bpf.function_parameters(f"__traceiter_{hook.name}")
        return hook.name, None if names is None else names[1:]  # the first is the tracer's own
    for function in hook.functions:
        names = bpf.function_parameters(function)
        if names is not None:
            return function, names
    return " or ".join(hook.functions), None
