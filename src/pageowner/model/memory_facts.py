"""What a machine says of its memory without any tracking: the input of ``pageowner balance``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pageowner.kernel.cached_files import CachedFiles
    from pageowner.kernel.cgroup_memory import CgroupCharges
    from pageowner.kernel.memory_pools import HugetlbPool, Node
    from pageowner.kernel.process_memory import OpenFiles, ProcessMemory
    from pageowner.kernel.shared_memory import SysvSegment, Tmpfs, TmpfsFile
    from pageowner.kernel.slabs import SlabCache

__all__ = ["CachedFile", "MemoryFacts", "PageCache", "SlabUser"]


class CachedFile(NamedTuple):
    """A file with pages in the page cache: its name, where its file system is mounted, bytes."""

    name: str
    place: str
    cached: int


class SlabUser(NamedTuple):
    """Who has most of a slab cache: a function, a task's name (None: unknown), and their share of
    the objects that are tracked, which are estimated at ``tracked`` bytes in all."""

    function: str
    comm: str | None
    share: float
    tracked: int


@dataclass
class PageCache:
    """Bytes of files in the page cache: of all files by where their file system is mounted, and the
    largest by name, largest first. ``complete`` is False where there was no time for all."""

    places: dict[str, int] = field(default_factory=dict)
    files: list[CachedFile] = field(default_factory=list)
    complete: bool = True


@dataclass
class MemoryFacts:
    """All sizes in bytes, counters of ``vmstat`` in pages. None, and what is empty, was not
    readable, or this kernel does not have it; ``missing`` says what root would add."""

    page_size: int
    meminfo: dict[str, int]
    vmstat: dict[str, int] = field(default_factory=dict)
    pcp_pages: int = 0
    """Free pages on the lists of the CPUs."""
    moved: int = 0
    """Bytes by which free memory changed while the counters were read."""
    meanwhile: dict[str, int] = field(default_factory=dict)
    """Counters of meminfo, in bytes, when what they count was looked at one by one: the mean of
    before and after."""
    present_pages: int | None = None
    managed_pages: int | None = None
    """Pages that exist, and those given to the page allocator, of /proc/zoneinfo."""
    boot: dict[str, int] = field(default_factory=dict)
    first_percpu_chunk: int | None = None
    percpu_without_cpu: int = 0
    """Bytes that Percpu counts and that are not there."""
    vmapped_stacks: bool | None = None
    processes: list[ProcessMemory] = field(default_factory=list)
    files: OpenFiles | None = None
    open_files_cached: CachedFiles | None = None
    """Of the page cache, files that processes hold open; not asked where all are known."""
    page_cache: PageCache | None = None
    """Of the page cache all files, by the kernel's own structures."""
    tmpfs: list[Tmpfs] = field(default_factory=list)
    sysv: list[SysvSegment] = field(default_factory=list)
    shm_device: str = ""
    """The device of memfds and other shared memory without a mount, as ``major:minor``."""
    unmapped_shm: list[TmpfsFile] | None = None
    """Files in /dev/shm that no process maps or holds open; None if not known."""
    slabs: list[SlabCache] | None = None
    reclaimable_slabs: set[str] | None = None
    slab_callers: dict[str, str] = field(default_factory=dict)
    """The function that allocated the most objects of a cache, where the kernel tells."""
    slab_users: dict[str, SlabUser] = field(default_factory=dict)
    """By cache, where objects are tracked."""
    code_lines: dict[str, str] = field(default_factory=dict)
    """``file:line`` in which a function allocates, where the kernel has /proc/allocinfo."""
    vmalloc: dict[str, int] | None = None
    """Pages by caller, of /proc/vmallocinfo."""
    stack_callers: set[str] = field(default_factory=set)
    hugetlb: list[HugetlbPool] = field(default_factory=list)
    zram: list[tuple[str, int]] = field(default_factory=list)
    zswap_in_zsmalloc: bool = True
    balloon_outside: bool | None = None
    dmabuf: int = 0
    sockets: dict[str, int] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    charges: CgroupCharges | None = None
    notes: list[str] = field(default_factory=list)
    """What could not be read even as root, in words."""
    missing: list[str] = field(default_factory=list)
