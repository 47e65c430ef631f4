"""What the memory was that a kernel log reports on: kinds that add up, and what no counter has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pageowner.analysis.subsystems import PAGES, role_of, short_stack, subsystem
from pageowner.kernel.frames import frames as parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.model.kernel_log import MemInfo, MemoryReport

__all__ = ["ANONYMOUS", "FREE", "HUGETLB", "PAGE_CACHE", "PAGE_TABLES", "SLAB", "TMPFS", "Asked",
           "Growth", "Memory", "asked_by", "growth", "memory_of"]

ANONYMOUS, TMPFS, PAGE_CACHE = "anonymous memory", "shared memory (tmpfs)", "page cache"
SLAB, PAGE_TABLES, HUGETLB, FREE = (
    "slab, unreclaimable", "page tables", "huge pages (hugetlb)", "free")
_COUNTED = ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable",
            "slab_reclaimable", "slab_unreclaimable", "free")
_OF_CGROUPS = {
    "anon": ANONYMOUS, "file": PAGE_CACHE, "shmem": TMPFS, "slab_unreclaimable": SLAB,
    "slab_reclaimable": "slab, reclaimable", "kernel_stack": "kernel stacks",
    "pagetables": PAGE_TABLES, "sec_pagetables": PAGE_TABLES, "percpu": "percpu", "sock": "sockets",
    "vmalloc": "vmalloc", "zswap": "zswap", "hugetlb": HUGETLB,
    "rss": ANONYMOUS, "cache": PAGE_CACHE}
"""memory.stat, cgroup v2 and (the last two) v1, mm/memcontrol.c."""


_PRINTING = frozenset((
    "dump_stack", "dump_stack_lvl", "__dump_stack", "dump_backtrace", "show_stack", "dump_header",
    "oom_kill_process", "out_of_memory", "__out_of_memory", "try_charge", "try_charge_memcg",
    "charge_memcg", "charge_memcg_folio", "obj_cgroup_charge", "warn_alloc",
    "pagefault_out_of_memory"))
"""What prints a call trace, or charges a cgroup (mm/oom_kill.c, mm/memcontrol.c), not what asks."""


@dataclass(frozen=True)
class Memory:
    """``total``: bytes that the page allocator has, or the limit of the cgroup; None if the log
    does not say. ``kinds``: bytes by what memory is used for, largest first, ``free`` among them.
    ``unaccounted``: of ``total`` what no counter has, negative if the counters have more; None if
    one of them is missing."""

    total: int | None
    kinds: dict[str, int]
    unaccounted: int | None


def memory_of(report: MemoryReport, page_size: int) -> Memory | None:
    """None if the report says nothing of it."""
    if report.kind == "cgroup out of memory":
        return _of_cgroup(report)
    memory, pages = report.memory, report.memory.kinds
    if not pages:
        return None
    anonymous = sum(pages.get(name, 0) for name in ("active_anon", "inactive_anon",
                                                    "isolated_anon"))
    unevictable, tmpfs = pages.get("unevictable", 0), pages.get("shmem", 0)
    # Pages of tmpfs are on the lists of anonymous memory, or locked (mm/shmem.c).
    locked = max(tmpfs - anonymous, 0)
    kinds = {
        ANONYMOUS: max(anonymous - tmpfs, 0),
        TMPFS: tmpfs,
        PAGE_CACHE: sum(pages.get(name, 0) for name in ("active_file", "inactive_file",
                                                        "isolated_file")),
        "locked (unevictable)": max(unevictable - locked, 0),
        SLAB: pages.get("slab_unreclaimable", 0),
        "slab, reclaimable": pages.get("slab_reclaimable", 0),
        PAGE_TABLES: pages.get("pagetables", 0) + pages.get("sec_pagetables", 0),
        "other reclaimable kernel memory": pages.get("kernel_misc_reclaimable", 0),
        "bounce buffers": pages.get("bounce", 0),
        FREE: pages.get("free", 0) + pages.get("free_pcp", 0),
    }
    sizes = {name: number * page_size for name, number in kinds.items()}
    sizes["kernel stacks"] = _everywhere_kb(memory, "kernel_stack") + _everywhere_kb(
        memory, "shadow_call_stack") << 10
    sizes[HUGETLB] = sum(pool.total * pool.size_kb for pool in memory.huge) << 10
    known = {"RAM", "reserved"} <= memory.totals.keys()
    total = (memory.totals["RAM"] - memory.totals["reserved"]) * page_size if known else None
    whole = total is not None and all(name in pages for name in _COUNTED)
    return Memory(total, _largest_first(sizes), total - sum(sizes.values())
                  if whole and total is not None else None)


def _everywhere_kb(memory: MemInfo, name: str) -> int:
    """Of all nodes; of all zones until 4.7."""
    if any(name in node for node in memory.nodes.values()):
        return sum(node.get(name, 0) for node in memory.nodes.values())
    return sum(zone.kb.get(name, 0) for zone in memory.zones)


def _of_cgroup(report: MemoryReport) -> Memory | None:
    stat = report.cgroup_bytes
    sizes: dict[str, int] = {}
    for name, size in stat.items():
        if kind := _OF_CGROUPS.get(name):
            sizes[kind] = sizes.get(kind, 0) + size
    if PAGE_CACHE in sizes:  # has that of tmpfs
        sizes[PAGE_CACHE] = max(sizes[PAGE_CACHE] - sizes.get(TMPFS, 0), 0)
    usage, limit = report.cgroup_kb.get("memory", (None, None))
    if not sizes and usage is None:
        return None
    used = None if usage is None else usage << 10
    return Memory(None if limit is None else limit << 10, _largest_first(sizes),
                  None if used is None or not sizes else used - sum(sizes.values()))


def _largest_first(sizes: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in sorted(sizes.items(), key=lambda item: -item[1]) if size}


@dataclass(frozen=True)
class Growth:
    """A kind of memory in the first and the last of several reports, bytes."""

    kind: str
    before: int
    after: int


def growth(memories: Sequence[Memory]) -> list[Growth]:
    """What grew from the first report to the last, by a hundredth of memory at least."""
    if len(memories) < 2:
        return []
    first, last = memories[0], memories[-1]
    least = (last.total or sum(last.kinds.values())) // 100
    pairs = [(name, first.kinds.get(name, 0), size) for name, size in last.kinds.items()]
    if first.unaccounted is not None and last.unaccounted is not None:
        pairs.append(("not accounted for", first.unaccounted, last.unaccounted))
    return sorted((Growth(name, before, after) for name, before, after in pairs
                   if name != FREE and after - before >= max(least, 1)),
                  key=lambda grown: grown.before - grown.after)


@dataclass(frozen=True)
class Asked:
    """For what a call trace asks for memory, and its telling frames; both may be empty."""

    what_for: str
    stack: str


def asked_by(frames: Sequence[str]) -> Asked:
    """Of a call trace, whose innermost frames printed it, or of a stack of page owner."""
    text = "\n".join(frames)
    chain = parse(text)
    if not chain:
        return Asked("", "")
    taking = next((number for number, frame in enumerate(chain) if role_of(frame) == PAGES), 0)
    while taking < len(chain) and (chain[taking].name in _PRINTING
                                   or chain[taking].name.startswith(("mem_cgroup_", "__mem_cg"))):
        taking += 1
    text = "\n".join(str(frame) for frame in chain[taking:])
    return Asked(subsystem(text), short_stack(text)) if text else Asked("", "")
