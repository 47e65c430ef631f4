"""Who has the memory of a line of the balance: rows that add up to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pageowner.analysis.balance_row import Row

if TYPE_CHECKING:
    from pageowner.kernel.slabs import SlabCache
    from pageowner.model.memory_facts import MemoryFacts

__all__ = ["anonymous_rows", "before_rows", "file_rows", "hugetlb_rows", "shared_rows",
           "slab_rows", "vmalloc_rows", "with_rest"]

STRUCT_PAGE = 64
"""Bytes of a struct page, where the kernel does not count them (include/linux/mm_types.h: it is
padded to 64 on 64-bit machines with memory cgroups)."""


def with_rest(whole: int, rows: list[Row], rest: str, command: str = "", moved: int = 0
              ) -> tuple[Row, ...]:
    """The rows, largest first, and what they leave of the whole as a last one; before it, by how
    much the whole had ``moved`` when the rows were read."""
    left = whole - sum(row.bytes for row in rows) + moved
    ordered = sorted(rows, key=lambda row: -row.bytes)
    if moved:
        ordered.append(Row("moved", "changed while it was read", -moved, note=(
            "the lines above were read later than their sum")))
    if left < 0:
        ordered.append(Row("rest", "counted twice, or changed", left, note=(
            "negative: the lines above overlap, or changed while they were read")))
    elif left:
        ordered.append(Row("rest", rest, left, command=command))
    return tuple(ordered)


def anonymous_rows(facts: MemoryFacts) -> tuple[Row, ...]:
    """Processes: their share of pages (Pss_Anon), or all that they map where that was not read."""
    rows = []
    for process in facts.processes:
        shared = process.proportional is None
        rows.append(Row(
            "process", f"process {process.pid} ({process.comm})",
            process.anonymous if process.proportional is None else process.proportional,
            "RssAnon" if shared else "Pss_Anon", f"pmap -X {process.pid}",
            "shared pages are counted in each process that maps them" if shared else ""))
    rows = [row for row in rows if row.bytes]
    if not rows:
        return ()
    return with_rest(facts.meminfo.get("AnonPages", 0), rows, "in no process above",
                     moved=_moved(facts, "AnonPages"))


def _moved(facts: MemoryFacts, counter: str) -> int:
    """By how many bytes a counter had changed when what it counts was looked at one by one."""
    now = facts.meminfo.get(counter, 0)
    return facts.meanwhile.get(counter, now) - now


def file_rows(facts: MemoryFacts, whole: int) -> tuple[Row, ...]:
    """Files in the page cache by file system, or else those that processes hold open."""
    if facts.page_cache is not None:
        by_place: dict[str, list[Row]] = {}
        for file in facts.page_cache.files:
            by_place.setdefault(file.place, []).append(
                Row("file", file.name, file.cached, "page structs", "fincore FILE"))
        rows = [Row("file_system", f"of the file system {place}", cached, "page structs",
                    "pageowner report --by user",
                    rows=with_rest(cached, by_place.get(place, []), "smaller files"))
                for place, cached in facts.page_cache.places.items()]
        return with_rest(whole, rows, "all other files",
                         moved=_moved(facts, "Cached") - _moved(facts, "Shmem"))
    rows = [Row("file", file.path, file.cached, "cachestat", f"ls -l /proc/{file.pid}/fd",
                f"open in process {file.pid} ({file.comm})")
            for file in (facts.open_files_cached.files if facts.open_files_cached else ())]
    return with_rest(whole, rows, "all other files") if rows else ()


def shared_rows(facts: MemoryFacts) -> tuple[Row, ...]:
    """Mounted tmpfs with the deleted files on them, System V segments, memfds."""
    deleted = [] if facts.files is None else facts.files.deleted
    devices = {mount.device for mount in facts.tmpfs}
    rows = []
    for mount in facts.tmpfs:
        held = [Row("deleted", f"deleted {file.path} of {_holders(file.holders)}", file.allocated,
                    "st_blocks", f"ls -l /proc/{file.holders[0][0]}/fd")
                for file in deleted if file.device == mount.device and file.allocated]
        if mount.used:
            rows.append(Row("tmpfs", f"tmpfs {mount.place}", mount.used, "statfs",
                            f"du -x {mount.place}",
                            rows=with_rest(mount.used, held, "files") if held else ()))
    rows += [Row("sysv", f"System V segment {segment.id} of process {segment.creator}",
                 segment.resident, "rss", f"ipcs -m -i {segment.id}")
             for segment in facts.sysv if segment.resident]
    for file in deleted:
        inside = file.device == facts.shm_device if facts.shm_device else (
            file.path.startswith("/memfd:"))
        if file.allocated and file.device not in devices and inside and not (
                file.path.startswith("/SYSV")):
            rows.append(Row("memfd", f"{file.path[1:]} of {_holders(file.holders)}", file.allocated,
                            "st_blocks", f"ls -l /proc/{file.holders[0][0]}/fd"))
    return with_rest(facts.meminfo.get("Shmem", 0), rows,
                     "shared mappings, GPU, others") if rows else ()


def _holders(holders: tuple[tuple[int, str], ...]) -> str:
    (pid, comm), *others = holders
    return f"{pid} ({comm})" + (f" and {len(others)} more" if others else "")


def hugetlb_rows(facts: MemoryFacts) -> tuple[Row, ...]:
    """Huge pages of each size: in use, promised to mappings, free for anybody."""
    rows = []
    for pool in facts.hugetlb:
        size, command = pool.page_bytes, "grep Huge /proc/meminfo"
        kib = f"{size >> 10:,} KiB"
        rows += [
            Row("hugetlb_used", f"{kib}: in use", (pool.pages - pool.free) * size,
                "nr - free", command),
            Row("hugetlb_reserved", f"{kib}: reserved, not used yet",
                min(pool.reserved, pool.free) * size, "resv", command),
            Row("hugetlb_free", f"{kib}: free", (pool.free - min(pool.reserved, pool.free)) * size,
                "free - resv", command)]
    rows = [row for row in rows if row.bytes]
    return with_rest(facts.meminfo.get("Hugetlb", 0), rows, "other huge pages") if rows else ()


def slab_rows(facts: MemoryFacts) -> list[Row]:
    """Reclaimable and unreclaimable slabs, by cache where slabinfo was readable."""
    memory, found = facts.meminfo, []
    for key, name, counter, reclaimable in (
            ("slab_reclaimable", "slabs that can be reclaimed", "SReclaimable", True),
            ("slab_unreclaimable", "slabs that cannot be reclaimed", "SUnreclaim", False)):
        parts: tuple[Row, ...] = ()
        if facts.slabs is not None and facts.reclaimable_slabs is not None:
            caches = [_cache(cache, facts) for cache in facts.slabs
                      if cache.pages and (cache.name in facts.reclaimable_slabs) is reclaimable]
            # kmalloc of more than two pages is counted here, and in no cache (mm/slub.c)
            parts = with_rest(memory.get(counter, 0), caches,
                              "in no cache" if reclaimable else "kmalloc of more than two pages")
        found.append(Row(key, name, memory.get(counter, 0), counter, "slabtop -o -s c", rows=parts))
    return found


def _cache(cache: SlabCache, facts: MemoryFacts) -> Row:
    used = cache.active / cache.objects if cache.objects else 0
    caller = facts.slab_callers.get(cache.name)
    by = "" if caller is None else f"; most by {_code(caller, facts)}"
    user = facts.slab_users.get(cache.name)
    if user is not None:
        of = "" if user.comm is None else f" of {user.comm}"
        known = min(user.tracked / max(cache.active * cache.object_size, 1), 1)
        by += (f"; {known:.0%} of these are tracked, the most ({user.share:.0%}) by"
               f" {_code(user.function, facts)}{of}")
    return Row("slab", cache.name, cache.pages * facts.page_size, "slabinfo",
               "slabtop -o -s c", f"{used:.0%} of objects in use{by}")


def _code(function: str, facts: MemoryFacts) -> str:
    """A function, with the line in it that allocates where that is known."""
    place = facts.code_lines.get(function)
    return function if place is None else f"{function} ({place})"


def vmalloc_rows(facts: MemoryFacts, whole: int, stacks: int) -> tuple[Row, ...]:
    """Areas of vmalloc by who asked for them, without kernel stacks in use."""
    if facts.vmalloc is None:
        return ()
    command = "cat /proc/vmallocinfo"
    rows = [Row("vmalloc_caller", caller, pages * facts.page_size, "vmallocinfo", command,
                facts.code_lines.get(caller, ""))
            for caller, pages in facts.vmalloc.items() if caller not in facts.stack_callers]
    kept = sum(facts.vmalloc[name] for name in facts.stack_callers) * facts.page_size - stacks
    if facts.vmapped_stacks and kept > 0:
        rows.append(Row("stacks_kept", "kernel stacks kept for new tasks", kept, "vmallocinfo",
                        command))
    return with_rest(whole, rows, "other areas", command)


def before_rows(facts: MemoryFacts) -> tuple[list[Row], int]:
    """What was taken before MemTotal, and the bytes of memory in all: System RAM of /proc/iomem,
    else the pages that exist. Without both there is nothing to tell."""
    memory, size = facts.meminfo, facts.page_size
    total = memory["MemTotal"]
    present = (facts.present_pages or 0) * size
    installed = facts.boot.get("System RAM") or present
    if installed < total:
        return [], total
    structs = facts.vmstat.get("nr_memmap_boot_pages")
    counted = structs is not None
    rows = [
        Row("page_structs", "page structs" if counted else "page structs, estimated",
            structs * size if structs is not None else present // size * STRUCT_PAGE,
            "nr_memmap_boot_pages" if counted else "", "grep memmap /proc/vmstat"),
        Row("kernel_image", "kernel image", facts.boot.get("Kernel image", 0), "iomem",
            "grep Kernel /proc/iomem"),
        Row("crash_kernel", "crash kernel", facts.boot.get("Crash kernel", 0), "iomem",
            "grep Crash /proc/iomem"),
        Row("first_percpu_chunk", "per-CPU memory of the image", facts.first_percpu_chunk or 0,
            "kernel log", "dmesg | grep percpu:")]
    if facts.balloon_outside and memory.get("Balloon"):
        rows.append(Row("balloon", "balloon (the host has it)", memory["Balloon"], "Balloon",
                        "cat /proc/meminfo"))
    return list(with_rest(installed - total, [row for row in rows if row.bytes],
                          "reserved by firmware and at boot", "dmesg | grep Memory:")), installed
