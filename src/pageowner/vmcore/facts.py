"""What `pageowner.analysis.balance` needs of the machine whose memory was dumped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import memory_pools
from pageowner.kernel.flag_bits import mask
from pageowner.kernel.process_memory import ProcessMemory
from pageowner.kernel_memory.access import word
from pageowner.model.memory_facts import MemoryFacts
from pageowner.tracker.users.files import Holders, Namer
from pageowner.tracker.users.page_cache import page_cache_of
from pageowner.tracker.users.tables import PageTables
from pageowner.vmcore import counters
from pageowner.vmcore.bpf_maps import cpus
from pageowner.vmcore.kernel_log import lines
from pageowner.vmcore.machine import VmcoreMachine
from pageowner.vmcore.slab_caches import slab_caches
from pageowner.vmcore.structs import has, place, value
from pageowner.vmcore.user_files import mounts
from pageowner.vmcore.user_structures import KernelStructures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.vmcore.memory import Vmcore
    from pageowner.vmcore.page_structs import VmcoreFrames

__all__ = ["memory_facts"]

_FILE_SECONDS = 30.0
_PIECE = 15
"""Bits of the number of frames whose flags are read at once."""
_ANON = np.uint64(mask("anon"))
_KERNEL = 1 << 63


def memory_facts(memory: Vmcore) -> MemoryFacts:
    """Its counters, slab caches, processes and files in the page cache. What cannot be read is
    said in ``notes``. Raises PageownerError where it does not tell how much memory there was."""
    found = MemoryFacts(memory.page_size, counters.meminfo(memory), counters.vmstat(memory))
    found.vmapped_stacks = has(memory, "task_struct", "stack_vm_area")
    machine = VmcoreMachine(memory)
    with_notes = _Noting(found)
    with_notes("the free pages on the lists of the CPUs are", _zones, memory, machine)
    with_notes("slabs by cache are", _slabs, memory)
    with_notes("the kernel's log is", _first_chunk, memory)
    try:
        structures = KernelStructures(memory, machine.frames().mem_maps)
    except PageownerError as error:
        found.notes.append(f"processes and files are not known: {error}")
        return found
    with_notes("processes are", _processes, memory, structures, machine.frames())
    with_notes("files of the page cache are", _files, memory, structures,
               machine.frames().ranges())
    return found


class _Noting:
    """Calls that may fail, each of which is then noted."""

    def __init__(self, found: MemoryFacts) -> None:
        self._found = found

    def __call__(self, what: str, work: Any, *arguments: Any) -> None:
        try:
            work(self._found, *arguments)
        except PageownerError as error:
            self._found.notes.append(f"{what} not known: {error}")


def _zones(found: MemoryFacts, memory: Vmcore, machine: VmcoreMachine) -> None:
    zones = machine.zone_map.zones
    found.present_pages = sum(zone.present for zone in zones)
    found.managed_pages = sum(zone.managed for zone in zones)
    found.pcp_pages = counters.pcp_pages(memory, machine.zone_structs)
    free = counters.available(memory, found.meminfo, machine.zone_structs)
    if free is not None:
        found.meminfo["MemAvailable"] = free


def _slabs(found: MemoryFacts, memory: Vmcore) -> None:
    found.slabs, found.reclaimable_slabs = slab_caches(memory)


def _first_chunk(found: MemoryFacts, memory: Vmcore) -> None:
    found.first_percpu_chunk = memory_pools.first_percpu_chunk(lines(memory), len(cpus(memory)))


def _processes(found: MemoryFacts, memory: Vmcore, structures: Any, frames: VmcoreFrames) -> None:
    bases, size = cpus(memory).tolist(), memory.page_size
    shares = _shares(structures, frames)
    seen: set[int] = set()
    for task in structures.tasks():
        mm = int(task["mm"])
        if mm and mm not in seen:
            seen.add(mm)
            anonymous, file, shared = (_resident(memory, mm, kind, bases) * size for kind in (
                "MM_ANONPAGES", "MM_FILEPAGES", "MM_SHMEMPAGES"))
            comm = bytes(task["comm"]).partition(b"\0")[0].decode("utf-8", "backslashreplace")
            found.processes.append(ProcessMemory(
                int(task["tgid"]), comm, anonymous, anonymous + file + shared,
                value(memory, mm, "mm_struct", "pgtables_bytes"), shares.get(int(task["tgid"]))))
    found.processes.sort(key=lambda process: (-process.anonymous, process.pid))


def _shares(structures: Any, frames: VmcoreFrames) -> dict[int, int]:
    """Bytes of anonymous memory by process, of a page that several map its share each; without
    those of whom not all page tables could be read."""
    tasks = structures.tasks()
    tables = PageTables(structures, tasks)
    if not tables.known:
        return {}
    pids = sorted({int(task["tgid"]) for task in tasks if task["mm"]})
    mapped = {pid: pfn for pid in pids if (pfn := tables.of_process(pid)) is not None}
    if not mapped:
        return {}
    every, places, sharing = np.unique(np.concatenate(list(mapped.values())), return_inverse=True,
                                       return_counts=True)
    share = np.where(_anonymous(frames, every), structures.memory.page_size / sharing, 0.0)[places]
    ends = np.cumsum([len(pfn) for pfn in mapped.values()])
    return {pid: int(part.sum()) for pid, part in zip(
        mapped, np.split(share, ends[:-1]), strict=True)}


def _anonymous(frames: VmcoreFrames, pfn: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of these frames, which are in order, are."""
    found = np.zeros(len(pfn), bool)
    bounds = np.flatnonzero(np.diff(pfn >> np.uint64(_PIECE))) + 1
    for part in np.split(np.arange(len(pfn)), bounds):
        first = int(pfn[part[0]])
        flags = frames.flags(first, int(pfn[part[-1]]) + 1 - first)
        found[part] = flags[(pfn[part] - np.uint64(first)).astype(np.int64)] & _ANON != 0
    return found


def _resident(memory: Vmcore, mm: int, kind: str, bases: list[int]) -> int:
    """Pages of an address space: counters for each CPU since 6.2, before numbers."""
    number, at = _KINDS[kind], place(memory, mm, "mm_struct", "rss_stat")
    each = memory.types.size("percpu_counter") or 0
    whole = memory.types.member("mm_struct", "rss_stat")
    if each and whole is not None and whole.size == 4 * each:
        return counters.percpu_sum(memory, at + number * each, bases)
    count = word(memory, at + 8 * number)
    return 0 if count & _KERNEL else count


_KINDS = {"MM_FILEPAGES": 0, "MM_ANONPAGES": 1, "MM_SHMEMPAGES": 3}
"""include/linux/mm_types_task.h: members of an enum without a name."""


def _files(found: MemoryFacts, memory: Vmcore, structures: Any,
           ranges: list[tuple[int, int]]) -> None:
    found.page_cache = page_cache_of(
        structures, ranges, lambda: Namer(
            Holders(), mounts(memory, structures.super_blocks), sys=None), _FILE_SECONDS)
