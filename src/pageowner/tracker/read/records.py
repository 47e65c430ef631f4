"""The layout of what the maps hold, as records.h has it: for NumPy (`maps`) and without.

A layout is the fields of a struct in order, without holes: name and NumPy's name of its type.
"""

from __future__ import annotations

import struct

from pageowner.model.tracking import MAX_DEPTH, LastFree

__all__ = [
    "DIVIDED",
    "EARLY",
    "FILTERED",
    "FREED",
    "FREED_WRITTEN",
    "MAX_DEPTH",
    "MIGRATE_REASONS",
    "NESTED",
    "NONE",
    "OWNED",
    "QUESTION",
    "RECORD",
    "SPARES_PIN",
    "SPARE_HELD",
    "STACK",
    "TASK",
    "TASK_SLOT",
    "TRACING_SYMBOLS",
    "WRITTEN",
    "LastFree",
    "Layout",
    "without_numpy",
    "without_tracing",
]

Layout = tuple[tuple[str, str], ...]

NONE, OWNED, EARLY, FILTERED, DIVIDED, WRITTEN = range(6)
"""``record.state``: no block begins here; whole record; one page (order 0) in use since before
tracking; left out by a filter (order and gfp_mask only). From ``DIVIDED`` on a CPU is at work on
the record: `reading` looks again, and gives ``WRITTEN`` for what never stood still."""

RECORD: Layout = (
    ("ts", "u8"), ("stack_id", "u4"), ("task_id", "u4"), ("gfp_mask", "u4"), ("order", "u1"),
    ("state", "u1"), ("moved", "u1"), ("generation", "u1"))
"""struct record: 24 bytes a page frame. ``ts`` is CLOCK_MONOTONIC ns; the low 4 bits of ``moved``
are the kernel's enum migrate_reason + 1, 0 if never migrated, the high 4 how often it was."""

FREED: Layout = (("ts", "u8"), ("stack_id", "u4"), ("task_id", "u4"))
"""struct freed: the last free of a block that began here, with ``--free``."""

FREED_WRITTEN = 0xFFFFFFFFFFFFFFFF
"""``ts`` of struct freed while a CPU writes it."""

TASK: Layout = (
    ("id", "u4"), ("refs", "u4"), ("tgid", "u4"), ("pid", "u4"), ("comm", "S16"),
    ("cgroup_id", "u8"))
"""struct task."""

QUESTION: Layout = (("pfn", "u8"), ("flags", "u8"), ("refcount", "i4"), ("type", "u4"))
"""struct question: what `maps.Store.look` asks the kernel about a page."""

STACK: Layout = (("hash", "u8"), ("n", "u4"), ("spare", "u4"))
"""struct stack, up to its frames."""

SPARES_PIN, SPARE_HELD = "spares", 0xFFFFFFFF
"""The pin of the map that says what each spare span has become: the number of a span + 1, 0 while
it is free, ``SPARE_HELD`` while nobody may take it."""

TASK_SLOT = (1 << 20) - 1
"""The bits of a task id that are its slot in ``tasks``."""

NESTED = "_nested"
"""Behind a hook's name: its second program, for the events that the first was too busy for."""

TRACING_SYMBOLS = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "trace_",
                   "bpf_trampoline_", "bpf_get_stack")
"""Symbols of tracing itself, to be cut from the top of a stack."""

MIGRATE_REASONS = (
    "compaction", "memory_failure", "memory_hotplug", "syscall_or_cpuset",
    "mempolicy_mbind", "numa_misplaced", "contig_range", "longterm_pin", "demotion", "damon")
"""mm/debug.c, migrate_reason_names, by enum migrate_reason (6.12); earlier kernels have fewer."""

_CODES = {"u8": "Q", "u4": "I", "i4": "i", "u1": "B"}


def without_numpy(layout: Layout) -> struct.Struct:
    """The same for the module struct; of a field of text (``S16``) its bytes."""
    return struct.Struct("=" + "".join(
        f"{kind[1:]}s" if kind[0] == "S" else _CODES[kind] for _, kind in layout))


def without_tracing(frames: list[str]) -> str | None:
    """Frames as the text of a stack, without those of tracing at its top; None for no frame."""
    first = 0
    while first < len(frames) - 1 and frames[first].startswith(TRACING_SYMBOLS):
        first += 1
    return "\n".join(frames[first:]) or None
