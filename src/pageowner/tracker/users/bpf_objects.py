"""BPF maps and programs by what they are called: which areas of vmalloc are theirs.

A descriptor of each is asked for by its number, and followed to the kernel's struct: as long as it
is open, that stays. What lies in it, or where its members point to, is of this map: the values of
arrays and queues are behind the struct itself, hash tables have buckets and elements of their own
(kernel/bpf: arraymap.c, hashtab.c, stackmap.c, devmap.c, cpumap.c, sockmap in net/core), and ring
buffers (5.8) and arenas (6.9) are mapped page by page. Values for each CPU are per-CPU memory, and
elements that are allocated one by one are of slabs: these keep their names.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pageowner.kernel.allowance import Allowance
from pageowner.tracker.load.libbpf import BpfError
from pageowner.tracker.users.areas import same_areas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from pageowner.tracker.load.libbpf import Libbpf
    from pageowner.tracker.users.areas import Areas
    from pageowner.tracker.users.memory import KernelMemory
    from pageowner.tracker.users.tables import PageTables

__all__ = ["BpfObject", "BpfPages", "Owners", "What", "bpf_holders", "bpf_pages", "holder",
           "members_of"]

What = tuple[str, int]
"""``map`` or ``prog``, and the number."""

_AT_ONCE = 128
"""Objects whose descriptors are open at a time."""

_ALIKE = 8
"""More of one name and holder, such as the maps in a map of maps, are called together."""

_HASH = ("bpf_htab", ("buckets", "elems"))
_MEMBERS = {  # by type of map (enum bpf_map_type): the struct that begins with its struct bpf_map
    1: _HASH, 5: _HASH, 9: _HASH, 10: _HASH, 13: _HASH, 7: ("bpf_stack_map", ("elems",)),
    14: ("bpf_dtab", ("netdev_map",)), 15: ("bpf_stab", ("sks",)),
    16: ("bpf_cpu_map", ("cpu_map",)), 18: ("bpf_shtab", ("buckets",)),
    25: ("bpf_dtab", ("dev_index_head",)), 27: ("bpf_ringbuf_map", ("rb",)),
    31: ("bpf_ringbuf_map", ("rb",)), 33: ("bpf_arena", ("kern_vm",))}
_RING_BUFFERS, _ARENA = (27, 31), 33

_FDINFO = re.compile(rb"^(map|prog)_id:\t(\d+)$", re.MULTILINE)
_LINKS = ("anon_inode:bpf-map", "anon_inode:bpf-prog")


class BpfPages(NamedTuple):
    """``areas``: by the place of an area of vmalloc what it is of; ``frames``: of what is mapped
    page by page, the page frames and what they are of; ``unread``: tables that were not readable;
    ``notes``: what could not be asked.
    """

    areas: dict[int, str]
    frames: list[tuple[NDArray[np.uint64], str]]
    unread: int
    notes: Sequence[str] = ()


def bpf_pages(memory: KernelMemory, areas: Areas, tables: PageTables, holders: dict[What, str]
              ) -> BpfPages:
    """The maps and programs that have pages of ``areas``, called ``bpf map 12 (name) of 34 (comm)``
    by ``holders``, or ``100 bpf maps (name)`` where so many have one name and holder."""
    if (follow := _Following.of(memory)) is None or not len(areas.areas):
        return BpfPages({}, [], 0)
    owners = Owners(areas, tables)
    for objects in _pieces(memory.bpf):
        with ExitStack() as stack:
            theirs: dict[int, BpfObject] = {}
            for what in objects:
                opened = _opened(memory.bpf, what, holders, stack)
                if opened is None or (address := follow.to(*opened)) is None:
                    continue
                for place in owners.places((address, *members_of(
                        address, opened[1].type, follow.member, follow.word))):
                    theirs[place] = opened[1]
            # What is open keeps its areas. Those that are not what they were when they were found
            # have other pages by now.
            places = np.fromiter(theirs, np.int64, len(theirs))
            same = same_areas(areas.areas[places], memory.areas(areas.areas["address"][places]))
            owners.give({place: theirs[place] for place in places[same].tolist()})
    return owners.pages()


class Owners:
    """What objects have areas of vmalloc."""

    def __init__(self, areas: Areas, tables: PageTables) -> None:
        self._areas, self._tables = areas.areas, tables
        self._order = np.argsort(self._areas["start"], kind="stable")
        self._start, self._end = (self._areas[name][self._order] for name in ("start", "end"))
        self._owners: dict[int, BpfObject] = {}
        self._mapped: list[tuple[NDArray[np.uint64], BpfObject]] = []
        self._unread = 0

    def places(self, pointers: Iterable[int]) -> Iterator[int]:
        """The places, among the areas, of those that these addresses are in."""
        for pointer in pointers:
            place = int(np.searchsorted(self._start, np.uint64(pointer), "right")) - 1
            if place >= 0 and pointer < int(self._end[place]):
                yield int(self._order[place])

    def give(self, theirs: dict[int, BpfObject]) -> None:
        """Areas, by their places, to what has them."""
        self._owners |= theirs
        for place, owner in theirs.items():
            if owner.is_mapped and self._tables.known:
                area = self._areas[place]
                pfn, failed = self._tables.mapped(int(area["start"]), int(area["end"]))
                self._mapped.append((pfn, owner))
                self._unread += failed

    def pages(self) -> BpfPages:
        """All that was given, by what it is called."""
        alike = Counter(found.shared for found in set(self._owners.values()))
        labels = {found: found.label(alike[found.shared]) for found in self._owners.values()}
        return BpfPages({place: labels[found] for place, found in self._owners.items()},
                        [(pfn, labels[found]) for pfn, found in self._mapped], self._unread)


def holder(processes: Sequence[str]) -> str:
    """What is said of who has one open: the first, and how many others."""
    first, *others = processes
    return first + (f" and {len(others)} more" if others else "")


def members_of(address: int, kind: int, offset: Callable[[str, str], int | None],
               word: Callable[[int], int | None]) -> Iterator[int]:
    """Where the members of a map of this type point to. ``offset``: of a struct's member, in bytes;
    ``word``: what is at an address."""
    struct, names = _MEMBERS.get(kind, ("", ()))
    if not struct or offset(struct, "map") != 0:
        return
    for name in names:
        place = offset(struct, name)
        pointer = None if place is None else word(address + place)
        if pointer and kind == _ARENA:  # a struct vm_struct
            start = offset("vm_struct", "addr")
            pointer = None if start is None else word(pointer + start)
        if pointer:
            yield pointer


class BpfObject(NamedTuple):
    """A map or program; ``type``: that of a map (enum bpf_map_type)."""

    what: What
    name: str
    type: int
    holder: str

    @property
    def is_mapped(self) -> bool:
        """Whether its area lists no pages."""
        return self.what[0] == "map" and self.type in (*_RING_BUFFERS, _ARENA)

    @property
    def shared(self) -> tuple[str, str, str]:
        """What others may have too."""
        return self.what[0], self.name, self.holder

    def label(self, alike: int) -> str:
        """What its pages are called; ``alike``: how many share its name."""
        word = "map" if self.what[0] == "map" else "program"
        name = f" ({self.name})" if self.name else ""
        of = f" of {self.holder}" if self.holder else ""
        if alike > _ALIKE:
            return f"{alike} bpf {word}s{name}{of}"
        return f"bpf {word} {self.what[1]}{name}{of}"


def _pieces(bpf: Libbpf) -> Iterator[list[What]]:
    every = [(kind, number) for kind in ("map", "prog") for number in bpf.numbers(kind)]
    for first in range(0, len(every), _AT_ONCE):
        yield every[first:first + _AT_ONCE]


def _opened(bpf: Libbpf, what: What, holders: dict[What, str], stack: ExitStack
            ) -> tuple[int, BpfObject] | None:
    """A descriptor, open as long as ``stack``, and what it is of; None if that has ended."""
    kind, number = what
    try:
        fd = (bpf.map_by_id if kind == "map" else bpf.program_by_id)(number)
        stack.callback(os.close, fd)
        if kind == "map":
            about = bpf.map_info(fd)
            return fd, BpfObject(what, about.name, about.type, holders.get(what, ""))
        return fd, BpfObject(what, bpf.program_info(fd).name, 0, holders.get(what, ""))
    except BpfError:
        return None


class _Following:
    """From a descriptor of this process to the kernel's struct."""

    def __init__(self, memory: KernelMemory, files: int, offsets: dict[str, int]) -> None:
        self.memory, self.files, self.offsets = memory, files, offsets

    @classmethod
    def of(cls, memory: KernelMemory) -> _Following | None:
        """None where this kernel's types do not tell the way."""
        offsets = {}
        for name, path in (("task_struct", "files"), ("files_struct", "fdt"), ("fdtable", "fd"),
                           ("file", "private_data"), ("bpf_map", "id"), ("bpf_prog", "aux"),
                           ("bpf_prog_aux", "id")):
            found = memory.bpf.member(name, path)
            if found is None:
                return None
            offsets[f"{name}.{path}"] = found[0]
        with open(os.devnull) as file:
            task = memory.anchor(file.fileno())["task"]
        follow = cls(memory, 0, offsets)
        files = follow.word(task + offsets["task_struct.files"])
        if files is None:
            return None
        follow.files = files
        return follow

    def word(self, address: int, size: int = 8) -> int | None:
        """What is there; None where that is not the kernel's memory."""
        if not 1 << 63 <= address < (1 << 64) - 8:
            return None
        raw, good = self.memory.copy(np.array([address], np.uint64), size)
        return int.from_bytes(raw[0].tobytes(), "little") if good[0] else None

    def _along(self, address: int | None, *offsets: int) -> int | None:
        for offset in offsets:
            address = None if address is None else self.word(address + offset)
        return address

    def to(self, fd: int, wanted: BpfObject) -> int | None:
        """The address of the struct behind ``fd``, if it has the number that it should have."""
        at, (kind, number) = self.offsets, wanted.what
        address = self._along(self.files, at["files_struct.fdt"], at["fdtable.fd"], 8 * fd,
                              at["file.private_data"])
        about = address if kind == "map" else self._along(address, at["bpf_prog.aux"])
        if address is None or about is None:
            return None
        told = self.word(about + at["bpf_map.id" if kind == "map" else "bpf_prog_aux.id"], 4)
        return address if told == number else None

    def member(self, struct: str, name: str) -> int | None:
        """The offset of a struct's member."""
        found = self.memory.bpf.member(struct, name)
        return None if found is None else found[0]


def bpf_holders(pids: Iterable[int], proc: str = "/proc", seconds: float = 0.3
                ) -> tuple[dict[What, str], bool]:
    """Which of the processes (``34 (comm)``) has each map and program open: the one with the lowest
    number, and how many others; and whether the time sufficed for all."""
    found: dict[What, list[str]] = {}
    allowed, complete = Allowance(seconds), True
    for pid in sorted(pids):
        if not complete:
            break
        # What is open is of this process, also where its number is given to another meanwhile.
        with suppress(OSError), ExitStack() as stack:
            process = os.open(f"{proc}/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, process)
            folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
            stack.callback(os.close, folder)
            theirs: dict[What, None] = {}
            for entry in stack.enter_context(os.scandir(folder)):
                if allowed.is_over:
                    complete = False
                    break
                with suppress(OSError):
                    if (os.readlink(entry.name, dir_fd=folder) in _LINKS
                            and (about := _FDINFO.search(_read(process, f"fdinfo/{entry.name}")))):
                        theirs[about[1].decode(), int(about[2])] = None
            if theirs:
                comm = _read(process, "comm").rstrip(b"\n").decode("utf-8", "backslashreplace")
                for what in theirs:
                    found.setdefault(what, []).append(f"{pid} ({comm})")
    return {what: holder(processes) for what, processes in found.items()}, complete


def _read(folder: int, path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
