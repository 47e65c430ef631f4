"""The tracker's pinned maps as NumPy arrays, read in place.

`open_store` maps what `control.on` pinned; nothing is copied, so what an array says may change
while it is read. How to read it truly:

- Records, the free side and tasks are read through `reading`, whole or not at all; records.h says
  how that goes.
- A record's task is ``tasks[task_id & TASK_SLOT]`` if that entry's ``id`` equals the whole
  ``task_id``: else the record was replaced meanwhile. Task 0 and stack 0 are unknown.
- A stack that a record names is whole: it was written before. Two stacks with the same frames may
  have two ids: compare stacks by frames.
- A record that overlaps a younger one (larger ``ts``) is stale: its free was missed.
- The first frames of a stack may still be the tracing's own, when another tracer sits on the same
  tracepoint: cut leading frames whose symbol begins with one of `TRACING_SYMBOLS`.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.ranges import numbers
from pageowner.kernel.vmstat import pages_freed
from pageowner.model.tracking import Hook
from pageowner.tracker.load.libbpf import BpfError, Libbpf
from pageowner.tracker.load.pins import PIN_DIRECTORY
from pageowner.tracker.read import layout, missed, records
from pageowner.tracker.read.layout import (
    COUNTERS,
    FREED_WRITTEN,
    HOOKS,
    MAX_DEPTH,
    QUESTIONS,
    SPARE_HELD,
)
from pageowner.tracker.read.map_memory import map_memory
from pageowner.tracker.read.pinned import CONFIG_BYTES, ENDED, Pinned, open_pinned
from pageowner.tracker.read.records import (
    DIVIDED,
    EARLY,
    FILTERED,
    NONE,
    OWNED,
    SPARES_PIN,
    TASK_SLOT,
    TRACING_SYMBOLS,
    WRITTEN,
)
from pageowner.tracker.read.seen import with_seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = [
    "CONFIG_BYTES",
    "COUNTERS",
    "DIVIDED",
    "EARLY",
    "FILTERED",
    "FREED",
    "FREED_WRITTEN",
    "MAX_DEPTH",
    "NONE",
    "OBJECT_MAPS",
    "OWNED",
    "PIN_DIRECTORY",
    "QUESTION",
    "RECORD",
    "SPARES_PIN",
    "TASK",
    "TASK_SLOT",
    "TRACING_SYMBOLS",
    "WRITTEN",
    "Hook",
    "Span",
    "Store",
    "hot",
    "open_store",
    "per_cpu",
]

OBJECT_MAPS = ("object_words", "objects", "object_caches")
"""The maps of objects, pinned with ``on --objects``."""

RECORD, FREED, TASK, QUESTION, HOT = (
    np.dtype(list(struct)) for struct in (
        layout.RECORD, layout.FREED, layout.TASK, layout.QUESTION, layout.HOT))
"""The structs of `layout`, as NumPy has them; of HOT one for each CPU and hook, behind the
counters."""

SPARES_MAP = ".data.spares"
"""The map that says what each of the `SPARES` spans that are kept for memory that is added has
become (`records.SPARES_PIN`). Span ``n`` can have spare ``n % SPARES`` only."""

SETTLED = 512
"""Frames that the program ``settle`` is told of at once (on_request.bpf.h)."""
EARLY_WORD = EARLY << 8
"""The state word of an early page: order 0, never migrated."""


def stack_type(depth: int) -> np.dtype[np.void]:
    """struct stack for stacks of at most ``depth`` frames."""
    return np.dtype([*records.STACK_HEAD, ("frames", "u8", (depth,))])


class Span:
    """Some of the store: ``records[i]`` speaks for page frame ``first + i``."""

    def __init__(self, first: int,
                 records: NDArray[np.void] | Callable[[], NDArray[np.void]]) -> None:
        """``records``: or what maps them, once they are asked for."""
        self.first = first
        self._map = records if callable(records) else None
        self._records = None if callable(records) else records

    @property
    def records(self) -> NDArray[np.void]:
        """Mapped when they are asked for. Raises PageownerError if tracking ended meanwhile."""
        if self._records is None:
            assert self._map is not None
            self._records = self._map()
        return self._records

    def let_go(self) -> None:
        """Unmap them, until they are asked for again: what is mapped counts as this process's."""
        if self._map is not None:
            self._records = None


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = (1 << 8 * ctypes.sizeof(ctypes.c_void_p)) - 1


def possible_cpus(text: str | None = None) -> int:
    """How many CPUs a per-CPU map has room for: the highest of /sys/.../cpu/possible plus one."""
    if text is None:
        text = Path("/sys/devices/system/cpu/possible").read_text()
    return max(numbers(text)) + 1


def per_cpu(bpf: Libbpf, fd: int, key: int = 0) -> NDArray[np.uint64]:
    """An entry of a map that has one for each CPU, as words: a row for each."""
    cpus = possible_cpus()
    size = (bpf.map_info(fd).value_size + 7) // 8 * 8
    values = bpf.lookup(fd, key.to_bytes(4, "little"), size * cpus) or bytes(size * cpus)
    return np.frombuffer(values, np.uint64).reshape(cpus, -1)


def hot(bpf: Libbpf, counters: int) -> NDArray[np.void]:
    """What the programs have at hand (`HOT`), of the map counters: a row for each CPU, in it one
    for each hook."""
    words = per_cpu(bpf, counters)[:, len(COUNTERS) :]
    size = len(HOOKS) * HOT.itemsize // 8
    return np.ascontiguousarray(words[:, :size]).view(HOT).reshape(len(words), len(HOOKS))


def map_array(fd: int, dtype: np.dtype[Any], entries: int, write: bool = False) -> NDArray[Any]:
    """A BPF array made with BPF_F_MMAPABLE as ``entries`` elements, in place."""
    page = mmap.PAGESIZE
    size = (dtype.itemsize * entries + page - 1) // page * page
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
    # Python's own mmap keeps a file descriptor for each, and a large machine has 2,000 spans.
    ctypes.set_errno(0)
    address = _libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, 0)
    if address == _MAP_FAILED:
        raise BpfError(ctypes.get_errno(), f"map {size} bytes of a BPF array")
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False
    array: NDArray[Any] = np.frombuffer(memoryview(memory), dtype, entries)
    array.flags.writeable = write
    return array


_READINGS = 4


class Store(Pinned):
    """Everything that the tracker knows, at the moment it is read.

    Made by `open_store`. ``facts`` are those of `control.on`: ``options``, ``object``
    (`compiled.identity`), ``hooks`` (name to state as it was at the end of `on`), ``since_ns``
    (CLOCK_MONOTONIC), ``since_wall`` (seconds since 1970), ``boot_id``, ``kernel``, ``vmemmap``,
    ``page_struct_size``, ``span_shift``, ``depth``, ``early_pages``, ``freed_before`` (see
    `loading.Tracker`), ``ranges`` (page frames covered, ``[first, after]``), ``spans`` (span
    numbers are below), ``spares``, ``other_spans`` (their numbers, where there is or was memory
    beside the ranges).
    """

    _spans_known: tuple[Any, ...] | None = None

    def _array(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        fd = self.fd(name)
        return map_array(fd, dtype, self.bpf.map_info(fd).max_entries)

    def taken_spares(self) -> dict[int, int]:
        """Spares that stand for a span of added memory, and its number."""
        return _taken(self.claims())

    def free_spares(self) -> None:
        """Let the programs take all spares, whatever they were."""
        if self.spares:
            self.bpf.update(self.fd(SPARES_PIN), bytes(4), bytes(4 * self.spares))

    def release_spares(self) -> None:
        """Let the programs take the spares that they were kept from; the others stay what they
        are."""
        claims = np.array(self.claims(), "u4")
        claims[claims == SPARE_HELD] = 0
        self.bpf.update(self.fd(SPARES_PIN), bytes(4), claims.tobytes())

    def spares_in_use(self) -> bool:
        """Whether memory was added that has no span of its own yet, or somebody ended who was
        making one."""
        return any(self.claims())

    def span_numbers(self) -> set[int]:
        """The spans that were there when the facts were written."""
        shift = self.span_shift
        numbers = {number for start, end in self.facts["ranges"]
                   for number in range(start >> shift, ((end - 1) >> shift) + 1)}
        return numbers.union(self.facts.get("other_spans", []))

    def _keys(self, more: Iterable[int]) -> Iterator[int]:
        """Where inner maps may be, spares last. Until 6.8 every look at a map of maps waits for a
        grace period of RCU (bpf_map_copy_value in kernel/bpf/syscall.c): few can be tried."""
        if "ranges" in self.facts:
            yield from sorted(self.span_numbers().union(more))
            yield from range(self.span_count, self.span_count + self.spares)
        else:
            for key in self.bpf.keys(self.fd("spans"), 4):
                yield int.from_bytes(key, "little")

    def _inner_ids(self, name: str, more: Iterable[int] = ()) -> Iterator[tuple[int, int]]:
        """Keys and ids of the inner maps. A key is the number of a span, or behind these that of a
        spare; ``more`` are numbers to try too."""
        outer = self.fd(name)
        for key in self._keys(more):
            value = self.bpf.lookup(outer, key.to_bytes(4, "little"), 4)
            if value is not None:
                yield key, int.from_bytes(value, "little")

    def _inner_maps(self, name: str) -> Iterator[tuple[int, int]]:
        """Keys and file descriptors of the inner maps; the caller closes these."""
        for key, number in self._inner_ids(name):
            yield key, self.bpf.map_by_id(number)

    def _spans(self, name: str, dtype: np.dtype[Any], write: bool = False) -> list[Span]:
        added: set[int] = set()
        while True:
            spans: dict[int, Span] = {}
            known = self._refresh()
            claims = self.claims()
            taken = _taken(claims)
            added.update(taken.values())
            for key, map_id in self._inner_ids(name, added):
                number = key
                if key >= self.span_count:
                    number = taken.get(key - self.span_count, -1)
                if number >= 0 and number not in spans:
                    spans[number] = Span(number << self.span_shift,
                                         partial(_mapped, self.bpf, 1 << self.span_shift,
                                                 map_id, dtype, write))
            # Else a spare may have become another span meanwhile, or moved to a place of its own.
            if self.claims() == claims and self._refresh() == known:
                return sorted(spans.values(), key=lambda span: span.first)

    def renew(self) -> bool:
        """Take over spans that another process has made since this was asked last, and spare ones
        that the programs have taken; whether there are any. Then `spans` and `freed` are other ones
        from now on."""
        before = self._spans_known
        self._refresh()
        self._spans_known = self.facts["ranges"], self.facts.get("other_spans"), self.claims()
        if before == self._spans_known:
            return False
        for name in ("spans", "freed"):
            self.__dict__.pop(name, None)
        return True

    @cached_property
    def spans(self) -> list[Span]:
        """The records (`RECORD`), in pfn order; what no span holds is not memory."""
        return self._spans("spans", RECORD)

    @cached_property
    def freed(self) -> list[Span]:
        """The free side (`FREED`) in the same spans; empty unless asked for at `on`."""
        return self._spans("freed_spans", FREED) if self.facts["options"]["free_side"] else []

    @cached_property
    def tasks(self) -> NDArray[np.void]:
        """The task table (`TASK`), by slot."""
        return self._array("tasks", TASK)

    @cached_property
    def stacks(self) -> NDArray[np.void]:
        """The stack table by id: ``n`` frames of ``frames``, return addresses, innermost first;
        ``n`` 0 is an empty slot."""
        return self._array("stacks", stack_type(self.depth))

    def _on_each_cpu(self, name: str) -> NDArray[np.uint64]:
        return per_cpu(self.bpf, self.fd(name))

    def entries(self, name: str, key_size: int, value_size: int, most: int) -> list[bytes]:
        """Keys, each with its value behind it, of a hash map; ``most`` of them at most."""
        fd, found = self.fd(name), []
        for key in self.bpf.keys(fd, key_size):
            value = self.bpf.lookup(fd, key, value_size)
            if value is not None:
                found.append(key + value)
            if len(found) >= most:
                break
        return found

    def counters(self) -> dict[str, int]:
        """`COUNTERS`, summed over the CPUs."""
        sums = self._on_each_cpu("counters")[:, : len(COUNTERS)].sum(axis=0)
        counters = dict(zip(COUNTERS, map(int, sums), strict=True))
        counters["freed_pages"] += counters["frees"] + counters["nested_frees"]  # the first of each
        return counters

    def hooks(self) -> list[Hook]:
        """The attached programs, where they are pinned."""
        hooks: list[Hook] = []
        if not self.directory:
            return hooks
        for pin in sorted(name for name in os.listdir(self.pins) if name.startswith("link_")):
            link = self._pinned(pin)
            try:
                about = self.bpf.link_info(link)
                program = self.bpf.program_by_id(about.program_id)
            finally:
                os.close(link)
            try:
                info = self.bpf.program_info(program)
            finally:
                os.close(program)
            hooks.append(Hook(pin.removeprefix("link_"), about.program_id, about.id,
                              info.recursion_misses))
        return hooks

    def hook_states(self) -> dict[str, str]:
        """Name to state of each hook now (`hook_states`)."""
        return with_seen(self.facts.get("hooks", {}), self.counters())

    def missed(self) -> int:
        """Events that no program dealt with (`missed.missed`)."""
        return missed.missed(self)

    def missed_frees(self) -> int:
        """How many of them at most were frees (`missed.missed_frees`)."""
        return missed.missed_frees(self)

    def unseen_frees(self) -> tuple[int | None, int | None]:
        """Base pages freed since `on` of which no program was told: at least, and at most, by the
        kernel's own count (`vmstat.pages_freed`); None where it does not count.

        They are frees that found the programs busy, and those that the kernel announces to
        nobody. Each such page keeps its record until it is allocated again: it is stale while it is
        free, and wrong if it was taken past every hook.
        """
        began, begun = self.facts.get("freed_before") or (None, None)
        if began is None or begun is None:
            return None, None
        # Frees go on while this reads; the closest of some readings.
        least, most = [], []
        for _ in range(_READINGS):
            before = pages_freed() or 0
            seen = self.counters()["freed_pages"]
            least.append(before - begun - seen)
            most.append((pages_freed() or 0) - began - seen)
        return max(0, *least), max(0, min(most))

    def look(self, pfns: NDArray[np.uint64]) -> NDArray[np.void]:
        """Ask the kernel about pages: a `QUESTION` for each pfn, with page->flags, the reference
        count (-1: unreadable) and page_type. 100,000 pages take some 20 ms.
        """
        return self._ask("look", pfns)

    def pageblocks(self, pfns: NDArray[np.uint64], mem_section: int,
                   order: int) -> NDArray[np.void]:
        """Ask for the bits of each page's pageblock: a `QUESTION` for each pfn, the bits as its
        flags; the reference count is -1 where they cannot be read. ``mem_section`` is the address
        of that symbol, ``order`` that of a pageblock.
        """
        return self._ask("pageblocks", pfns, mem_section, order)

    def _ask(self, program: str, pfns: NDArray[np.uint64], *more: int) -> NDArray[np.void]:
        answers = np.zeros(len(pfns), QUESTION)
        answers["pfn"] = pfns
        fd, run = self.fd("questions"), self.fd(program)
        table = map_array(fd, QUESTION, QUESTIONS, write=True)
        for at in range(0, len(pfns), QUESTIONS):
            part = answers[at : at + QUESTIONS]
            with self.alone():
                table[: len(part)] = part
                self.bpf.run(run, len(part), *more)
                part[:] = table[: len(part)]
        return answers

    def settle(self, first: int, chosen: NDArray[np.bool_], mark: bool = False) -> None:
        """Unmark early frames: those chosen of the frames from pfn ``first`` on, unless an event
        was faster; or with ``mark`` those without a record are marked."""
        groups = np.zeros(-(-len(chosen) // SETTLED) * SETTLED, bool)
        groups[: len(chosen)] = chosen
        words = np.packbits(groups.reshape(-1, SETTLED), axis=1, bitorder="little").view("<u8")
        some = np.flatnonzero(words.any(axis=1))
        rows = np.empty((len(some), 2 + SETTLED // 64), np.uint64)
        rows[:, 0] = first + some * SETTLED
        rows[:, 1:-1] = words[some]
        rows[:, -1] = mark
        self.bpf.run_each(self.fd("settle"), rows)

    def unused(self, pfns: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these page frames are free though /proc/kpageflags shows no flag of theirs.

        Ask it of frames whose flags are 0. Free are pages on a CPU's own list: no reference and
        no type (one allocated without a reference has a type: slab, large kmalloc). So are those
        whose struct page was never written, where the kernel puts off that work
        (CONFIG_DEFERRED_STRUCT_PAGE_INIT): they are not in the allocator yet.
        """
        answers = self.look(pfns)
        never = (answers["flags"] == 0) & (answers["type"] == 0)
        free: NDArray[np.bool_] = (answers["refcount"] == 0) & (
            (answers["type"] == 0xFFFFFFFF) | never)
        return free

    def memory(self) -> int:
        """Bytes of kernel memory that all maps take (`map_memory`)."""
        names = ("spans", "freed_spans", "tasks", "stacks", "counters", "extfrag", "config",
                 "questions", "memo_states", "memo_chains", "memo_frames",
                 *(OBJECT_MAPS if self.facts["options"].get("objects") else ()))
        outer = ("spans", "freed_spans") if self.facts["options"]["free_side"] else ("spans",)
        return map_memory(self, names, [
            number for name in outer for _, number in self._inner_ids(name)])


def _mapped(bpf: Libbpf, length: int, number: int, dtype: np.dtype[Any],
            write: bool) -> NDArray[Any]:
    # knows no store: one that its own spans led back to would stay mapped when it is let go
    try:
        fd = bpf.map_by_id(number)
    except BpfError as error:
        if error.errno != errno.ENOENT:
            raise
        raise PageownerError(ENDED) from error
    try:
        return map_array(fd, dtype, length, write)
    finally:
        os.close(fd)


def _taken(claims: list[int]) -> dict[int, int]:
    return {slot: claim - 1 for slot, claim in enumerate(claims)
            if claim not in (0, SPARE_HELD)}


def open_store(directory: str = PIN_DIRECTORY) -> Store:
    """The running tracker's maps; raises PageownerError as `pinned.open_pinned`."""
    return open_pinned(Store, directory)
