"""Where the kernel has its page structs and its map of all memory, found by a page of our own.

Both move at every boot, and few kernels show their symbols. A memfd of one page is a file whose
page frame /proc/self/pagemap tells, and whose page struct hangs at the root of its page cache
(lib/xarray.c: a tree with nothing but index 0 is that entry alone). So one subtraction gives the
array of page structs. The direct map shows the page's own bytes, which are random, at one distance
from the right base and at no other; bases are multiples of 1 GiB (arch/x86/mm/kaslr.c,
kernel_randomize_memory), on arm64 with pages of 64 KiB of 512 MiB (ARM64_MEMSTART_ALIGN in
arch/arm64/include/asm/kernel-pgtable.h), and the struct of this task lies in the map too.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import memory_ranges, pagemap

if TYPE_CHECKING:
    from pageowner.tracker.users.memory import KernelMemory

__all__ = ["Anchors", "find_anchors"]

_STEP = 1 << 29
_LARGEST = 1 << 42
"""Bytes of memory that are taken to be there at most, where nothing tells."""
_SEEN = 64
"""Bytes that are compared."""


class Anchors(NamedTuple):
    """Addresses: of the page struct of frame 0, of frame 0 in the direct map (None if that was not
    found), and of this process's page tables."""

    vmemmap: int
    direct_map: int | None
    pgd: int


def find_anchors(memory: KernelMemory) -> Anchors:
    """Both bases. Raises PageownerError if the kernel's structures do not fit what two files
    show."""
    found = [_one(memory) for _ in range(2)]
    if found[0] != found[1]:
        raise PageownerError("the kernel's page structs are not where one of its files has them")
    return found[0]


def _one(memory: KernelMemory) -> Anchors:
    try:
        file = os.memfd_create("pageowner", os.MFD_CLOEXEC)
    except OSError as error:
        raise PageownerError(f"cannot make a memfd: {error.strerror}") from error
    try:
        seen = os.urandom(_SEEN)
        os.write(file, seen + bytes(mmap.PAGESIZE - _SEEN))
        with mmap.mmap(file, mmap.PAGESIZE) as shown:
            byte = ctypes.c_char.from_buffer(shown)
            shown[0]
            pfn = _frame(ctypes.addressof(byte))
            anchor = memory.anchor(file)
            vmemmap = anchor["page"] - pfn * memory.layout["page_size_of"]
            base = _direct_map(memory, anchor["task"], pfn << memory.page_shift, seen)
            del byte
    finally:
        os.close(file)
    if anchor["page"] & 3 or vmemmap < 0:
        raise PageownerError("the page cache of a file is not laid out as expected")
    if base is not None and 0 <= anchor["page"] - base < _end_of_memory():
        raise PageownerError("this kernel has its page structs in more than one place"
                             " (it is without CONFIG_SPARSEMEM_VMEMMAP)")
    return Anchors(vmemmap, base, anchor["pgd"])


def _frame(address: int) -> int:
    try:
        return pagemap.frames(address, 1)[0]
    except (OSError, ValueError) as error:
        raise PageownerError("the kernel shows no page frames to this process"
                             f" (/proc/self/pagemap): {error}") from error


def _end_of_memory() -> int:
    """The physical address behind all memory."""
    try:
        return memory_ranges.ram_ranges()[-1][1] * mmap.PAGESIZE
    except (OSError, PageownerError):
        return _LARGEST


def _direct_map(memory: KernelMemory, task: int, physical: int, seen: bytes) -> int | None:
    # The task's own address is the base and less than all memory above it.
    first, last = task // _STEP * _STEP, max(task - _end_of_memory(), 1 << 63)
    bases = np.array(range(first, last - 1, -_STEP), np.uint64)
    shown, good = memory.copy(bases + np.uint64(physical), len(seen))
    same = np.flatnonzero(good & (shown == np.frombuffer(seen, np.uint8)).all(axis=1))
    return int(bases[same[0]]) if len(same) == 1 else None
