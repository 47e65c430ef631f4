"""What is known of the tracker: how it is to track, how it stands, what it needs, and who freed a
page last. `tracker` finds these out, `report` shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pageowner.errors import UsageError

__all__ = ["ALWAYS", "AUTO", "MAX_DEPTH", "MOST_OBJECTS", "Finding", "Hook", "LastFree", "Options",
           "Status"]

MAX_DEPTH = 64
"""Frames that a stack is kept with at most."""

AUTO, ALWAYS = "auto", "always"
"""When the second programs are attached, see `Options`."""

MOST_OBJECTS = 1 << 20
"""One object in so many at most can be followed."""

_WORDS = {"--min-order": "min_order", "--pid": "tgid", "--cgroup": "cgroup", "--sample": "sample",
          "--depth": "depth", "--objects": "objects", "--check": "memo_check",
          "--second-programs": "second_programs", "tasks": "tasks", "stacks": "stacks"}
"""Options that have a value: their words on the command line."""


@dataclass(frozen=True)
class Options:
    """How to track.

    - ``kernel_only``: leave out memory of user space: masks with both __GFP_MOVABLE and
      __GFP_HARDWALL, as in GFP_HIGHUSER_MOVABLE: anonymous memory, page cache, tmpfs. What
      remains is what the kernel itself holds, pipe and socket buffers and page tables with it.
    - ``min_order``: only blocks of at least 2**min_order pages
    - ``tgid``: only allocations by the threads of this process (0: all)
    - ``cgroup``: only those by tasks in this cgroup v2 or below it, a path under its mount
    - ``sample``: only one page in so many, by a hash of the pfn
    - ``free_side``: also keep who freed each block last (16 bytes more a page)
    - ``depth``: frames of a stack, 1 to 64
    - ``memo``: recognise stacks by the words where their return addresses stood (docs/memo.md),
      where the kernel allows it; else unwind each time
    - ``memo_check``: the fraction of the stacks so recognised that are unwound too and
      compared, 0 to 1
    - ``second_programs``: when the programs for what interrupts allocate and free while the tracker
      is at work are attached: `AUTO`, once one was needed, or `ALWAYS`
    - ``objects``: also follow one in so many objects of slabs and of the percpu allocator, by a
      hash of the address (0: none)
    - ``tasks``, ``stacks``: room in the tables (0: by the machine's memory)
    """

    kernel_only: bool = False
    min_order: int = 0
    tgid: int = 0
    cgroup: str = ""
    sample: int = 1
    free_side: bool = False
    depth: int = 16
    memo: bool = True
    memo_check: float = 1 / 1024
    second_programs: str = AUTO
    objects: int = 0
    tasks: int = 0
    stacks: int = 0

    def words(self) -> list[str]:
        """What differs from the defaults, as the words of `pageowner on`; ``tasks`` and ``stacks``,
        which have none there, by name."""
        words = [word for word, given in (("--kernel-only", self.kernel_only),
                                          ("--free", self.free_side), ("--plain", not self.memo))
                 if given]
        default = Options()
        for word, name in _WORDS.items():
            value = getattr(self, name)
            if value != getattr(default, name):
                words.append(f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}")
        return words

    def check(self) -> None:
        """Raises UsageError for what cannot be."""
        if not 1 <= self.depth <= MAX_DEPTH:
            raise UsageError(f"depth is 1 to {MAX_DEPTH} frames, not {self.depth}")
        if self.sample < 1:
            raise UsageError(f"sample is 1 or more, not {self.sample}")
        if not 0 <= self.memo_check <= 1:
            raise UsageError(f"check is a fraction, 0 to 1, not {self.memo_check:g}")
        if self.second_programs not in (AUTO, ALWAYS):
            raise UsageError(f"second_programs is {AUTO} or {ALWAYS}, not"
                             f" {self.second_programs}")
        if not 0 <= self.objects <= MOST_OBJECTS:
            raise UsageError(f"objects is 0 to {MOST_OBJECTS}, not {self.objects}")
        if self.min_order < 0 or self.tgid < 0 or self.tasks < 0 or self.stacks < 0:
            raise UsageError("min_order, tgid, tasks and stacks cannot be negative")


@dataclass(frozen=True)
class Hook:
    """A program of ours that is attached. ``missed`` counts events that came while the same
    program was busy on that CPU (an interrupt's); where there is a second program (`NESTED`),
    most of them were not lost: see `Store.missed`."""

    name: str
    program_id: int
    link_id: int
    missed: int


@dataclass(frozen=True)
class Status:
    """What is tracked and what it costs; while tracking is off only ``on`` and ``left`` are set.

    - ``left``: pins of an `on` or `off` that is at work, or was killed: its programs may still run
    - ``already_on``: `on` found it so
    - ``since_wall``: seconds since 1970; ``since_ns``: CLOCK_MONOTONIC, as the records' ``ts``
    - ``hooks``: name to state, see `hook_states`; ``attached``: the programs that are
    - ``missed``: events that no program dealt with, since one was busy on that CPU;
      ``missed_frees``: how many of them at most were frees (`maps.Store.missed_frees`)
    - ``unseen_frees``: see `maps.Store.unseen_frees`; None where the kernel does not count
    - ``pages``: base pages that the records speak for: ``owned``, ``early``, ``filtered``
    - ``memo``: whether stacks are recognised: ``on``, ``off`` (asked for), ``stopped`` (a stack
      was recognised wrongly), or why it stays off; ``memo_counters``: `memo.MEMO_COUNTERS`
    - ``untracked``: such pages, and ``unexplained`` of them (`untracked.untracked`); None where
      nobody looked, since that reads the flags of all page frames
    - ``counters``: events so far and what was missed (`maps.COUNTERS`)
    - ``objects``: of objects, empty where none are followed: one in ``share``, ``followed`` now,
      their ``bytes``, ``slots``, the states of their ``hooks``, and ``objects_missed``, events that
      found these busy
    - ``memory_bytes``: kernel memory of all maps; ``frames``: page frames covered
    """

    on: bool
    left: bool = False
    already_on: bool = False
    options: Options = field(default_factory=Options)
    since_wall: float = 0.0
    since_ns: int = 0
    hooks: dict[str, str] = field(default_factory=dict)
    attached: list[Hook] = field(default_factory=list)
    missed: int = 0
    missed_frees: int = 0
    unseen_frees: int | None = None
    pages: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    memo: str = "off"
    memo_counters: dict[str, int] = field(default_factory=dict)
    untracked: int | None = None
    unexplained: list[dict[str, Any]] | None = None
    objects: dict[str, Any] = field(default_factory=dict)
    memory_bytes: int = 0
    frames: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing that tracking needs or would profit from.

    ``needed``: without it there is no tracking at all. ``detail``: what was found.
    ``follows``: what that means, where it is not as it should be; else empty.
    """

    name: str
    ok: bool
    needed: bool
    detail: str
    follows: str = ""


@dataclass(frozen=True)
class LastFree:
    """``ts_ns``: CLOCK_MONOTONIC, as of records; the task (None where another one has its place in
    the table since) and the stack, as in a snapshot's row."""

    ts_ns: int
    pid: int | None
    tgid: int | None
    comm: str | None
    stack: str | None
