"""What no kernel goes beyond: numbers in files from others are held against these."""

from __future__ import annotations

__all__ = ["HIGHEST_ORDER", "LISTED_ORDER", "NODES", "PFN_BITS", "PIDS", "TIME_BITS", "ZONES"]

HIGHEST_ORDER = 22
"""Of a block: gigantic pages go up to 16 GiB, in pages of 4 KiB (arch/powerpc/mm/hugetlbpage.c)."""

LISTED_ORDER = 3
"""Blocks of up to this order go to a CPU's own list when freed: PAGE_ALLOC_COSTLY_ORDER in
include/linux/mmzone.h."""

PFN_BITS = 52
"""A physical address has 64 bits at most, and a page 4096 bytes at least."""

NODES = 1024
"""CONFIG_NODES_SHIFT is 10 at most (mm/Kconfig, arch/*/Kconfig of 6.12)."""

ZONES = 6
"""Of a node: `pageowner.kernel.zones.NAMES` (include/linux/mmzone.h, enum zone_type)."""

PIDS = 1 << 22
"""include/linux/threads.h, PID_MAX_LIMIT."""

TIME_BITS = 63
"""292 years in nanoseconds."""
