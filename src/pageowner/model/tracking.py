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

    - ``kernel_only``: skip user-space memory, which has both __GFP_MOVABLE and __GFP_HARDWALL in
      its gfp mask, as GFP_HIGHUSER_MOVABLE has: anonymous memory, page cache, tmpfs. The rest is
      what the kernel itself uses, including pipe and socket buffers and page tables.
    - ``min_order``: track only blocks of at least 2**min_order pages
    - ``tgid``: track only what the threads of this process allocate (0: all)
    - ``cgroup``: track only what tasks in this cgroup v2 or below it allocate; a path below its
      mount
    - ``sample``: track only one page in N, chosen by a hash of the pfn
    - ``free_side``: also record who freed each block last (16 more bytes per page)
    - ``depth``: frames of a stack, 1 to 64
    - ``memo``: recognise stacks by the words at their return addresses (docs/memo.md), where the
      kernel allows it; otherwise every stack is unwound
    - ``memo_check``: the fraction of recognised stacks that are also unwound and compared, 0 to 1
    - ``second_programs``: when to attach the programs that record what interrupts allocate and free
      while the tracker runs: `AUTO`, after the first missed event (those on objects: where all are
      tracked, from the start, otherwise never), or `ALWAYS`
    - ``objects``: also track one in N objects of slabs and of the percpu allocator, chosen by a
      hash of the address (0: none)
    - ``tasks``, ``stacks``: the number of entries in these tables (0: chosen by the machine's
      memory)
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
        """The options that differ from the defaults, in the words of `pageowner on`; ``tasks`` and
        ``stacks``, which are no options there, by their names."""
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
        """Raises UsageError for invalid options."""
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
    """What is tracked and what it costs; while tracking is off, only ``on`` and ``left`` are set.

    - ``left``: pins of an `on` or `off` that is still running or was killed; its programs may run
    - ``already_on``: tracking was on before this call of `on`
    - ``process_ended``: of ``options.tgid``; what another process with its number allocates is
      tracked
    - ``since_wall``: seconds since 1970; ``since_ns``: CLOCK_MONOTONIC, as ``ts`` in the records
    - ``hooks``: the state of each by name, see `hook_states`; ``attached``: the attached programs
    - ``missed``: events that no program handled because the programs were busy on that CPU;
      ``missed_frees``: at most so many of these were frees (`maps.Store.missed_frees`)
    - ``unseen_frees``: see `maps.Store.unseen_frees`; None if the kernel does not count frees
    - ``pages``: base pages of the records by state: ``owned``, ``early``, ``filtered``
    - ``memo``: whether stacks are recognised: ``on``, ``off`` (by an option), ``stopped`` (a stack
      was recognised wrongly), or why recognition is off; ``memo_counters``: `memo.MEMO_COUNTERS`
    - ``untracked``: number of untracked pages; ``unexplained``: those of them that no missing hook
      explains (`untracked.untracked`); None if not counted, because that reads the flags of all
      page frames
    - ``counters``: events so far, and what was missed (`maps.COUNTERS`)
    - ``objects``: empty if no objects are tracked; else one in ``share`` is tracked, ``followed``
      are tracked now, with their ``bytes``; ``slots``, the states of their ``hooks``, and
      ``objects_missed``, events that came while these hooks were busy
      (`missed.missed_of_objects`)
    - ``memory_bytes``: kernel memory of all maps; ``frames``: page frames covered
    """

    on: bool
    left: bool = False
    already_on: bool = False
    options: Options = field(default_factory=Options)
    process_ended: bool = False
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
    """One condition that tracking needs or benefits from.

    ``needed``: tracking is not possible without it. ``detail``: what was found. ``follows``: the
    consequence if the condition is not met; else empty.
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
