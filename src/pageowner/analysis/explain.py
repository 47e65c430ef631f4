"""A kernel log's reports, each with what they say about memory and what to ask next."""

from __future__ import annotations

import glob
import shlex
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pageowner.analysis import log_memory
from pageowner.analysis.log_blocks import blocks_of
from pageowner.analysis.log_memory import asked_by, growth, memory_of
from pageowner.model.kernel_log import BusyRange, MemoryReport, OfflineFailure, PageDump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.analysis.log_blocks import Blocks
    from pageowner.analysis.log_memory import Asked, Growth, Memory
    from pageowner.model.kernel_log import Event, KernelLog

__all__ = ["Explained", "Explanation", "explained"]

_NEXT = {
    log_memory.ANONYMOUS: "--by comm,subsystem",
    log_memory.TMPFS: "--subsystem 'shared memory*' --by comm,memcg",
    log_memory.PAGE_CACHE: "--subsystem 'page cache' --by comm,memcg",
    log_memory.SLAB: "--allocator slab --by subsystem",
    "slab, reclaimable": "--allocator slab --by subsystem",
    log_memory.PAGE_TABLES: "--subsystem 'page tables' --by comm",
    log_memory.HUGETLB: "--subsystem 'huge pages (hugetlb)' --by comm",
    "kernel stacks": "--subsystem 'kernel stacks' --by comm",
}
"""How to ask for the owners of a kind of memory."""

_LARGE = 10
"""Per cent of memory from which a kind is asked about."""


@dataclass(frozen=True)
class Explained:
    """One report. ``memory`` and ``blocks``: if the report is about them; ``asked``: who asked for
    memory or allocated the page; ``freed``: who freed it; ``next``: commands to run next, each with
    what it shows."""

    event: Event
    memory: Memory | None = None
    blocks: Blocks | None = None
    asked: Asked | None = None
    freed: Asked | None = None
    next: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """All reports of a log, and what grew from the first to the last report of running out of
    memory."""

    log: KernelLog
    events: list[Explained]
    grown: list[Growth]

    def only_last(self, number: int) -> Explanation:
        """The same of the last so many reports."""
        events = self.events[-number:]
        return replace(self, events=events, grown=_growth(events))


def explained(log: KernelLog) -> Explanation:
    """What the log's reports say."""
    events = [_explained(event, log.page_size) for event in log.events]
    return Explanation(log, events, _growth(events))


def _growth(events: Sequence[Explained]) -> list[Growth]:
    return growth([report.memory for report in events if report.memory is not None
                   and isinstance(report.event, MemoryReport) and report.event.memory.kinds])


def _explained(event: Event, page_size: int) -> Explained:
    if isinstance(event, MemoryReport):
        memory, blocks = memory_of(event, page_size), blocks_of(event, page_size)
        return Explained(event, memory, blocks, _asked(event, event.frames),
                         next=_after_report(event, memory, blocks))
    if isinstance(event, PageDump):
        allocated, freed = event.allocated, event.freed
        return Explained(event, asked=_asked(event, allocated.frames if allocated else ()),
                         freed=_asked(event, freed.frames if freed else ()),
                         next=_after_page(event))
    if isinstance(event, BusyRange):
        return Explained(event, next=[
            (f"sudo pageowner who '[{event.first:x}, {event.end:x})'", "who owns these pages now")])
    if isinstance(event, OfflineFailure):
        return Explained(event, next=_after_offline(event, page_size))
    return Explained(event)


def _asked(event: Event, frames: Sequence[str]) -> Asked | None:
    """Nothing where frames of another report may be among them."""
    return None if event.mixed else asked_by(frames)


def _after_report(report: MemoryReport, memory: Memory | None, blocks: Blocks | None
                  ) -> list[tuple[str, str]]:
    commands = [("sudo pageowner on", "from now on the owner of every page is known")]
    if report.cgroup:
        name = report.cgroup.rstrip("/").rpartition("/")[2]
        if name:
            pattern = shlex.quote(f"*{glob.escape(name)}*")
            commands.append((f"sudo pageowner report --memcg {pattern} --by subsystem,comm",
                             "what this cgroup's memory is used for"))
    if blocks is not None and blocks.verdict == "fragmented":
        commands.append((f"sudo pageowner frag --order {max(blocks.order, 1)}",
                         "what prevents blocks of this size, and which owners to stop"))
    elif memory is not None and not report.cgroup:
        total = memory.total or sum(memory.kinds.values())
        for name, size in memory.kinds.items():
            if name in _NEXT and 100 * size >= _LARGE * total:
                commands.append((f"sudo pageowner report {_NEXT[name]}", f"who owns it: {name}"))
        if memory.unaccounted is not None and 100 * memory.unaccounted >= _LARGE * total:
            commands.append(("sudo pageowner report --by module,subsystem",
                             "who owns what no counter includes"))
    if report.kind.endswith("out of memory"):
        commands.append(("sudo pageowner leaks --for 10m", "what grows and is never freed"))
    return commands


def _after_page(page: PageDump) -> list[tuple[str, str]]:
    if page.allocated is None:
        now = [] if page.pfn is None or page.kind != "page dump" else [
            (f"sudo pageowner who {page.pfn:#x}", "who owns the page now, if it is this machine")]
        return [*now, ("sudo pageowner on --free", "next time, 'pageowner who PFN' shows who"
                                                   " allocated the page and who freed it")]
    if page.pfn is None:
        return []
    return [(f"sudo pageowner who {page.pfn:#x}", "who owns the page now, if it is this machine")]


def _after_offline(event: OfflineFailure, page_size: int) -> list[tuple[str, str]]:
    commands = [(f"sudo pageowner who {pfn:#x}", "a page that could not be migrated")
                for pfn in event.pages[:3]]
    if event.last >= event.start and event.last > 0:
        first, last = event.start // page_size, event.last // page_size
        commands.append((f"sudo pageowner who {first:#x}-{last:#x}",
                         "who owns pages in this range"))
    return commands
