"""All memory of a machine in lines that add up: counters in, rows out.

The rows below MemTotal are counters that count no page twice. Where the kernel's overlap, as in
mm/ and fs/proc/meminfo.c of 5.15 to 7.3, the overlap is taken off:

- Cached includes Shmem; MemFree includes CmaFree and Unaccepted, but not the free pages on the
  CPUs' own lists. Active, Inactive, Unevictable, Mlocked, Mapped, Dirty, AnonHugePages and the like
  count again what other lines count, and are not used.
- VmallocUsed includes kernel stacks (CONFIG_VMAP_STACK) and shadow call stacks (scs_alloc, 5.11).
- Percpu includes the first chunk, which was taken before MemTotal (pcpu_setup_first_chunk), and
  units for which there is no CPU, which have no pages (`memory_pools.percpu_without_cpu`).
- NR_ZSPAGES (zoneinfo, vmstat) has the memory of zram and, if its pool is zsmalloc, of zswap.
- SwapCached includes anonymous pages that are also mapped, and so in AnonPages.
- Balloon may count pages that are no longer in MemTotal (`memory_pools.balloon_outside_total`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pageowner.analysis.balance_details import (
    anonymous_rows,
    before_rows,
    file_rows,
    hugetlb_rows,
    shared_rows,
    slab_rows,
    vmalloc_rows,
    with_rest,
)
from pageowner.analysis.balance_row import Row
from pageowner.analysis.balance_warnings import Warned, warnings_of
from pageowner.report.text import size

if TYPE_CHECKING:
    from pageowner.kernel.cgroup_memory import CgroupMemory
    from pageowner.model.memory_facts import MemoryFacts

__all__ = ["Balance", "Row", "balanced"]

UNKNOWN = "unknown"
"""The key of the row for what no counter counts."""


@dataclass(frozen=True)
class Balance:
    """``rows`` add up to ``total`` (MemTotal), ``before`` and ``total`` add up to ``installed``;
    all in bytes. ``known``: what is known about the memory that no counter counts. ``moved``: bytes
    by which free memory changed while the counters were read. ``missing``: what could not be read
    without root."""

    total: int
    installed: int
    available: int | None
    rows: list[Row]
    before: list[Row]
    known: list[str] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    cgroups: list[CgroupMemory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    moved: int = 0
    meminfo: dict[str, int] = field(default_factory=dict)

    @property
    def unknown(self) -> int:
        """Bytes of MemTotal that no counter counts; negative where counters overlap."""
        return next(row.bytes for row in self.rows if row.key == UNKNOWN)


def balanced(facts: MemoryFacts) -> Balance:
    """The balance of what was read; raises KeyError without MemTotal."""
    memory, total = facts.meminfo, facts.meminfo["MemTotal"]
    notes = list(facts.notes)
    rows = [row for row in (*_user_rows(facts), *_kernel_rows(facts, notes), *_free_rows(facts))
            if row.bytes or row.rows]
    rows.sort(key=lambda row: (row.key in ("free", "pcp"), -row.bytes))
    unknown = total - sum(row.bytes for row in rows)
    known = _known(facts)
    explained = "; ".join(known) if unknown >= 0 else (
        "negative: counters overlap, or changed while they were read")
    place = next((place for place, row in enumerate(rows) if row.key in ("free", "pcp")), len(rows))
    rows.insert(place, Row(UNKNOWN, "not accounted for by any counter", unknown, "",
                           "pageowner on", explained))
    before, installed = before_rows(facts)
    charges = facts.charges
    if charges is not None and not charges.complete:
        notes.append("not all cgroups could be read in time; those shown are what was read")
    if facts.files is not None and not facts.files.complete:
        notes.append("not all open files could be looked at in time")
    if facts.open_files_cached is not None and not facts.open_files_cached.complete:
        notes.append("not all open files could be looked up in the page cache in time; those left"
                     " out are among all other files")
    if facts.page_cache is not None and not facts.page_cache.complete:
        notes.append("not all files of the page cache could be looked up in time; those left out"
                     " are among all other files")
    if late := sum(process.late for process in facts.processes):
        notes.append(f"what {late:,} of {len(facts.processes):,} processes share with others was"
                     " not read in time; pages they share count in each of them")
    return Balance(total, installed, memory.get("MemAvailable"), rows, before, known,
                   warnings_of(facts, unknown), [] if charges is None else charges.cgroups, notes,
                   facts.missing, facts.moved, memory)


def _user_rows(facts: MemoryFacts) -> list[Row]:
    memory = facts.meminfo
    shmem, buffers = memory.get("Shmem", 0), memory.get("Buffers", 0)
    files = memory.get("Cached", 0) - shmem
    cache = (Row("files", "files", files, "Cached - Shmem", "fincore FILE",
                 "" if facts.page_cache else
                 "which files: those open now; of others, who read them, once pages are tracked",
                 file_rows(facts, files)),
             Row("buffers", "block devices and metadata", buffers, "Buffers", "lsblk"))
    return [
        Row("anonymous", "anonymous memory of processes", memory.get("AnonPages", 0), "AnonPages",
            "ps aux --sort -rss", rows=anonymous_rows(facts)),
        Row("page_cache", "page cache", files + buffers, "Cached + Buffers - Shmem",
            "pageowner report", rows=cache),
        Row("shared", "shared memory and tmpfs", shmem, "Shmem", "df -t tmpfs; ipcs -m",
            rows=shared_rows(facts)),
        Row("swap_cache", "swap cache that no process maps", _unmapped_swap_cache(memory),
            "SwapCached", "cat /proc/swaps"),
        Row("hugetlb", "huge pages set aside (hugetlb)", memory.get("Hugetlb", 0), "Hugetlb",
            "grep Huge /proc/meminfo", rows=hugetlb_rows(facts))]


def _unmapped_swap_cache(memory: dict[str, int]) -> int:
    """SwapCached without the pages that are mapped too, and so in AnonPages.

    Anonymous, file and swap cache pages are on the LRU lists once, so what these counters have more
    than the lists is what they count twice. Pages on their way to a list are on none, so this is
    exact to some hundred pages; it lies between nothing and all of SwapCached.
    """
    cached = memory.get("SwapCached", 0)
    if not cached:
        return 0
    lists = sum(memory.get(name, 0) for name in ("Active", "Inactive", "Unevictable"))
    counted = sum(memory.get(name, 0) for name in ("AnonPages", "Cached", "Buffers", "SwapCached"))
    return cached - min(max(counted - lists, 0), cached)


def _kernel_rows(facts: MemoryFacts, notes: list[str]) -> list[Row]:
    memory = facts.meminfo
    stacks, shadow = memory.get("KernelStack", 0), memory.get("ShadowCallStack", 0)
    # VmallocUsed is 0 always in kernels before 5.3 (fs/proc/meminfo.c) and those derived of them.
    used = memory.get("VmallocUsed", 0)
    in_vmalloc = stacks if used and facts.vmapped_stacks in (True, None) else 0
    shadow_in_vmalloc = shadow if used else 0
    if facts.vmapped_stacks is None and in_vmalloc:
        notes.append("kernel stacks are taken to be part of VmallocUsed, as with CONFIG_VMAP_STACK;"
                     " the kernel's configuration is not readable here")
    percpu = memory.get("Percpu", 0) - facts.percpu_without_cpu
    chunk = facts.first_percpu_chunk
    simple = [
        ("secondary_page_tables", "page tables of guests and IOMMUs", "SecPageTables",
         "cat /proc/meminfo"),
        ("misc_reclaimable", "other reclaimable kernel memory", "", ""),
        ("gpu_active", "GPU objects", "GPUActive", "grep drm /proc/*/fdinfo/*"),
        ("gpu_reclaim", "GPU pools that can be reclaimed", "GPUReclaim", ""),
        ("bounce", "bounce buffers", "Bounce", ""),
        ("writeback_tmp", "FUSE writeback buffers", "WritebackTmp", ""),
        ("corrupted", "pages with memory errors", "HardwareCorrupted", "dmesg | grep hwpoison"),
    ]
    rows = [
        *slab_rows(facts),
        Row("kernel_stacks", "kernel stacks", stacks, "KernelStack", "ps -eLf | wc -l"),
        Row("shadow_stacks", "shadow call stacks", shadow, "ShadowCallStack", ""),
        Row("page_tables", "page tables", memory.get("PageTables", 0), "PageTables",
            "grep VmPTE /proc/*/status"),
        Row("vmalloc", "vmalloc without kernel stacks" if in_vmalloc else "vmalloc",
            used - in_vmalloc - shadow_in_vmalloc,
            "VmallocUsed - KernelStack" if in_vmalloc else "VmallocUsed", "cat /proc/vmallocinfo",
            rows=vmalloc_rows(facts, used - in_vmalloc - shadow_in_vmalloc, stacks)),
        Row("percpu", "per-CPU memory", percpu - (chunk or 0), "Percpu",
            "grep Percpu /proc/meminfo",
            "" if chunk is not None else "with its first chunk, which is not part of MemTotal, and"
                                         " perhaps units without a CPU"),
        _zsmalloc(facts),
        Row("memmap", "page structs of memory added later",
            facts.vmstat.get("nr_memmap_pages", 0) * facts.page_size, "nr_memmap_pages",
            "lsmem")]
    if not facts.zswap_in_zsmalloc:
        rows.append(Row("zswap", "zswap", memory.get("Zswap", 0), "Zswap",
                        "grep Zswap /proc/meminfo"))
    if facts.balloon_outside is False:
        rows.append(Row("balloon", "balloon (the host has it)", memory.get("Balloon", 0), "Balloon",
                        "cat /proc/meminfo"))
    for key, name, counter, command in simple:
        amount = memory.get(counter, 0)
        if key == "misc_reclaimable":
            amount = memory.get("KReclaimable", 0) - memory.get("SReclaimable", 0)
            amount, counter = (amount, "KReclaimable - SReclaimable") if (
                "KReclaimable" in memory) else (0, "")
        rows.append(Row(key, name, amount, counter, command))
    return rows


def _zsmalloc(facts: MemoryFacts) -> Row:
    whole = facts.vmstat.get("nr_zspages", 0) * facts.page_size
    parts = [Row("zram", name, held, "mem_used_total", f"zramctl /dev/{name}")
             for name, held in facts.zram if held]
    if facts.zswap_in_zsmalloc and facts.meminfo.get("Zswap"):
        parts.append(Row("zswap", "zswap", facts.meminfo["Zswap"], "Zswap",
                         "grep Zswap /proc/meminfo"))
    return Row("zsmalloc", "compressed memory (zram, zswap)", whole, "nr_zspages", "zramctl",
               rows=with_rest(whole, parts, "other users of zsmalloc") if parts else ())


def _free_rows(facts: MemoryFacts) -> list[Row]:
    memory = facts.meminfo
    free = memory.get("MemFree", 0)
    parts = [Row("free_cma", "reserved for DMA (CMA), lent to movable pages",
                 memory.get("CmaFree", 0), "CmaFree", "grep Cma /proc/meminfo"),
             Row("unaccepted", "not yet accepted by this guest", memory.get("Unaccepted", 0),
                 "Unaccepted", "cat /proc/meminfo")]
    parts = [row for row in parts if row.bytes]
    return [Row("free", "free", free, "MemFree", "pageowner frag",
                rows=with_rest(free, parts, "free for all") if parts else ()),
            Row("pcp", "free, on the CPUs' own lists", facts.pcp_pages * facts.page_size,
                "count: of zoneinfo", "cat /proc/zoneinfo")]


def _known(facts: MemoryFacts) -> list[str]:
    """What may be in the memory that no counter counts, as far as something tells."""
    found = []
    for protocol, held in facts.sockets.items():
        if held:
            found.append(f"{protocol} sockets hold {size(held)} (partly in slabs)")
    buffers = facts.dmabuf or (sum(facts.files.dmabuf.values()) if facts.files else 0)
    if buffers:
        found.append(f"dma-buf buffers hold {size(buffers)} (GPU objects may be among them)")
    gpu = sum(client.system for client in facts.files.gpu) if facts.files else 0
    if gpu and "GPUActive" not in facts.meminfo:
        found.append(f"GPU drivers hold {size(gpu)} of system memory (partly in Shmem)")
    if facts.meminfo.get("Balloon") and facts.balloon_outside is None:
        found.append(f"the balloon holds {size(facts.meminfo['Balloon'])}, which may not be part of"
                     " MemTotal")
    if facts.moved:
        found.append(f"free memory changed by {size(facts.moved)} while the counters were read")
    return found
