"""Where memory is often lost: one line each, with the command that tells more.

The limits are ours: large enough that a healthy machine shows none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pageowner.report.text import count, count_of, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.model.memory_facts import MemoryFacts

__all__ = ["Warned", "warnings_of"]

MIB = 1 << 20


class Warned(NamedTuple):
    """``key`` for programs; ``bytes`` that it is about, None if not known."""

    key: str
    text: str
    bytes: int | None
    command: str


def warnings_of(facts: MemoryFacts, unknown: int) -> list[Warned]:
    """All that apply, those about most memory first."""
    found = [*_slabs(facts), *_cgroups(facts), *_files(facts), *_hugetlb(facts),
             *_page_tables(facts), *_nodes(facts)]
    total = facts.meminfo["MemTotal"]
    if unknown > max(total // 20, 256 * MIB):
        found.append(Warned("unknown", f"{size(unknown)} are in no counter: drivers, network"
                            " buffers, BPF arenas or a leak in the kernel", unknown,
                            "pageowner on; pageowner report"))
    if unknown < -total // 1000:
        found.append(Warned("overlap", f"the counters add up to {size(-unknown)} more than"
                            " there is", unknown, "cat /proc/meminfo"))
    return sorted(found, key=lambda warned: -(warned.bytes or 0))


def _worth(facts: MemoryFacts) -> int:
    """Bytes below which nothing is said: half a percent of the memory, at least 64 MiB."""
    return max(64 * MIB, facts.meminfo["MemTotal"] // 200)


def _slabs(facts: MemoryFacts) -> Iterator[Warned]:
    held = facts.meminfo.get("SUnreclaim", 0)
    if held > max(facts.meminfo["MemTotal"] // 10, 256 * MIB):
        reclaimable = facts.reclaimable_slabs
        kept = [] if reclaimable is None else [
            cache for cache in facts.slabs or () if cache.name not in reclaimable]
        largest = max(kept, key=lambda cache: cache.pages, default=None)
        named = "" if largest is None else (
            f"; the largest is {largest.name} with {size(largest.pages * facts.page_size)}")
        yield Warned("slab_unreclaimable", "slabs that cannot be reclaimed hold"
                     f" {size(held)}{named}", held, "slabtop -o -s c")
    for cache in facts.slabs or ():
        empty = (cache.objects - cache.active) * cache.object_size
        if empty > _worth(facts) and cache.active * 2 < cache.objects:
            share = 1 - cache.active / cache.objects
            yield Warned("slab_empty", f"slab {cache.name} is {share:.0%} empty:"
                         f" {size(empty)} for objects that are free", empty,
                         f"grep '^{cache.name} ' /proc/slabinfo")


def _cgroups(facts: MemoryFacts) -> Iterator[Warned]:
    charges = facts.charges
    if charges is None:
        return
    held = charges.removed_bytes
    if (charges.removed or 0) >= 100 or (held or 0) > _worth(facts):
        number = "" if charges.removed is None else f"{count_of(charges.removed, 'cgroup')} that"
        much = "" if held is None or held <= 0 else f" and hold {size(held)}"
        yield Warned("cgroups_removed", f"{number or 'cgroups that'} were removed are still"
                     f" charged{much}", held, "pageowner report --memcg-state offline")


def _files(facts: MemoryFacts) -> Iterator[Warned]:
    in_memory = {mount.device for mount in facts.tmpfs}
    for file in () if facts.files is None else facts.files.deleted:
        if file.device in in_memory and file.allocated > _worth(facts):
            pid, comm = file.holders[0]
            yield Warned("deleted_file", f"deleted file {file.path} on tmpfs, held open by process"
                         f" {pid} ({comm}): {size(file.allocated)}", file.allocated,
                         f"ls -l /proc/{pid}/fd")
    idle = sum(file.allocated for file in facts.unmapped_shm or ())
    if facts.unmapped_shm and idle > _worth(facts):
        yield Warned("shm_unused", f"{count_of(len(facts.unmapped_shm), 'file')} in /dev/shm, which"
                     f" no process maps or holds open: {size(idle)}; the largest is"
                     f" {facts.unmapped_shm[0].path}", idle, "ls -lS /dev/shm")


def _hugetlb(facts: MemoryFacts) -> Iterator[Warned]:
    for pool in facts.hugetlb:
        idle = pool.free * pool.page_bytes
        if idle > _worth(facts):
            reserved = pool.reserved * pool.page_bytes
            promised = f", of which {size(reserved)} are reserved" if reserved else ""
            yield Warned("hugetlb_idle", f"{count(pool.free)} of {count(pool.pages)} huge pages of"
                         f" {pool.page_bytes >> 10:,} KiB are unused: {size(idle)}{promised}", idle,
                         "grep Huge /proc/meminfo")


def _page_tables(facts: MemoryFacts) -> Iterator[Warned]:
    memory = facts.meminfo
    held = memory.get("PageTables", 0)
    mapped = memory.get("AnonPages", 0) + memory.get("Mapped", 0)
    if held > _worth(facts) and held > mapped // 10:
        yield Warned("page_tables", f"page tables hold {size(held)}, to map {size(mapped)}", held,
                     "grep VmPTE /proc/*/status")
    for process in facts.processes:
        if process.page_tables > max(process.resident, 16 * MIB):
            yield Warned("page_tables", f"process {process.pid} ({process.comm}) has"
                         f" {size(process.page_tables)} of page tables for"
                         f" {size(process.resident)} of memory", process.page_tables,
                         f"pmap -X {process.pid}")


def _nodes(facts: MemoryFacts) -> Iterator[Warned]:
    if len(facts.nodes) < 2:
        return
    fullest = min(facts.nodes, key=lambda node: node.free / node.total)
    emptiest = max(facts.nodes, key=lambda node: node.free / node.total)
    low, high = fullest.free / fullest.total, emptiest.free / emptiest.total
    if low < 0.1 and high - low > 0.3:
        yield Warned("nodes", f"node {fullest.number} has {low:.0%} free and node {emptiest.number}"
                     f" {high:.0%}", emptiest.free - fullest.free, "numastat -m")
