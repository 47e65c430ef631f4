"""Where all of a machine's memory is, by its own counters: ``pageowner balance``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.analysis.balance import balanced
from pageowner.errors import PageownerError, UsageError
from pageowner.kernel import (
    cached_files,
    cgroup_memory,
    cgroups,
    meminfo,
    memory_pools,
    process_memory,
    shared_memory,
    slabs,
    vmalloc_areas,
    zones,
)
from pageowner.kernel.containers import container, pod
from pageowner.model.memory_facts import MemoryFacts
from pageowner.sources.source import is_tracking
from pageowner.system.container_names import container_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pageowner.analysis.balance import Balance

__all__ = ["balance", "facts"]


def balance(source: str | os.PathLike[str] | None = None, *,
            root: str | os.PathLike[str] | None = None) -> Balance:
    """All memory of this machine by the kernel's counters, in lines that add up; tracking need not
    be on.

    ``source``: a vmcore, to show the memory of the machine that crashed. ``root``: a directory with
    copies of files from /proc and /sys of another machine (``proc/meminfo`` and others).

    Raises PageownerError if /proc/meminfo cannot be read, or ``source`` is not a vmcore.
    """
    if source is not None:
        from pageowner.sources import vmcore

        if root is not None:
            raise UsageError("a vmcore and a directory of copies are two machines: name one")
        return balanced(vmcore.memory_facts(os.fspath(source)))
    return balanced(facts(root))


def facts(root: str | os.PathLike[str] | None = None) -> MemoryFacts:
    """What `balance` reads, as it was read."""
    top = "" if root is None else os.fspath(root)
    proc, sys = f"{top}/proc", f"{top}/sys"
    try:
        read = meminfo.read_together(proc)
    except OSError as error:
        raise PageownerError(f"cannot read {proc}/meminfo: {error.strerror}") from error
    found = MemoryFacts(os.sysconf("SC_PAGE_SIZE"), meminfo.kilobytes(read.meminfo),
                        meminfo.parse_vmstat(read.vmstat), meminfo.pcp_pages(read.zoneinfo),
                        read.moved)
    if not found.meminfo.get("MemTotal"):
        raise PageownerError(f"{proc}/meminfo does not say how much memory there is (MemTotal)")
    _slabs(found, proc, sys)
    _vmalloc(found, proc, top)
    if read.zoneinfo:
        known = zones.parse_zoneinfo(read.zoneinfo)
        found.present_pages = sum(zone.present for zone in known)
        found.managed_pages = sum(zone.managed for zone in known)
        if top:
            found.page_size = _page_size(found.meminfo["MemTotal"], found.managed_pages)
    with _meanwhile(found, proc, "AnonPages"):
        found.processes = process_memory.processes(proc)
    unread = sum(process.proportional is None for process in found.processes)
    if unread and os.geteuid():
        found.missing.append(f"what {unread:,} processes share with others"
                             " (/proc/PID/smaps_rollup)")
    _shared(found, proc, this_machine=not top)
    found.hugetlb = memory_pools.hugetlb_pools(sys)
    found.zram = memory_pools.zram_devices(sys)
    found.zswap_in_zsmalloc = _zswap_pool(sys) == "zsmalloc"
    found.balloon_outside = memory_pools.balloon_outside_total(sys)
    found.dmabuf = memory_pools.dmabuf_bytes(sys)
    found.sockets = memory_pools.socket_bytes(found.page_size, proc)
    found.nodes = memory_pools.nodes(sys)
    if not top:
        _slab_users(found)
        found.charges = cgroup_memory.read_charges(cgroups.memory())
        names = container_names(charged.path for charged in found.charges.cgroups)
        found.charges.cgroups = [
            charged._replace(container=container(charged.path, names), pod=pod(charged.path, names))
            for charged in found.charges.cgroups]
    _boot(found, proc, sys, this_machine=not top)
    return found


@contextmanager
def _meanwhile(found: MemoryFacts, proc: str, *counters: str) -> Iterator[None]:
    """What these counters are while the body reads what they count."""
    before = meminfo.sizes(proc)
    yield
    after = meminfo.sizes(proc)
    for name in counters:
        if name in before and name in after:
            found.meanwhile[name] = (before[name] + after[name]) // 2


def _page_size(total: int, managed_pages: int) -> int:
    """The page size of another machine: that with which its zones have as much as MemTotal."""
    return min((1 << shift for shift in range(12, 17)),
               key=lambda size: abs(managed_pages * size - total))


def _slabs(found: MemoryFacts, proc: str, sys: str) -> None:
    text = _text(f"{proc}/slabinfo")
    if text is None:
        found.missing.append("slabs by cache (/proc/slabinfo)")
        return
    found.slabs = slabs.parse_slabinfo(text)
    found.reclaimable_slabs = slabs.reclaimable_names(
        [cache.name for cache in found.slabs], sys)
    found.slab_callers = slabs.allocating_functions(found.slabs, f"{sys}/kernel/debug")
    found.code_lines = slabs.allocating_lines(_text(f"{proc}/allocinfo") or "")


def _slab_users(found: MemoryFacts) -> None:
    """Who has most of each cache, where this machine's tracker follows objects and may be read."""
    if os.geteuid() or not is_tracking():
        return
    from pageowner.analysis.slab_users import slab_users
    from pageowner.tracker.read.capture_objects import capture_objects
    from pageowner.tracker.read.maps import open_store

    try:
        with open_store() as store:
            if store.facts["options"].get("objects"):
                found.slab_users = slab_users(capture_objects(store))
    except PageownerError as error:
        found.notes.append(f"whose objects slabs hold is not known: {error}")


def _vmalloc(found: MemoryFacts, proc: str, top: str) -> None:
    found.vmapped_stacks = memory_pools.vmapped_stacks(proc, f"{top}/boot")
    text = _text(f"{proc}/vmallocinfo")
    if text is None:
        found.missing.append("vmalloc by caller (/proc/vmallocinfo)")
        return
    found.vmalloc = vmalloc_areas.parse_vmallocinfo(text)
    found.stack_callers = {name for name in found.vmalloc if vmalloc_areas.is_stack_caller(name)}
    if found.vmapped_stacks is None or found.stack_callers:
        found.vmapped_stacks = bool(found.stack_callers)


def _shared(found: MemoryFacts, proc: str, this_machine: bool) -> None:
    names = {process.pid: process.comm for process in found.processes}
    found.files = process_memory.open_files(names, proc)
    if found.files.unreadable:
        found.missing.append(f"open files of {found.files.unreadable:,} processes (/proc/PID/fd)")
    found.sysv = shared_memory.read_sysv(proc)
    if not this_machine:
        return
    if not _page_cache(found):
        found.open_files_cached = cached_files.open_cached_files(names, found.page_size)
    found.shm_device = shared_memory.memfd_device()
    found.tmpfs = shared_memory.tmpfs_mounts(list(names))
    files = shared_memory.shm_files()
    if not files:
        found.unmapped_shm = []
        return
    mapped = process_memory.mapped_inodes(list(names))
    if mapped is not None and found.files.complete:
        held = process_memory.named_files_open(list(names), {
            (file.device, file.inode) for file in files})
        found.unmapped_shm = [file for file in files
                              if (file.device, file.inode) not in mapped | held]


def _page_cache(found: MemoryFacts) -> bool:
    """All files in the page cache, which root may ask for."""
    if os.geteuid():
        return False
    from pageowner.tracker.users.page_cache import read_page_cache

    try:
        with _meanwhile(found, "/proc", "Cached", "Shmem"):
            found.page_cache = read_page_cache()
    except PageownerError as error:
        found.notes.append(f"of the page cache only open files are known: {error}")
        return False
    return True


def _zswap_pool(sys: str) -> str:
    """zsmalloc is the only one since 6.18 (mm/zswap.c)."""
    return (_text(f"{sys}/module/zswap/parameters/zpool") or "zsmalloc").strip()


def _boot(found: MemoryFacts, proc: str, sys: str, this_machine: bool) -> None:
    found.boot = memory_pools.boot_ranges(_text(f"{proc}/iomem") or "")
    if not found.boot:
        found.missing.append("what the kernel's image takes (/proc/iomem)")
    log = memory_pools.kernel_log() if this_machine else (
        (_text(f"{proc}/kmsg.txt") or "").splitlines())
    units = memory_pools.parse_possible_cpus(_text(f"{sys}/devices/system/cpu/possible") or "0")
    found.first_percpu_chunk = memory_pools.first_percpu_chunk(log, units, found.page_size)
    found.percpu_without_cpu = memory_pools.percpu_without_cpu(log, found.meminfo.get("Percpu", 0))


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return None
