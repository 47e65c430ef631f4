"""The second program on allocations, which waits until it is needed.

Two programs on a tracepoint cost more than twice as much as one: the kernel then goes through a
list of them instead of calling the one. The second is there for interrupts that allocate while the
first is at work on their CPU, which on many machines never happens. So it is loaded and not
attached, until the kernel's own count of the runs that it left out (``recursion_misses``) says that
it does; then the next command that looks attaches it, for good. Until then each such allocation is
untracked and counted as missed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pageowner.hook_states import WAITING
from pageowner.tracker.maps import NESTED

if TYPE_CHECKING:
    from pageowner.tracker.maps import Store

__all__ = ["FIRST_PIN", "HOOK", "WAITING_PIN", "attach", "is_wanted"]

HOOK = f"mm_page_alloc{NESTED}"
FIRST_PIN, WAITING_PIN = "on_alloc", "on_nested_alloc"


def is_wanted(store: Store) -> bool:
    """Whether it waits and an allocation was missed for that."""
    if store.facts.get("hooks", {}).get(HOOK) != WAITING:
        return False
    # Before 6.1 the kernel does not keep a program from running inside itself: it counts then.
    missed = store.bpf.program_info(store.fd(FIRST_PIN)).recursion_misses
    return missed > 0 or store.counters()["reentered"] > 0


def attach(store: Store) -> None:
    """Attach it and pin the link. A link that is there already is that of an attempt that was
    killed before it could say so. Raises BpfError."""
    path = f"{store.pins}/link_{HOOK}"
    if os.path.exists(path):
        return
    link = store.bpf.attach_raw(store.fd(WAITING_PIN), HOOK.removesuffix(NESTED))
    try:
        store.bpf.pin(link, path)
    finally:
        os.close(link)
