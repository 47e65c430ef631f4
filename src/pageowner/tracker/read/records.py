"""What the maps hold, beside their `layout`: states of a record, names, and how to read a layout
without NumPy."""

from __future__ import annotations

import struct

from pageowner.model.tracking import LastFree
from pageowner.tracker.read.layout import STACK, STATES, TASK_SLOT_BITS

__all__ = [
    "DIVIDED",
    "EARLY",
    "FILTERED",
    "MIGRATE_REASONS",
    "NONE",
    "OWNED",
    "SPARES_PIN",
    "STACK_HEAD",
    "TASK_SLOT",
    "TRACING_SYMBOLS",
    "WRITTEN",
    "LastFree",
    "Layout",
    "without_numpy",
    "without_tracing",
]

Layout = tuple[tuple[str, str], ...]

NONE, OWNED, EARLY, FILTERED, DIVIDED, WRITTEN = range(len(STATES))
"""``record.state``: no block begins here; whole record; one page (order 0) in use since before
tracking; left out by a filter (order and gfp_mask only). From ``DIVIDED`` on a CPU is at work on
the record: `reading` looks again, and gives ``WRITTEN`` for what never stood still."""

STACK_HEAD = STACK[:-1]
"""struct stack up to its frames, of which a tracker has as many as it was asked for."""

SPARES_PIN = "spares"
"""The pin of the map that says what each spare span has become: the number of a span + 1, 0 while
it is free, `layout.SPARE_HELD` while nobody may take it."""

TASK_SLOT = (1 << TASK_SLOT_BITS) - 1
"""The bits of a task id that are its slot in ``tasks``."""

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
