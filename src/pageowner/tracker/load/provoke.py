"""Done on purpose for hooks to see: what takes or moves pages of this process alone, in passing.

A hook that is attached is not yet one that sees: a kernel may have another function do the work.
So each path that can be taken without harm is taken once, with memory of our own that is given back
at once. Settings of the machine stay what they are, and nothing is taken that would have to be made
free first: what needs large blocks looks in /proc/buddyinfo whether there are some.

No such way is known for contiguous ranges, exact allocations and fragmentation events.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pageowner.kernel import flag_bits, pagemap, procpages, ranges, zones
from pageowner.kernel.free_area import suitable
from pageowner.model.hook_states import ATTACHED
from pageowner.tracker.load.libbpf import MMAPABLE, BpfError
from pageowner.tracker.read.maps import NONE, map_array
from pageowner.tracker.read.reading import whole_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pageowner.tracker.read.maps import Store

__all__ = ["provoke", "take_bulk"]

_MIB = 1 << 20
_MADV_COLD = 20
_PRESENT, _FRAME = 1 << 63, (1 << 55) - 1
_GENERIC = dict.fromkeys(("aarch64", "riscv64", "loongarch64"), (239, 280))
_SYSCALLS = {"x86_64": (279, 321), "ppc64le": (301, 361), "s390x": (310, 351)} | _GENERIC
"""move_pages(2) and bpf(2)."""
_MPOL_MF_MOVE = 2
_BPF_BTF_LOAD = 18
_VMALLOC_PAGES, _THREADS = 16, 16
_HEAD = flag_bits.mask("compound_head")

_HUGE = Path("/sys/kernel/mm/transparent_hugepage")
_NODES = Path("/sys/devices/system/node/has_memory")

_libc = ctypes.CDLL(None, use_errno=True)


def provoke(store: Store, hooks: dict[str, str], records: bool = True) -> dict[str, str]:
    """Take each path once whose hook is attached and writes to this store.

    The counters tell then which hooks have seen something (`seen.with_seen`). With ``records``
    those of the pages are looked at too: a hook whose page has none, or an old one, is returned
    as ``blind: …``. Never fails; takes some milliseconds.
    """
    ways: dict[str, Callable[[Store | None], str]] = {
        "alloc_pages_bulk": lambda looking: _bulk(store, looking),
        "split_page": _split_block,
        "split_folio": _split_huge_page,
        "folio_migrate_flags": _move_page,
    }
    found = dict(hooks)
    for name, way in ways.items():
        if hooks.get(name) == ATTACHED:
            with suppress(OSError, ValueError, BpfError):
                unseen = way(store if records else None)
                if unseen:
                    found[name] = f"blind: it did not see {unseen}"
    return found


def take_bulk(store: Store) -> bool:
    """Have the kernel take pages from the bulk allocator; whether its hook has seen some.

    vmalloc() does, for an array above 32 KiB (bpf_map_area_alloc() in kernel/bpf/syscall.c); but
    not where the array is charged to a memory cgroup (alloc_pages_bulk_noprof() in mm/page_alloc.c
    of 6.12). Kernel stacks are charged later; of these some CPUs have old ones at hand, two each
    (NR_CACHED_STACKS in kernel/fork.c).
    """
    def seen() -> bool:
        return store.counters()["bulk"] > 0

    os.close(store.bpf.create_array("po_provoke", 1 << 12, 1 << 8))
    if seen():
        return True
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(_THREADS)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
            if seen():
                return True
    except RuntimeError:
        pass  # no more threads for this process
    finally:
        end.set()
        for thread in started:
            thread.join()
    return seen()


def _bulk(store: Store, looking: Store | None) -> str:
    """A BPF array that can be mapped is vmalloc()ed, page by page."""
    take_bulk(store)
    if looking is None:
        return ""
    fd = store.bpf.create_array("po_provoke", mmap.PAGESIZE, _VMALLOC_PAGES, MMAPABLE)
    try:
        pages = map_array(fd, np.dtype(np.uint8), _VMALLOC_PAGES * mmap.PAGESIZE)
        int(pages[:: mmap.PAGESIZE].sum())  # makes the mapping present
        pfns = pagemap.frames(pages.ctypes.data, _VMALLOC_PAGES)
        lost = sum(_order(looking, pfn) is None for pfn in pfns)
    finally:
        os.close(fd)
    return f"{lost} of {_VMALLOC_PAGES} pages of a vmalloc()" if lost else ""


def _split_block(_: Store | None) -> str:
    """kvmalloc() of more than kmalloc() has (4 MiB) takes huge blocks where it can, and makes
    single pages of them with split_page() (vm_area_alloc_pages() in mm/vmalloc.c of 6.1 to 7.3). So
    does BPF_BTF_LOAD for types that it then refuses, since these here are zeros."""
    size = 4 * _MIB + mmap.PAGESIZE
    if not _large_blocks(2 * _MIB, 3):
        return ""
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ) as zeros:
        attribute = np.zeros(16, np.uint64)
        attribute[0] = np.frombuffer(zeros, np.uint8).ctypes.data
        attribute[2] = size
        result = _libc.syscall(ctypes.c_long(_SYSCALLS[platform.machine()][1]),
                               ctypes.c_long(_BPF_BTF_LOAD), ctypes.c_void_p(attribute.ctypes.data),
                               ctypes.c_long(attribute.nbytes))
        if result >= 0:
            os.close(result)
    return ""


def _split_huge_page(looking: Store | None) -> str:
    """To be told that a part of a huge page is cold, the kernel splits it
    (madvise_cold_or_pageout_pte_range() in mm/madvise.c)."""
    if "[never]" in (_HUGE / "enabled").read_text():
        return ""
    size = int((_HUGE / "hpage_pmd_size").read_text())
    if not _large_blocks(size, 1):
        return ""
    with mmap.mmap(-1, 2 * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        start = -address % size
        area.madvise(mmap.MADV_HUGEPAGE, start, size)
        for at in range(start, start + size, mmap.PAGESIZE):
            area[at] = 1  # pages that are all zeros would be freed
        pfn = pagemap.frames(address + start, 1)[0]
        if not _flags(pfn) & _HEAD:
            return ""
        area.madvise(_MADV_COLD, start, mmap.PAGESIZE)
        split = not _flags(pfn) & _HEAD
        order = _order(looking, pfn) if looking else 0
    return "the split of a huge page" if split and order else ""


def _move_page(looking: Store | None) -> str:
    """move_pages(2) of a page of ours to another node, where there is one."""
    nodes = ranges.numbers(_NODES.read_text())
    if len(nodes) < 2:
        return ""
    with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[0] = 1
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        before = pagemap.frames(address, 1)[0]
        for node in nodes:
            status = ctypes.c_int(-1)
            _libc.syscall(ctypes.c_long(_SYSCALLS[platform.machine()][0]), ctypes.c_long(0),
                          ctypes.c_long(1), ctypes.byref(ctypes.c_void_p(address)),
                          ctypes.byref(ctypes.c_int(node)), ctypes.byref(status),
                          ctypes.c_long(_MPOL_MF_MOVE))
            after = pagemap.frames(address, 1)[0]
            if after != before:
                return "a page that was moved" if looking and _order(looking, after) is None else ""
    return ""


def _large_blocks(size: int, wanted: int) -> bool:
    """Whether so many blocks of ``size`` bytes are free: twice as many are, to leave some."""
    order = (size // mmap.PAGESIZE).bit_length() - 1
    free = zones.parse_buddyinfo(zones.read_text("/proc/buddyinfo"))
    return sum(suitable(counts, order) for counts in free.values()) >= 2 * wanted


def _flags(pfn: int) -> int:
    return next(iter(procpages.words(procpages.KPAGEFLAGS, pfn, 1)), 0)


def _order(store: Store, pfn: int) -> int | None:
    """That of the record at a page; None if there is none."""
    for span in store.spans:
        if span.first <= pfn < span.first + len(span.records):
            record = whole_at(span.records, np.array([pfn - span.first]))[0]
            return None if record["state"] == NONE else int(record["order"])
    return None
