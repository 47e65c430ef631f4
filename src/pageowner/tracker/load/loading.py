"""The compiled object: sized for a machine, set up, loaded, each optional hook for itself."""

from __future__ import annotations

import os
import platform
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.system.closing import Closing
from pageowner.tracker.load.calibrate import Calibration, calibrate, this_thread
from pageowner.tracker.load.compiled import image
from pageowner.tracker.load.libbpf import MMAPABLE, BpfError, Libbpf, Link, Object
from pageowner.tracker.load.memo import MAPS, Plan, set_bytes
from pageowner.tracker.read.layout import HOOKS, OBJECT_CACHES, SPARES, TIMED
from pageowner.tracker.read.maps import (
    FREED,
    RECORD,
    SPARES_MAP,
    SPARES_PIN,
    Store,
    map_array,
    stack_type,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["HOOK_NUMBERS", "Sizes", "Tracker", "add_memory", "add_spans", "find_vmemmap",
           "hold_refused", "image",
           "parameters", "sizes_for"]

HOOK_NUMBERS = {name: number for number, name in enumerate(HOOKS)}
"""enum hook (records.h)."""

_STATE_WORD = RECORD.fields["order"][1] // 4 if RECORD.fields else 0


_STORES_IN_ORDER = frozenset({"x86_64"})
"""Machines that show a CPU's stores to others in their order: the programs need no barriers."""

_AT_ONCE = 256
"""Spans that are put into the table together: each time waits for a grace period of RCU, and until
then each holds a file descriptor, of which a process has 1,024 most often."""


def _power_of_two(n: int) -> int:
    return 1 << max(0, (n - 1).bit_length())


@dataclass(frozen=True)
class Sizes:
    """How large the maps are: 2**span_shift frames a span, entries of the depots (powers of two),
    room for span numbers below ``spans``, and behind them ``spares`` for memory that is added:
    `layout.SPARES` or 0. ``objects``: slots for objects, a power of two, or 0."""

    span_shift: int
    spans: int
    tasks: int
    stacks: int
    spares: int = 0
    objects: int = 0


def sizes_for(ranges: Sequence[tuple[int, int]], tasks: int = 0, stacks: int = 0,
              objects: int = 0) -> Sizes:
    """Sizes that fit the page frames of a machine; 0 means: by its memory.

    Spans are 2**16 frames (256 MiB of 4 KiB pages, 1.5 MiB of records), larger where that would
    make over 1,024 of them. The table of spans has room for twice the highest pfn, and for 1 TiB
    at least, since memory can be added: 8 bytes each. Tasks: one for 64 frames; stacks: one for
    128, at most 262,144. ``objects``: how many there are for one that is followed; slots for two
    objects on each frame, divided by that, at most 4,194,304.
    """
    frames = sum(end - start for start, end in ranges)
    after = max(end for _, end in ranges)
    shift = 16
    while frames >> shift > 1024 and shift < 20:
        shift += 1
    return Sizes(
        span_shift=shift,
        spans=max(_power_of_two((after >> shift) + 1) * 2, 1 << (28 - shift)),
        tasks=min(_power_of_two(tasks or max(1 << 14, frames // 64)), 1 << 20),
        stacks=_power_of_two(stacks or min(max(1 << 14, frames // 128), 1 << 18)),
        spares=SPARES,
        objects=min(_power_of_two(max(frames * 2 // objects, 1 << 14)), 1 << 22) if objects else 0,
    )


def parameters(obj: Object, values: dict[str, int]) -> None:
    """Set ``const volatile`` variables of an object before it is loaded, by name.

    Their places come from the object's own symbols. Raises KeyError for a name it lacks.
    """
    data = obj.initial(next(name for name in obj.maps() if name.endswith(".rodata")))
    symbols = _symbols(obj.image, ".rodata")
    for name, value in values.items():
        offset, size = symbols[name]
        data[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _symbols(elf: bytes, section: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each symbol of a section of a 64-bit ELF file.

    Of our own object, whose form is known: pyelftools would be 35 ms to import for it.
    """
    headers = np.dtype([("name", "u4"), ("type", "u4"), ("flags", "u8"), ("addr", "u8"),
                        ("offset", "u8"), ("size", "u8"), ("link", "u4"), ("info", "u4"),
                        ("align", "u8"), ("entsize", "u8")])
    entries = np.dtype([("name", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2"),
                        ("value", "u8"), ("size", "u8")])
    start = int.from_bytes(elf[0x28:0x30], "little")
    count, names_at = np.frombuffer(elf, "u2", 2, 0x3C)
    sections = np.frombuffer(elf, headers, count, start)

    def text(table: Any, at: int) -> str:
        begin = int(table["offset"]) + at
        return elf[begin : elf.index(b"\0", begin)].decode()

    names = [text(sections[names_at], int(s["name"])) for s in sections]
    table = sections[next(i for i, s in enumerate(sections) if s["type"] == 2)]
    symbols = np.frombuffer(elf, entries, int(table["size"]) // entries.itemsize,
                            int(table["offset"]))
    strings = sections[int(table["link"])]
    return {
        text(strings, int(s["name"])): (int(s["value"]), int(s["size"]))
        for s in symbols
        if s["info"] & 15 == 1 and s["shndx"] < len(names) and names[s["shndx"]] == section
    }


@dataclass
class Tracker(Closing):
    """A loaded tracker that is not pinned: the object with the required hooks, and the links of
    what was attached beside it, on the same maps. Closed, it is gone.

    ``freed_before``: what `vmstat.pages_freed` gave just before the hooks on frees began, and just
    after. ``may_hold``: the kernel lets programs hold off preemption (`hold_refused`).
    ``waiting``: descriptors of second programs, loaded and not attached, by hook (`waiting`)."""

    bpf: Libbpf
    sizes: Sizes
    depth: int
    values: dict[str, int]
    free_side: bool = False
    memo: Plan = field(default_factory=Plan)
    may_hold: bool = False
    main: Object | None = None
    links: dict[str, Link] = field(default_factory=dict)
    freed_before: tuple[int | None, int | None] = (None, None)
    waiting: dict[str, int] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Let go of everything that is not pinned."""
        for link in self.links.values():
            link.close()
        self.links.clear()
        self._stack.close()

    def load(self, *programs: str) -> Object:
        """Make the maps and load these programs. Raises BpfError."""
        obj = self._stack.enter_context(self.bpf.open(image(), "pageowner"))
        obj.choose(*programs)
        self._set(obj)
        for name, dtype in (("spans", RECORD), ("freed_spans", FREED)):
            like = self._span(dtype.itemsize)
            self._stack.callback(os.close, like)
            obj.inner(name, like)
        numbers = self.sizes.spans + self.sizes.spares
        obj.resize("spans", numbers)
        obj.resize("freed_spans", numbers if self.free_side else 1)
        obj.resize("tasks", self.sizes.tasks)
        obj.resize("stacks", self.sizes.stacks, stack_type(self.depth).itemsize)
        if self.sizes.objects:
            obj.resize("object_words", self.sizes.objects)
            obj.resize("objects", self.sizes.objects)
            obj.resize("object_caches", OBJECT_CACHES)
        obj.resize("memo_chains", self.memo.sets, set_bytes(self.depth))
        obj.resize("memo_frames", self.memo.frames)
        if self.values.get("timed"):
            obj.resize("timings", len(HOOKS) + len(TIMED))
        obj.load()
        self.main = obj
        return obj

    def attach(self, program: str, function: str | None = None,
               more: dict[str, int] | None = None, name: str = "") -> Link:
        """Load one more program on the same maps, tracing ``function`` if given, and attach it;
        its link is kept by its ``name``, if that is another.

        What the kernel says of it stays its own affair, and only the link stays open: all its
        maps for each hook are more files than a process may have. Raises BpfError.
        """
        with self._beside(program, function, more) as obj:
            link = self.links[name or program] = obj.attach_apart(program)
        return link

    def prepare(self, program: str) -> int:
        """Load one more program on the same maps; its descriptor, which this closes. Raises
        BpfError."""
        with self._beside(program) as obj:
            fd = os.dup(obj.program_fd(program))
        self._stack.callback(os.close, fd)
        return fd

    @contextmanager
    def _beside(self, program: str, function: str | None = None,
                more: dict[str, int] | None = None) -> Iterator[Object]:
        assert self.main is not None
        with self.bpf.open(image(), "pageowner") as obj:
            obj.choose(program)
            self._set(obj, more)
            if function is not None:
                obj.target(program, function)
            for name in obj.maps():
                if not name.endswith(".rodata"):
                    obj.reuse(name, self.main.map_fd(name))
            obj.load()
            yield obj

    def _set(self, obj: Object, more: dict[str, int] | None = None) -> None:
        parameters(obj, {
            "span_shift": self.sizes.span_shift,
            "span_count": self.sizes.spans,
            "has_spares": int(self.sizes.spares > 0),
            "depth": self.depth,
            "stack_mask": self.sizes.stacks - 1,
            "task_mask": self.sizes.tasks - 1,
            "free_side": int(self.free_side),
            "object_mask": max(self.sizes.objects, 1) - 1,
            "weak_order": int(platform.machine() not in _STORES_IN_ORDER),
            **self.memo.values,
            **self.values,
            **(more or {}),
        })

    def _span(self, size: int) -> int:
        return self.bpf.create_array("po_span", size, 1 << self.sizes.span_shift, MMAPABLE)

    def cover(self, ranges: Iterable[tuple[int, int]], early_word: int = 0) -> int:
        """Make spans for page frames that have none, each frame of ``ranges`` in them with this
        state word; how many were made."""
        assert self.main is not None
        outers = [(self.main.map_fd("spans"), RECORD.itemsize)]
        if self.free_side:
            outers.append((self.main.map_fd("freed_spans"), FREED.itemsize))
        make_spares(self.bpf, outers, self.sizes.span_shift,
                    range(self.sizes.spans, self.sizes.spans + self.sizes.spares))
        return add_spans(self.bpf, outers, self.sizes.span_shift, ranges, early_word)

    def store(self) -> Store:
        """The maps as they are read, without a pin."""
        assert self.main is not None
        fds = {name: os.dup(self.main.map_fd(name))
               for name in ("spans", "freed_spans", "tasks", "stacks", "counters", "questions",
                            *MAPS)}
        fds[SPARES_PIN] = os.dup(self.main.map_fd(SPARES_MAP))
        facts = {"span_shift": self.sizes.span_shift, "depth": self.depth,
                 "spans": self.sizes.spans, "spares": self.sizes.spares,
                 "options": {"free_side": self.free_side}}
        return Store(self.bpf, "", fds, facts)

    def skip_frames(self, numbers: dict[str, int]) -> None:
        """Set how many frames each hook leaves out at the top of a stack, by name of the hook."""
        assert self.main is not None
        fd = self.main.map_fd(".data.skip")
        data = bytearray(self.bpf.lookup(fd, bytes(4), 4 * len(HOOK_NUMBERS)) or b"")
        for name, number in numbers.items():
            at = 4 * HOOK_NUMBERS[name]
            data[at : at + 4] = number.to_bytes(4, "little")
        self.bpf.update(fd, bytes(4), bytes(data))


def find_vmemmap(bpf: Libbpf, page_struct: int) -> Calibration:
    """Load the calibration alone, with maps of no size to speak of, and run it."""
    small = Sizes(span_shift=0, spans=1, tasks=1, stacks=1)
    with Tracker(bpf, small, 1, {"only_pid": this_thread()}) as tracker:
        return calibrate(bpf, tracker.load("calibrate", "calibrate_direct"), page_struct)


def hold_refused(bpf: Libbpf) -> str:
    """Why programs cannot hold off preemption while they are at work, as the kernel says; empty if
    they can."""
    small = Sizes(span_shift=0, spans=1, tasks=1, stacks=1)
    try:
        with Tracker(bpf, small, 1, {"hold": 1}) as tracker:
            tracker.load("try_hold")
    except BpfError as error:
        return error.strerror or str(error)
    return ""


def add_spans(bpf: Libbpf, outers: list[tuple[int, int]], span_shift: int,
              ranges: Iterable[tuple[int, int]], early_word: int = 0) -> int:
    """For each (map of maps, record size): an array for every span that these page frames touch
    and that has none; how many spans were made."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for start, end in ranges:
        for number in range(start >> span_shift, ((end - 1) >> span_shift) + 1):
            first = number << span_shift
            wanted.setdefault(number, []).append(
                (max(start - first, 0), min(end - first, 1 << span_shift)))
    made = 0
    for outer, size in outers:
        fds: dict[int, int] = {}
        made_here = 0
        try:
            for number, parts in wanted.items():
                if bpf.lookup(outer, number.to_bytes(4, "little"), 4) is not None:
                    continue
                if len(fds) == _AT_ONCE:
                    made_here += _give(bpf, outer, fds)
                fd = fds[number] = bpf.create_array("po_span", size, 1 << span_shift, MMAPABLE)
                if early_word and size == RECORD.itemsize:
                    words = map_array(fd, RECORD, 1 << span_shift, True).view("u4")
                    words = words.reshape(-1, RECORD.itemsize // 4)
                    for begin, end in parts:
                        words[begin:end, _STATE_WORD] = early_word
            made_here += _give(bpf, outer, fds)
        finally:
            for fd in fds.values():
                os.close(fd)
        made = max(made, made_here)
    return made


def make_spares(bpf: Libbpf, outers: list[tuple[int, int]], span_shift: int,
                keys: Iterable[int]) -> None:
    """For each (map of maps, record size): a new array at each of these keys."""
    keys = list(keys)
    for outer, size in outers:
        fds: dict[int, int] = {}
        try:
            for key in keys:
                fds[key] = bpf.create_array("po_span", size, 1 << span_shift, MMAPABLE)
            _give(bpf, outer, fds)
        finally:
            for fd in fds.values():
                os.close(fd)


def add_memory(store: Store, ranges: Iterable[tuple[int, int]]) -> tuple[int, set[int]]:
    """Spans for page frames that have none, also where a spare took their place: how many, and
    the numbers of the latter.

    The programs take no spare meanwhile. What is in one goes to its span's own number, which
    waits until no program looks for it elsewhere; then a new spare takes its place, which is free
    once the caller has written down where the spans are (`Store.free_spares`). Raises BpfError;
    what was a spare before then is one still.
    """
    bpf, shift = store.bpf, store.span_shift
    outers = [(store.fd("spans"), RECORD.itemsize)]
    if store.facts["options"]["free_side"]:
        outers.append((store.fd("freed_spans"), FREED.itemsize))
    if not store.spares:
        return add_spans(bpf, outers, shift, ranges), set()
    bpf.run(store.fd("hold_spares"), 0)
    try:
        return _moved(store, outers, ranges)
    except BpfError:
        store.release_spares()
        raise


def _moved(store: Store, outers: list[tuple[int, int]],
           ranges: Iterable[tuple[int, int]]) -> tuple[int, set[int]]:
    bpf, shift = store.bpf, store.span_shift
    taken = {store.span_count + slot: number for slot, number in store.taken_spares().items()}
    made = 0
    for outer, _ in outers:
        fds: dict[int, int] = {}
        try:
            for key, number in taken.items():
                spare = bpf.lookup(outer, key.to_bytes(4, "little"), 4)
                if spare and bpf.lookup(outer, number.to_bytes(4, "little"), 4) is None:
                    fds[number] = bpf.map_by_id(int.from_bytes(spare, "little"))
            made = max(made, _give(bpf, outer, fds))
        finally:
            for fd in fds.values():
                os.close(fd)
    made += add_spans(bpf, outers, shift, ranges)
    make_spares(bpf, outers, shift, taken)
    return made, set(taken.values())


def _give(bpf: Libbpf, outer: int, fds: dict[int, int]) -> int:
    """Put these arrays into a map of maps and let go of them; how many they were."""
    bpf.update_all(outer, fds)
    given = len(fds)
    while fds:
        os.close(fds.popitem()[1])
    return given
