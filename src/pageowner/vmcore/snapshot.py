"""A vmcore as a snapshot: what our tracker knew when the machine died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.tracker.read.capture import capture
from pageowner.vmcore.kernel_log import panic
from pageowner.vmcore.machine import VmcoreMachine
from pageowner.vmcore.store import VmcoreStore

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot
    from pageowner.vmcore.memory import Vmcore

__all__ = ["tracked"]


def tracked(memory: Vmcore) -> Snapshot:
    """The owners of all pages as the tracker knew them. Raises PageownerError if it was not at
    work."""
    machine = VmcoreMachine(memory)
    store = VmcoreStore(memory, machine.frames())
    found = capture(store, machine)
    newest = found.table["ts_ns"].drop_null().to_numpy()
    if len(newest):
        # A clock that could not be read, or was behind: nothing is younger than the dump.
        found.meta.clock_ns = max(found.meta.clock_ns or 0, int(newest.max()))
    counters = found.meta.counters
    if memory.missing:
        counters["missing_pages"] = memory.missing
    if machine.frames().missing:
        counters["missing_page_structs"] = machine.frames().missing
    if machine.frames().charges.unknown:
        counters["unknown_charges"] = machine.frames().charges.unknown
    died = memory.info.crash_time is not None
    message = panic(memory)
    if died or message:
        found.meta.extra["panic"] = message or ""
    return found
