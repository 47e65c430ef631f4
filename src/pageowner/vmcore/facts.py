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
_ANON, _HUGE = np.uint64(mask("anon")), np.uint64(mask("huge"))
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
    if structures.failed:
        found.notes.append("not all processes are known: the kernel's lists of tasks are damaged in"
                           f" {sum(structures.failed.values()):,} places")
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
    log = lines(memory)
    found.first_percpu_chunk = memory_pools.first_percpu_chunk(log, len(cpus(memory)),
                                                               memory.page_size)
    found.percpu_without_cpu = memory_pools.percpu_without_cpu(log, found.meminfo.get("Percpu", 0))


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
    # The tables are read twice, since what all processes map may be many times the memory.
    anonymous, unread = _Anonymous(frames), set[int]()
    sharing = np.zeros(anonymous.stop, np.uint32)
    # Several processes may have one address space (vfork, CLONE_VM): it counts once, for the same
    # process as in _processes, which is the first.
    users = tasks[tasks["mm"] != 0]
    _, first = np.unique(users["mm"], return_index=True)
    pids = sorted(set(users["tgid"][first].tolist()))
    for pid in pids:
        for piece in tables.pieces_of_process(pid, anonymous):
            if piece is None:
                unread.add(pid)
            else:
                np.add.at(sharing, piece.astype(np.int64), 1)
    found = {}
    for pid in pids:
        if pid not in unread:
            # In /proc/kcore, a page may be mapped only since its tables were first read.
            share = sum(float((1 / np.maximum(sharing[piece.astype(np.int64)], 1)).sum())
                        for piece in tables.pieces_of_process(pid, anonymous) if piece is not None)
            found[pid] = round(share * structures.memory.page_size)
    return found


class _Anonymous:
    """Which of some frames are, but for hugetlb; flags are read once, in pieces. ``stop``: the
    frame behind all."""

    def __init__(self, frames: VmcoreFrames) -> None:
        self._frames = frames
        self._ranges = frames.ranges()
        self.stop = self._ranges[-1][1] if self._ranges else 0
        self._known = np.zeros((self.stop >> _PIECE) + 1, bool)
        self._is = np.zeros(len(self._known) << _PIECE, bool)

    def __call__(self, pfn: NDArray[np.uint64]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = pfn < np.uint64(self.stop)
        place = np.where(inside, pfn, np.uint64(0)).astype(np.int64)
        pieces = place >> _PIECE
        wanted = np.zeros(len(self._known), bool)
        wanted[pieces] = True
        for piece in np.flatnonzero(wanted & ~self._known).tolist():
            first, stop = piece << _PIECE, min((piece + 1) << _PIECE, self.stop)
            # The kernel's Pss_Anon (smaps_pte_range) leaves out hugetlb, which balance has apart.
            flags = self._frames.flags(first, stop - first)
            self._is[first:stop] = flags & (_ANON | _HUGE) == _ANON
            self._known[piece] = True
        found: NDArray[np.bool_] = inside & self._is[place]
        return found


def _resident(memory: Vmcore, mm: int, kind: str, bases: list[int]) -> int:
    """Pages of an address space: counters for each CPU since 6.2, before numbers."""
    number, at, types = _KINDS[kind], place(memory, mm, "mm_struct", "rss_stat"), memory.types
    if types.member("mm_struct", "rss_stat.count") is not None:
        count = word(memory, at + 8 * number)
        return 0 if count & _KERNEL else count
    each, whole = types.size("percpu_counter"), types.member("mm_struct", "rss_stat")
    if not each or whole is None or whole.size % each or whole.size <= number * each:
        raise PageownerError("mm_struct.rss_stat is of a type that is not known")
    return counters.percpu_sum(memory, at + number * each, bases)


_KINDS = {"MM_FILEPAGES": 0, "MM_ANONPAGES": 1, "MM_SHMEMPAGES": 3}
"""include/linux/mm_types_task.h: members of an enum without a name."""


def _files(found: MemoryFacts, memory: Vmcore, structures: Any,
           ranges: list[tuple[int, int]]) -> None:
    found.page_cache = page_cache_of(
        structures, ranges, lambda: Namer(
            Holders(), mounts(memory, structures.super_blocks), sys=None), _FILE_SECONDS)
