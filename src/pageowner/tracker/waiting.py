"""The second programs, on allocations and on frees, which wait until they are needed.

Two programs on a tracepoint cost more than twice as much as one: the kernel then goes through a
list of them instead of calling the one. The second is there for interrupts that allocate or free
while the first is at work on their CPU: hardly any allocate then, and how many free depends on the
load. So each is loaded and not attached, until the kernel's own count of the runs of the first one
that it left out (``recursion_misses``) says that it was needed; then the next command that looks
attaches it, for good. Until then each such event is counted as missed: an allocation leaves
untracked pages, a free a record whose owner is gone (docs/tracking.md says what becomes of it).

An interrupt that comes while a program runs finds it busy on every kernel, from its first
instruction to its last: interrupts that a program held off would be served at its end, where the
kernel still takes it for running. Where a program can be preempted besides, other tasks run into it
for milliseconds: there both second programs are attached from the start.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pageowner.model.hook_states import ATTACHED, NESTED
from pageowner.model.tracking import ALWAYS, AUTO
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.read.pinned import FIRST_PINS

if TYPE_CHECKING:
    from pageowner.tracker.load.calibrate import Calibration
    from pageowner.tracker.read.maps import Store

__all__ = ["ALWAYS", "AUTO", "FIRST_PINS", "WAITING_PINS", "attach", "may_wait", "wanted"]

WAITING_PINS = {hook: pin.replace("on_", "on_nested_") for hook, pin in FIRST_PINS.items()}
"""By name of the second program's hook: its pin."""


def may_wait(found: Calibration, when: str) -> bool:
    """Whether the second programs wait on this kernel.

    They do not where a program can be preempted on a tracepoint, which `calibrate` has seen in one;
    nor where it is not known which frame of a stack goes through the list of programs: it would
    come into the stacks, or be gone from them, when the second program comes.
    """
    return when == AUTO and bool(found.iterators) and not found.preemptible


def wanted(store: Store) -> list[str]:
    """The hooks of those that wait and of whose kind an event was missed for that."""
    waiting = store.waiting()
    # Before 6.1 the kernel does not keep a program from running inside itself: it counts then, and
    # does not say of which kind.
    if waiting and store.counters()["reentered"]:
        return waiting
    return store.left_out()


def attach(store: Store, hooks: list[str]) -> dict[str, str]:
    """Attach these and pin their links; those that are attached now, as the facts have them. One
    that the kernel refuses goes on waiting. A link that is there already is that of an attempt that
    was killed before it could say so."""
    return {hook: ATTACHED for hook in hooks if _attached(store, hook)}


def _attached(store: Store, hook: str) -> bool:
    path = f"{store.pins}/link_{hook}"
    if os.path.exists(path):
        return True
    try:
        link = store.bpf.attach_raw(store.fd(WAITING_PINS[hook]), hook.removesuffix(NESTED))
        try:
            store.bpf.pin(link, path)
        finally:
            os.close(link)
    except BpfError:
        return False
    return True
