"""A vmcore as a snapshot: what our tracker knew when the machine died, else the kernel's own page
owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.kernel_memory.page_owner import is_on
from pageowner.kernel_memory.snapshot import page_owner
from pageowner.tracker.read.capture import capture
from pageowner.vmcore.in_use import in_use
from pageowner.vmcore.kernel_log import panic
from pageowner.vmcore.machine import VmcoreMachine
from pageowner.vmcore.pins import is_tracked
from pageowner.vmcore.store import VmcoreStore

if TYPE_CHECKING:
    from pageowner.model.snapshot import Snapshot
    from pageowner.vmcore.memory import Vmcore

__all__ = ["kernels_own", "owners", "tracked"]


def owners(memory: Vmcore, users: bool = False, alone: bool = False) -> Snapshot:
    """The owners of all pages: as the tracker knew them, if it was at work, else as the kernel's
    own page owner did (``meta.extra["kernels_own"]``: that is there too). ``users``: also what had
    each page; with ``alone`` that alone where the tracker was not at work. Raises PageownerError if
    neither was."""
    kernels_too = is_on(memory)
    if alone and not is_tracked(memory):
        return _about_the_end(memory, in_use(memory))
    if kernels_too and not is_tracked(memory):
        return kernels_own(memory)
    found = tracked(memory, users)
    if kernels_too:
        found.meta.extra["kernels_own"] = True
    return found


def kernels_own(memory: Vmcore) -> Snapshot:
    """What the kernel's own page owner knew, the rows and columns of its text. Raises
    PageownerError if it was not on."""
    found = page_owner(memory, memory.symbols, "")
    return _about_the_end(memory, found)


def tracked(memory: Vmcore, users: bool = False) -> Snapshot:
    """The owners of all pages as the tracker knew them; with ``users`` also what had each. Raises
    PageownerError if it was not at work."""
    machine = VmcoreMachine(memory)
    store = VmcoreStore(memory, machine.frames())
    found = capture(store, machine, users)
    newest = found.table["ts_ns"].drop_null().to_numpy()
    if len(newest):
        # A clock that could not be read, or was behind: nothing is younger than the dump.
        found.meta.clock_ns = max(found.meta.clock_ns or 0, int(newest.max()))
    counters = found.meta.counters
    if machine.frames().missing:
        counters["missing_page_structs"] = machine.frames().missing
    if machine.frames().charges.unknown:
        counters["unknown_charges"] = machine.frames().charges.unknown
    return _about_the_end(memory, found)


def _about_the_end(memory: Vmcore, found: Snapshot) -> Snapshot:
    """With what is not in the vmcore, and what the kernel said as it died."""
    if memory.live:
        found.meta.extra["read_while_running"] = True
    if memory.missing:
        found.meta.counters["missing_pages"] = memory.missing
    died = memory.info.crash_time is not None
    message = panic(memory)
    if died or message:
        found.meta.extra["panic"] = message or ""
    return found
