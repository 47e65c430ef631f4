"""Where struct pages are, and which frames of a stack are the tracing's own: found, not assumed.

The raw tracepoint mm_page_alloc gives the address of a struct page, the classic one of the same
event its pfn. With the size of struct page (BTF) two events agree on the base: the address of
pfn 0 (vmemmap, which moves with KASLR and has no symbol in many kallsyms).

Where the pages themselves lie in the kernel's direct map is told by kmalloc() of more than it has
slabs for: its tracepoint has the address of what it took from the page allocator just before.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import struct
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.symbol_text import HIDDEN, Lines
from pageowner.kernel.tracefs import TRACEFS, event
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.read import layout
from pageowner.tracker.read.layout import SIGHTINGS

if TYPE_CHECKING:
    from pageowner.tracker.load.libbpf import Libbpf, Object

__all__ = ["SIGHTING", "SIGHTINGS", "Calibration", "calibrate", "direct_map_of", "leading_frames",
           "tracing_ranges", "vmemmap_of"]

SIGHTING = np.dtype(list(layout.SIGHTING))

_PAGES = 32
_PAGE_SHIFT = mmap.PAGESIZE.bit_length() - 1
_LARGE, _LARGE_BYTES = 4, 4 * mmap.PAGESIZE  # slabs have up to two pages
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO in include/linux/proc_ns.h."""
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241,
                    "ppc64le": 319}
_PERF_TYPE_TRACEPOINT = 2
_PERF_SAMPLE_RAW = 1 << 10
_PERF_RECORD_SAMPLE = 9
_IOC_ENABLE, _IOC_DISABLE = 0x2400, 0x2401
_RING_PAGES = 8

_TRACING = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "bpf_trampoline_", "bpf_get_stack")


@dataclass(frozen=True)
class Calibration:
    """``vmemmap``: address of the struct page of pfn 0; ``skip``: frames of tracing at the top
    of a raw tracepoint's stack, ``skip_shared``: where two programs sit on the tracepoint;
    ``events`` that agreed; ``direct_map``: address of pfn 0 in the direct map, 0 if not found;
    ``preemptible``: on this kernel's tracepoints a program can be preempted; ``symbols``: the
    kernel's, as they were read for this; ``iterators``: see `iterators`."""

    vmemmap: int
    skip: int
    skip_shared: int
    events: int
    direct_map: int = 0
    preemptible: bool = False
    symbols: Lines = field(default_factory=lambda: Lines(b""), repr=False, compare=False)
    iterators: tuple[int, ...] = ()

    def knows_iterators_of_objects(self) -> bool:
        """Whether those of the tracepoints on objects are among the ``iterators``."""
        return len(self.iterators) == 2 * len((*_ITERATED, *_ITERATED_OF_OBJECTS))


def tracefs(name: str) -> Path:
    """The directory of a tracepoint in tracefs. Raises PageownerError where there is none."""
    if (path := event(name)) is None:
        raise PageownerError(f"no tracepoint {name} in tracefs: the kernel needs CONFIG_TRACING=y,"
                             f" and tracefs at {TRACEFS[0]}")
    return path


def fields_of(text: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each field, from a tracepoint's format file."""
    found = re.findall(r"field:[^;]*?(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);", text)
    return {name: (int(offset), int(size)) for name, offset, size in found}


class _ClassicEvents:
    """A classic tracepoint on this thread through perf: `read` gives each event's raw bytes."""

    def __init__(self, event: int) -> None:
        number = _PERF_EVENT_OPEN.get(platform.machine())
        if number is None:
            raise PageownerError(f"perf_event_open is not known on {platform.machine()}")
        attribute = bytearray(128)
        struct.pack_into("=IIQQQQ", attribute, 0, _PERF_TYPE_TRACEPOINT, len(attribute), event, 1,
                         _PERF_SAMPLE_RAW, 0)
        struct.pack_into("=Q", attribute, 40, 1)  # disabled
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = (ctypes.c_char * len(attribute)).from_buffer(attribute)
        self.fd: int = libc.syscall(ctypes.c_long(number), buffer, 0, -1, -1, ctypes.c_ulong(8))
        if self.fd < 0:
            why = os.strerror(ctypes.get_errno())
            raise PageownerError(f"the kernel refuses a tracepoint through perf: {why}")
        try:
            self.ring = mmap.mmap(self.fd, (1 + _RING_PAGES) * mmap.PAGESIZE)
        except OSError:
            os.close(self.fd)
            raise

    def close(self) -> None:
        self.ring.close()
        os.close(self.fd)

    def enable(self) -> None:
        ioctl(self.fd, _IOC_ENABLE)

    def disable(self) -> None:
        ioctl(self.fd, _IOC_DISABLE)

    def read(self) -> list[bytes]:
        """The events so far; the ring holds the first of them if there were too many."""
        head = struct.unpack_from("=Q", self.ring, 1024)[0]  # perf_event_mmap_page.data_head
        data = self.ring[mmap.PAGESIZE : mmap.PAGESIZE + min(head, _RING_PAGES * mmap.PAGESIZE)]
        events, at = [], 0
        while at + 12 <= len(data):
            kind, _, size = struct.unpack_from("=IHH", data, at)
            if size == 0:
                break
            if kind == _PERF_RECORD_SAMPLE:
                length = struct.unpack_from("=I", data, at + 8)[0]
                events.append(data[at + 12 : at + 12 + length])
            at += size
        return events


def vmemmap_of(pages: list[int], pfns: list[int], size: int) -> tuple[int, int]:
    """The base on which all classic events agree with raw events in the same order, and how
    many they were.

    The raw probe was on a little longer, so ``pages`` may have more at either end. Raises
    PageownerError if no alignment agrees: struct pages are then not one array (SPARSEMEM
    without VMEMMAP), and pfns cannot be computed.
    """
    for shift in range(len(pages) - len(pfns) + 1):
        bases = {page - pfn * size
                 for page, pfn in zip(pages[shift:], pfns, strict=False)}
        if len(bases) == 1 and len(set(pfns)) > 2:
            return bases.pop(), len(pfns)
    raise PageownerError(
        f"struct pages are not one array on this kernel ({len(pfns)} events disagree), so pages"
        " cannot be told from their address; tracking is not possible here"
    )


def direct_map_of(addresses: list[tuple[int, int]]) -> int:
    """The address of pfn 0 in the direct map, of (pfn, address) of pages; 0 if it is not told.

    Two different pages at least must agree: an interrupt may come between two events.
    """
    bases = Counter(address - (pfn << _PAGE_SHIFT) for pfn, address in set(addresses))
    base, times = bases.most_common(1)[0] if bases else (0, 0)
    return base if times > 1 and not base % mmap.PAGESIZE else 0


def tracing_ranges(symbols: Lines, shared: bool = False) -> list[tuple[int, int]]:
    """Where the kernel's code for tracing with BPF is: ``(start, end)`` of its functions.

    ``__traceiter_*`` is among them if ``shared``: it is on the stack while more than one tracer
    sits on the same tracepoint, as the calibration does, and most of the time only then.
    Raises PageownerError if the kernel hides addresses (kptr_restrict).
    """
    names = (*_TRACING, "__traceiter_") if shared else _TRACING
    found = [(line.address, line.following) for line in symbols.starting(*names)]
    if not any(start for start, _ in found):
        raise PageownerError(f"{symbols.origin}: {HIDDEN}")
    # Programs and trampolines come last and not in order: take 16 KiB where the end is unclear.
    return [(start, end if start < end <= start + (1 << 14) else start + (1 << 14))
            for start, end in found]


_ITERATED = ("mm_page_alloc", "mm_page_free", "mm_page_alloc_extfrag")
"""Tracepoints whose programs take stacks."""
_ITERATED_OF_OBJECTS = ("kmalloc", "kmem_cache_alloc", "percpu_alloc_percpu")


def iterators(symbols: Lines) -> tuple[int, ...]:
    """Where the functions begin and end that call the programs of these tracepoints where there are
    several (``__traceiter_*``, include/linux/tracepoint.h): those of pages, empty unless all are
    known, and then those of objects, unless one is not known."""
    names = [f"__traceiter_{name}" for name in (*_ITERATED, *_ITERATED_OF_OBJECTS)]
    found = symbols.named(*names)
    bounds = {name: (line.address, symbols.end_of(line)) for name, line in found.items()}
    known: list[int] = []
    for group in (names[: len(_ITERATED)], names[len(_ITERATED) :]):
        edges = [bounds.get(name, (0, 0)) for name in group]
        if not all(0 < start < end <= start + (1 << 12) for start, end in edges):
            break
        known += (edge for pair in edges for edge in pair)
    return tuple(known)


def leading_frames(frames: list[int], ranges: list[tuple[int, int]]) -> int:
    """How many of the first frames lie in these ranges."""
    for i, frame in enumerate(frames):
        if not any(start <= frame < end for start, end in ranges):
            return i
    return 0


def calibrate(bpf: Libbpf, loaded: Object, page_size: int) -> Calibration:
    """Attach the program ``calibrate`` of a loaded object, allocate, compare, detach.

    ``page_size`` is sizeof(struct page). Runs in the thread whose id the object was loaded with.
    """
    place = tracefs("kmem/mm_page_alloc")
    fields = fields_of((place / "format").read_text())
    offset, width = fields["pfn"]
    events = _ClassicEvents(int((place / "id").read_text()))
    try:
        loaded.attach("calibrate")
        with suppress(BpfError):  # a hook more works with it; the others do not need it
            loaded.attach("calibrate_direct")
        events.enable()
        _take_pages()
        events.disable()
        _take_large(bpf)
        loaded.detach()
        raw = events.read()
    finally:
        events.close()
    pfns = [int.from_bytes(event[offset : offset + width], "little") for event in raw]
    sightings = []
    for i in range(SIGHTINGS):
        value = bpf.lookup(loaded.map_fd("sightings"), i.to_bytes(4, "little"), SIGHTING.itemsize)
        sightings.append(np.frombuffer(value or b"", SIGHTING)[0])
    sightings = [s for s in sightings if s["page"]]
    # Failed allocations have no page, and -1 for a pfn.
    pfns = [pfn for pfn in pfns if pfn < 1 << 52][: len(sightings)]
    base, agreed = vmemmap_of([int(s["page"]) for s in sightings], pfns, page_size)
    stacks = {tuple(map(int, s["frames"][: s["n"]])) for s in sightings}
    symbols = Lines.read()  # while the program is loaded: its own symbol is among them
    skip, skip_shared = (
        min((leading_frames(list(stack), ranges) for stack in stacks if stack), default=0)
        for ranges in (tracing_ranges(symbols), tracing_ranges(symbols, shared=True)))
    direct_map = direct_map_of([((int(s["page"]) - base) // page_size, int(s["address"]))
                                for s in sightings if s["address"]])
    return Calibration(base, skip, skip_shared, agreed, direct_map,
                       preemptible=all(s["pinned"] for s in sightings), symbols=symbols,
                       iterators=iterators(symbols))


def _take_large(bpf: Libbpf) -> None:
    """Have the kernel kmalloc() some arrays of more than two pages (bpf_map_area_alloc)."""
    with ExitStack() as held:
        for _ in range(_LARGE):
            held.callback(os.close, bpf.create_array("po_calibrate", _LARGE_BYTES, 1))


def _take_pages() -> None:
    """Some order-0 allocations by this thread, each with its own event."""
    memory = mmap.mmap(-1, _PAGES * mmap.PAGESIZE)
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    memory.close()


def is_first_pid_namespace() -> bool:
    """Whether this process has the numbers of processes that BPF has."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return True


def this_thread() -> int:
    """The id that bpf_get_current_pid_tgid() has in its lower half, in the first namespace.

    Raises PageownerError in another one: BPF would not know this process by its numbers.
    """
    if not is_first_pid_namespace():
        raise PageownerError(
            "this process is in a PID namespace of its own, as in a container, and BPF does not"
            " know it by the numbers there; run it outside, or in the container with --pid=host")
    return threading.get_native_id()
