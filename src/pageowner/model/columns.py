"""What the columns of a snapshot mean, in one line each: for ``pageowner query --columns``.

The tables in docs/snapshot.md and docs/query.md have the same lines.
"""

from __future__ import annotations

__all__ = ["DERIVED", "SAVED"]

SAVED = {
    "pfn": "first page frame number",
    "order": "the block is 2**order base pages",
    "gfp_mask": "raw; its bits move between kernel versions",
    "gfp_flags": "the mask as the kernel prints it, which is portable",
    "migratetype": "from the gfp mask: Unmovable, Movable, Reclaimable",
    "pid": "of the allocating thread",
    "tgid": "of the allocating process",
    "comm": "the allocating task's name; bytes that are not UTF-8 as \\xNN",
    "ts_ns": "time of the allocation, ns since boot",
    "free_ts_ns": "time of the previous free, ns since boot",
    "stack": "frames, innermost first, one per line: func+0x1f/0x90 [module]",
    "state": "owned; early: allocated before tracking began; untracked: later, but seen by no hook",
    "block_migratetype": "of the pageblock; null in a live capture where it cannot be read",
    "zone": "of the page; a dump has only the zone's number",
    "node": "NUMA node of the page",
    "page_flags": "bits of /proc/kpageflags",
    "flags": "flags as the kernel's dump prints them",
    "memcg": "the cgroup charged",
    "migrate_reason": "of the last migration",
    "handle": "stack depot handle, where the dump prints it",
    "notes": "lines of the record after its stack, unchanged",
}
"""Columns of `pageowner.model.snapshot.SCHEMA`, in its order."""

DERIVED = {
    "pages": "base pages of the block: 2**order",
    "bytes": "its size",
    "age_s": "age in seconds when the snapshot was taken",
    "subsystem": "what the memory is used for, as in report --by subsystem",
    "module": "module of the innermost frame, or vmlinux",
    "frame": "the frame that explains the stack",
    "source": "which source the row is from: the name of its view; only if there are several",
}
"""Columns that ``pageowner query`` computes beside them."""
