"""The hooks on objects attached, each program loaded for itself beside the tracker's maps."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from pageowner.kernel import slabs
from pageowner.model.hook_states import ATTACHED, NESTED
from pageowner.model.object_hooks import OBJECT_HOOKS
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.read.layout import NOT_BEGUN

if TYPE_CHECKING:
    from pageowner.model.object_hooks import ObjectHook
    from pageowner.tracker.load.calibrate import Calibration
    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.load.loading import Tracker

__all__ = ["attach_objects"]

_NOT_THERE = 255

_PLACES = {"object_gfp": "gfp_flags", "object_requested": "bytes_req",
           "object_bytes": "bytes_alloc", "object_of_cache": "s"}
"""Parameters of the programs, and the argument whose place each is."""


_ON_TRACEPOINTS = ("kmalloc", "cache_alloc", "percpu_alloc")
_ITERATED = ("kmalloc", "kmem_cache_alloc", "percpu_alloc_percpu")
"""Tracepoints whose programs take stacks."""
_HOOKS = (*_ON_TRACEPOINTS, "objects_in_bulk")
"""Those that take stacks, as records.h has them (enum hook)."""


def attach_objects(tracker: Tracker, directory: str | None, found: Calibration,
                   twice: bool) -> dict[str, Any]:
    """Attach what this kernel allows and pin the links (``link_NAME``). With ``twice``, each
    program has a second copy, for what interrupts allocate and free while it is at work (NAME and
    `NESTED`). Facts: ``object_hooks``, by name ``attached`` or why not, as in `hook_states`;
    ``missed_before_objects``, how many events, if any, each was too busy for before all were
    attached; ``objects_before``, the objects in use of each cache then, by the kernel's own count.

    Objects are kept from when all are attached. Raises BpfError where a hook is refused without
    which nothing is known of slabs.
    """
    every = [f"{prefix}{name}" for prefix in ("", "nested_") for name in _HOOKS]
    tracker.skip_frames(dict.fromkeys(every, NOT_BEGUN))
    states: dict[str, str] = {}
    for hook in OBJECT_HOOKS:
        if states.get(hook.only_without) != ATTACHED:
            states |= _attach_both(tracker, hook, directory, found, twice)
    before = {name: number for name in states if (number := _missed(tracker, name))}
    tracker.skip_frames({name: found.skip if name.endswith(_ON_TRACEPOINTS) else 0
                         for name in every})
    return {"object_hooks": states, "missed_before_objects": before,
            "objects_before": {name: number for name, number in slabs.in_use().items() if number}}


def _attach_both(tracker: Tracker, hook: ObjectHook, directory: str | None, found: Calibration,
                 twice: bool) -> dict[str, str]:
    """The states of a hook and its second copy, by name; none where the kernel has no such thing.

    The programs of a tracepoint run in the order in which they are attached (kernel/tracepoint.c,
    func_add), those of a function in the reverse order (kernel/bpf/trampoline.c, hlist_add_head).
    """
    states: dict[str, str] = {}
    for copy in ((NESTED, "") if hook.functions else ("", NESTED)) if twice else ("",):
        if copy and hook.name in states and states[hook.name] != ATTACHED:
            continue
        if copy and hook.name in _ITERATED and not found.knows_iterators_of_objects():
            state: str | None = f"missing: __traceiter_{hook.name} is not in /proc/kallsyms"
        else:
            state = _attach(tracker, hook, directory, twice, copy)
        if state is not None:
            states[hook.name + copy] = state
    if states.get(hook.name) != ATTACHED and (states.pop(hook.name + NESTED, "") == ATTACHED):
        tracker.links.pop(hook.name + NESTED).close()
        if directory is not None:
            os.unlink(f"{directory}/link_{hook.name}{NESTED}")
    return states


def _missed(tracker: Tracker, name: str) -> int:
    link = tracker.links.get(name)
    if link is None:
        return 0
    program = tracker.bpf.program_by_id(tracker.bpf.link_info(link.fd).program_id)
    try:
        return tracker.bpf.program_info(program).recursion_misses
    finally:
        os.close(program)


def _attach(tracker: Tracker, hook: ObjectHook, directory: str | None, twice: bool,
            copy: str) -> str | None:
    traced, names = _arguments(tracker.bpf, hook)
    if names is None or not set(hook.needs) <= set(names):
        if hook.newer and not (hook.with_type and tracker.bpf.has_type(hook.with_type)):
            return None
        what = traced if hook.functions else f"the tracepoint {hook.name} as it is known"
        if not hook.lost:
            raise BpfError(errno.EOPNOTSUPP, f"this kernel has not {what}; objects need Linux 6.1")
        return f"missing: this kernel has not {what}"
    values = {parameter: names.index(argument) if argument in names else _NOT_THERE
              for parameter, argument in _PLACES.items()} if not hook.functions else {
                  "object_result_bytes": tracker.bpf.result_bytes(traced)}
    try:
        link = tracker.attach(hook.program, traced if hook.functions else None,
                              {**values, "hold": int(tracker.may_hold), "twice": int(twice),
                               "second": int(bool(copy))}, hook.name + copy)
        if directory is not None:
            tracker.bpf.pin(link.fd, f"{directory}/link_{hook.name}{copy}")
    except BpfError as error:
        if not (hook.lost or copy):
            raise
        if hook.functions and error.errno in (errno.EPERM, errno.EACCES):
            return f"refused: the kernel does not let BPF trace {traced}"
        return f"refused: {error.strerror}"
    return ATTACHED


def _arguments(bpf: Libbpf, hook: ObjectHook) -> tuple[str, list[str] | None]:
    """What is traced, and the names of its arguments; None where the kernel has it not."""
    if not hook.functions:
        names = bpf.function_parameters(f"__traceiter_{hook.name}")
        return hook.name, None if names is None else names[1:]  # the first is the tracer's own
    for function in hook.functions:
        names = bpf.function_parameters(function)
        if names is not None:
            return function, names
    return " or ".join(hook.functions), None
