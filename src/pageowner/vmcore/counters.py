"""The counters of /proc/meminfo and /proc/zoneinfo, out of a dump.

fs/proc/meminfo.c and mm/vmstat.c of 6.1, 6.12 and 7.3. The counters of the whole machine
(``vm_node_stat``, ``vm_zone_stat``) are as /proc/meminfo prints them, without what the CPUs have
not added yet. Where a counter is in them tell enum node_stat_item and enum zone_stat_item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import offset, symbol, word
from pageowner.vmcore.bpf_maps import cpus
from pageowner.vmcore.structs import linked, place, value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pageowner.vmcore.memory import Vmcore

__all__ = ["available", "meminfo", "pcp_pages", "percpu_sum", "vmstat"]

_NODE = {"AnonPages": "NR_ANON_MAPPED", "Shmem": "NR_SHMEM", "SwapCached": "NR_SWAPCACHE",
         "SReclaimable": "NR_SLAB_RECLAIMABLE_B", "SUnreclaim": "NR_SLAB_UNRECLAIMABLE_B",
         "PageTables": "NR_PAGETABLE", "SecPageTables": "NR_SECONDARY_PAGETABLE",
         "WritebackTmp": "NR_WRITEBACK_TEMP", "Mapped": "NR_FILE_MAPPED",
         "Dirty": "NR_FILE_DIRTY", "Writeback": "NR_WRITEBACK", "Active(anon)": "NR_ACTIVE_ANON",
         "Inactive(anon)": "NR_INACTIVE_ANON", "Active(file)": "NR_ACTIVE_FILE",
         "Inactive(file)": "NR_INACTIVE_FILE", "Unevictable": "NR_UNEVICTABLE",
         "VmallocUsed": "NR_VMALLOC", "Balloon": "NR_BALLOON_PAGES", "GPUActive": "NR_GPU_ACTIVE",
         "GPUReclaim": "NR_GPU_RECLAIM"}
_ZONE = {"MemFree": "NR_FREE_PAGES", "Bounce": "NR_BOUNCE", "CmaFree": "NR_FREE_CMA_PAGES",
         "Unaccepted": "NR_UNACCEPTED"}
_SIGN = 1 << 63
_MOST_HSTATES = 16


def meminfo(memory: Vmcore) -> dict[str, int]:
    """Bytes by the names of /proc/meminfo; without what this kernel does not have. Raises
    PageownerError where it does not tell how much memory there is."""
    size = memory.page_size
    found = {"MemTotal": size * word(memory, symbol(memory, "_totalram_pages"))}
    for names, enum, table in ((_NODE, "node_stat_item", "vm_node_stat"),
                               (_ZONE, "zone_stat_item", "vm_zone_stat")):
        for name, item in names.items():
            if (count := _counter(memory, enum, item, table)) is not None:
                found[name] = size * count
    stacks = _counter(memory, "node_stat_item", "NR_KERNEL_STACK_KB", "vm_node_stat")
    if stacks is not None:
        found["KernelStack"] = stacks << 10
    shadow = _counter(memory, "node_stat_item", "NR_KERNEL_SCS_KB", "vm_node_stat")
    if shadow:
        found["ShadowCallStack"] = shadow << 10
    other = _counter(memory, "node_stat_item", "NR_KERNEL_MISC_RECLAIMABLE", "vm_node_stat")
    if other is not None and "SReclaimable" in found:
        found["KReclaimable"] = found["SReclaimable"] + size * other
    for kind in ("Active", "Inactive"):
        found[kind] = found.get(f"{kind}(anon)", 0) + found.get(f"{kind}(file)", 0)
    if "VmallocUsed" not in found:
        found |= _of_symbols(memory, "VmallocUsed", "nr_vmalloc_pages")
    found |= _of_symbols(memory, "Percpu", "pcpu_nr_populated", "pcpu_nr_units")
    found |= _of_symbols(memory, "HardwareCorrupted", "num_poisoned_pages")
    found["Hugetlb"] = _hugetlb(memory)
    found["Buffers"] = _buffers(memory) * size
    files = _counter(memory, "node_stat_item", "NR_FILE_PAGES", "vm_node_stat")
    if files is not None:
        found["Cached"] = max(size * files - found.get("SwapCached", 0) - found["Buffers"], 0)
    return found


def vmstat(memory: Vmcore) -> dict[str, int]:
    """Pages by the names of /proc/vmstat, of those that `meminfo` does not have."""
    found = {}
    for name, item, enum, table in (
            ("nr_zspages", "NR_ZSPAGES", "zone_stat_item", "vm_zone_stat"),
            ("nr_memmap_pages", "NR_MEMMAP", "node_stat_item", "vm_node_stat")):
        if (count := _counter(memory, enum, item, table)) is not None:
            found[name] = count
    return found


def _counter(memory: Vmcore, enum: str, item: str, table: str) -> int | None:
    number, address = memory.types.enumerator(enum, item), memory.symbol(table)
    if number is None or address is None:
        return None
    count = word(memory, address + 8 * number)
    return 0 if count & _SIGN else count


def _of_symbols(memory: Vmcore, name: str, *symbols: str) -> dict[str, int]:
    """Bytes of as many pages as these numbers multiplied."""
    count = memory.page_size
    for each in symbols:
        address = memory.symbol(each)
        if address is None:
            return {}
        count *= word(memory, address, "<u4" if each == "pcpu_nr_units" else "<u8")
    return {name: count} if count < 1 << 63 else {}


def _hugetlb(memory: Vmcore) -> int:
    count, table = memory.symbol("hugetlb_max_hstate"), memory.symbol("hstates")
    size = memory.types.size("hstate")
    if count is None or table is None or not size:
        return 0
    return sum(
        value(memory, at, "hstate", "nr_huge_pages") * memory.page_size
        << min(value(memory, at, "hstate", "order"), 32)
        for at in range(table, table + size * min(word(memory, count, "<u4"), _MOST_HSTATES), size))


def _buffers(memory: Vmcore) -> int:
    """Pages of block devices (block/bdev.c, nr_blockdev_pages)."""
    pointer = memory.symbol("blockdev_superblock")
    block = 0 if pointer is None else word(memory, pointer)
    if not block:
        return 0
    at = offset(memory.types, "inode", "i_sb_list")
    try:
        return sum(value(memory, value(memory, link - at, "inode", "i_mapping"), "address_space",
                         "nrpages")
                   for link in linked(memory, place(memory, block, "super_block", "s_inodes")))
    except PageownerError:
        return 0


def available(memory: Vmcore, found: dict[str, int], zones: Iterable[int]) -> int | None:
    """MemAvailable (mm/show_mem.c, si_mem_available) of what `meminfo` found; None where the
    kernel's own reserve is not to be had."""
    reserve = memory.symbol("totalreserve_pages")
    if reserve is None or memory.types.member("zone", "_watermark") is None:
        return None
    size = memory.page_size
    mark = memory.types.enumerator("zone_watermarks", "WMARK_LOW")
    at = offset(memory.types, "zone", "_watermark") + 8 * (1 if mark is None else mark)
    low = size * sum(word(memory, zone + at) for zone in zones)
    files = found.get("Active(file)", 0) + found.get("Inactive(file)", 0)
    other = found.get("KReclaimable", 0)
    return max(found.get("MemFree", 0) - size * word(memory, reserve)
               + files - min(files // 2, low) + other - min(other // 2, low), 0)


def pcp_pages(memory: Vmcore, zones: Iterable[int]) -> int:
    """Free pages on the lists of the CPUs, of zones by the addresses of their structs."""
    bases, found = cpus(memory).tolist(), 0
    for zone in zones:
        lists = value(memory, zone, "zone", "per_cpu_pageset")
        found += sum(value(memory, (lists + base) % (1 << 64), "per_cpu_pages", "count")
                     for base in bases)
    return found


def percpu_sum(memory: Vmcore, counter: int, bases: list[int]) -> int:
    """The sum of a struct percpu_counter (lib/percpu_counter.c, percpu_counter_sum)."""
    total = value(memory, counter, "percpu_counter", "count")
    lists = value(memory, counter, "percpu_counter", "counters")
    for base in bases:
        part = word(memory, (lists + base) % (1 << 64), "<u4")
        total += part - (1 << 32) if part >> 31 else part
    total &= (1 << 64) - 1
    return 0 if total & _SIGN else total
