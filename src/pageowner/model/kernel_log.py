"""What a kernel log contains about memory: one object for each report that the kernel printed.

Sizes are in the units of the log (pages for the whole machine, kB for nodes and zones);
`KernelLog.page_size` is the size of a page. ``missing``: parts that a report of this kind should
have but lacks. ``damaged``: lines of the report that could not be read completely. ``foreign``: the
number of lines within the report that do not belong to it. ``mixed``: lines of another report are
among them, and the log does not show which report a line of a call trace belongs to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["PANIC", "BusyRange", "CodeLine", "Event", "HugePages", "KernelLog", "MemInfo",
           "MemoryReport", "OfflineFailure", "OwnerOfPage", "PageDump", "SlabCache", "Task", "Zone"]

PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
"""How the kernel's line begins as it dies (kernel/panic.c), without what logs put in front. To be
matched, not searched: within a line others may have said it."""


@dataclass
class Event:
    """``line``: the number of its first line, from 1; ``time``: as the log has it, without
    brackets; ``caller``: the thread or processor that printed it (T123, C4), if the log shows
    it."""

    line: int
    time: str = ""
    caller: str = ""
    missing: list[str] = field(default_factory=list)
    damaged: list[tuple[int, str]] = field(default_factory=list)
    foreign: int = 0
    mixed: bool = False


@dataclass
class Zone:
    """A zone of a node. ``kb``: sizes by the names in the log (``free``, ``min``, ``managed``, …);
    ``reserve``: lowmem_reserve, in pages; ``blocks``: for each order, how many blocks are free, and
    the letters of the migratetypes that have some (U, M, E, H, C, I)."""

    node: int
    name: str
    kb: dict[str, int] = field(default_factory=dict)
    reserve: list[int] = field(default_factory=list)
    blocks: dict[int, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class HugePages:
    """The pool of one size of huge pages on one node."""

    node: int
    total: int
    free: int
    size_kb: int


@dataclass(frozen=True)
class SlabCache:
    """A line below "Unreclaimable slab info"."""

    name: str
    used_kb: int
    total_kb: int


@dataclass(frozen=True)
class CodeLine:
    """A line below "Memory allocations", printed by kernels with allocation profiling. ``bytes`` is
    as exact as the kernel printed it."""

    bytes: int
    calls: int
    place: str
    function: str
    module: str | None


@dataclass(frozen=True)
class Task:
    """A row of the table of tasks; ``pages``: by the names of its columns (``rss``, …)."""

    pid: int
    tgid: int
    name: str
    pages: dict[str, int]


@dataclass
class MemInfo:
    """The lines below "Mem-Info:".

    - ``kinds``: pages of the whole machine
    - ``nodes``: kB by node
    - ``totals``: pages, but ``free swap`` and ``total swap`` are in kB
    - ``page_kb``: size of the smallest free block, which is one page; 0 if no free blocks are
      listed
    """

    kinds: dict[str, int] = field(default_factory=dict)
    nodes: dict[int, dict[str, int]] = field(default_factory=dict)
    zones: list[Zone] = field(default_factory=list)
    huge: list[HugePages] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    slabs: list[SlabCache] = field(default_factory=list)
    code: list[CodeLine] = field(default_factory=list)
    page_kb: int = 0


@dataclass
class MemoryReport(Event):
    """An OOM report, a failed allocation, or the state of memory alone.

    - ``kind``: ``out of memory``, ``cgroup out of memory``, ``allocation failure``, ``vmalloc
      failure`` or ``memory state``
    - ``order``: of the allocation; -1 if the OOM killer was invoked by hand, None if the log does
      not show it; ``gfp``: its flags by name; ``gfp_mask``: raw
    - ``frames``: the stack of the allocation, innermost first
    - ``cgroup``: name; ``cgroup_kb``: usage and limit by counter; ``cgroup_bytes``: its memory.stat
    - ``killed``: the killed tasks, with kB by name; ``constraint``: as the kernel names it
    """

    kind: str = "memory state"
    comm: str = ""
    order: int | None = None
    gfp_mask: int | None = None
    gfp: str = ""
    frames: list[str] = field(default_factory=list)
    memory: MemInfo = field(default_factory=MemInfo)
    tasks: list[Task] = field(default_factory=list)
    cgroup: str = ""
    cgroup_kb: dict[str, tuple[int, int]] = field(default_factory=dict)
    cgroup_bytes: dict[str, int] = field(default_factory=dict)
    constraint: str = ""
    killed: list[Task] = field(default_factory=list)
    no_victim: bool = False
    panicked: bool = False
    """Instead of killing, as vm.panic_on_oom tells the kernel to."""


@dataclass
class OwnerOfPage:
    """Who allocated or freed a page, as far as the kernel prints it; times in ns since boot."""

    order: int | None = None
    migratetype: str = ""
    gfp: str = ""
    pid: int | None = None
    tgid: int | None = None
    comm: str = ""
    ts_ns: int | None = None
    frames: list[str] = field(default_factory=list)


@dataclass
class PageDump(Event):
    """What dump_page() prints.

    - ``kind``: ``bad page``, ``KASAN`` or ``page dump``; ``process``: in which the bad page was
      found
    - ``tracked``: whether page owner tracks the page as ``allocated`` or ``freed``; None if page
      owner does not know the page or is off
    - ``free_ts_ns``: time of the free before the allocation, if the kernel prints it there
    """

    kind: str = "page dump"
    process: str = ""
    pfn: int | None = None
    order: int | None = None
    flags: str = ""
    page_type: str = ""
    reason: str = ""
    tracked: str | None = None
    allocated: OwnerOfPage | None = None
    freed: OwnerOfPage | None = None
    free_ts_ns: int | None = None
    migrated: str = ""


@dataclass
class BusyRange(Event):
    """``alloc_contig_range: [first, end) PFNs busy``; ``times``: how often."""

    first: int = 0
    end: int = 0
    times: int = 1


@dataclass
class OfflineFailure(Event):
    """A range of physical memory that could not be taken offline: ``start`` and ``last`` are
    addresses, both included; ``reason``: the kernel's; ``pages``: pfns that could not be
    migrated."""

    start: int = 0
    last: int = 0
    reason: str = ""
    times: int = 1
    pages: list[int] = field(default_factory=list)


@dataclass
class KernelLog:
    """All reports of a log, in order, and what was done with its lines.

    - ``page_size``: bytes of a page; ``page_size_known``: whether the log shows it
    - ``joined``: lines that had been wrapped and were joined again
    - ``quoted``: lines that began with quote marks
    - ``was_encoded``: whether the log was the source of a mail, in quoted-printable
    - ``suppressed``: messages that the kernel says it did not print, by what would have printed
      them
    - ``unread``: lines about ranges of pages that could not be read
    - ``cut``: whether the last line is incomplete
    - ``panics``: for each panic of the kernel, the line's number, its time and the message
    """

    source: str
    lines: int = 0
    events: list[Event] = field(default_factory=list)
    page_size: int = 4096
    page_size_known: bool = False
    joined: int = 0
    quoted: int = 0
    was_encoded: bool = False
    suppressed: dict[str, int] = field(default_factory=dict)
    unread: list[tuple[int, str]] = field(default_factory=list)
    cut: bool = False
    panics: list[tuple[int, str, str]] = field(default_factory=list)
