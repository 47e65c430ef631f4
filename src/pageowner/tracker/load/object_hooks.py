"""The hooks on objects attached, each program loaded for itself beside the tracker's maps."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pageowner.model.hook_states import ATTACHED
from pageowner.model.object_hooks import OBJECT_HOOKS
from pageowner.tracker.load.libbpf import BpfError

if TYPE_CHECKING:
    from pageowner.model.object_hooks import ObjectHook
    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.load.loading import Tracker

__all__ = ["attach_objects"]

_NOT_THERE = 255

_PLACES = {"object_gfp": "gfp_flags", "object_requested": "bytes_req",
           "object_bytes": "bytes_alloc", "object_of_cache": "s"}
"""Parameters of the programs, and the argument whose place each is."""


def attach_objects(tracker: Tracker, directory: str | None, skip: int) -> dict[str, str]:
    """Attach what this kernel allows and pin the links (``link_NAME``); name to ``attached`` or
    why not, as in `hook_states`.

    ``skip``: the frames of tracing at the top of a stack of a tracepoint. Raises BpfError where a
    hook is refused without which nothing is known of slabs.
    """
    tracker.skip_frames(dict.fromkeys(("kmalloc", "cache_alloc", "percpu_alloc"), skip))
    states: dict[str, str] = {}
    for hook in OBJECT_HOOKS:
        if states.get(hook.only_without) == ATTACHED:
            continue
        state = _attach(tracker, hook, directory)
        if state is not None:
            states[hook.name] = state
    return states


def _attach(tracker: Tracker, hook: ObjectHook, directory: str | None) -> str | None:
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
                              {**values, "hold": int(tracker.may_hold)})
        if directory is not None:
            tracker.bpf.pin(link.fd, f"{directory}/link_{hook.name}")
    except BpfError as error:
        if not hook.lost:
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
