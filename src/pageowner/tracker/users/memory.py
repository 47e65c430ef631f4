"""The programs that read the kernel's structures (bpf/page_users.bpf.c), run on request."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import page_tables
from pageowner.kernel.task_flags import PF_KTHREAD
from pageowner.system.closing import Closing
from pageowner.tracker.load.libbpf import BpfError, Libbpf, LibbpfMissing, libbpf
from pageowner.tracker.load.requirements import lockdown
from pageowner.tracker.read.maps import map_array
from pageowner.tracker.users import layout
from pageowner.tracker.users.anchors import Anchors, find_anchors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pageowner.tracker.load.libbpf import Object

__all__ = ["FILE_NUMBERS", "Copies", "Files", "KernelMemory", "image"]

FILE_NUMBERS = ("mapping", "inode", "number", "mapper", "device", "own_device", "links", "state")

_MOST_TASKS = 1 << 22


def image() -> bytes:
    """The bytes of the compiled object."""
    return resources.files("pageowner.tracker.bpf").joinpath("page_users.bpf.o").read_bytes()


@dataclass
class Files:
    """Files as the kernel has them: `FILE_NUMBERS` of each in pieces, the names that lead to it,
    innermost first and each with a slash behind it, and the kind of its file system."""

    numbers: list[NDArray[Any]]
    paths: list[bytes]
    kinds: list[bytes]

    def __len__(self) -> int:
        return len(self.paths)

    def first(self, number: int) -> Files:
        """The first of them alone."""
        whole = np.concatenate(self.numbers)
        return Files([whole[:number]], self.paths[:number], self.kinds[:number])

    def column(self, name: str) -> NDArray[Any]:
        """One of `FILE_NUMBERS`."""
        return np.concatenate([part[name] for part in self.numbers])


class Copies(Closing):
    """Copies of the kernel's memory, for as long as this is open; use it with ``with``."""

    _programs: tuple[str, ...] = ("copy",)
    """Those of the object that are loaded."""

    def __init__(self, bpf: Libbpf | None = None) -> None:
        """Load the programs. Raises PageownerError, in one line, where this kernel or this user
        may not run them."""
        if os.geteuid():
            raise PageownerError("reading the kernel's structures needs root")
        if why := lockdown():
            raise PageownerError(why)
        try:
            self.bpf = bpf or libbpf()
            self._object = self._load()
        except LibbpfMissing as error:
            raise PageownerError(str(error)) from error
        except BpfError as error:
            raise PageownerError(
                "this kernel does not run the programs that read its structures, as Linux 5.17 and"
                f" newer do ({os.strerror(error.errno or 0)})") from error
        try:
            self._maps = {name: map_array(self._object.map_fd(name), kind, entries, write=True)
                          for name, kind, entries in self._tables()}
            self._begin()
        except BpfError as error:
            self.close()
            raise PageownerError(f"cannot read the kernel's structures: {error.strerror}"
                                 ) from error
        except BaseException:
            self.close()
            raise

    def _tables(self) -> tuple[tuple[str, np.dtype[Any], int], ...]:
        """The maps that are used: name, type and number of entries of each."""
        return (("chunks", np.dtype("u1"), layout.CHUNK_BYTES),
                ("requests", layout.REQUEST, layout.REQUESTS))

    def _load(self) -> Object:
        loaded = self.bpf.open(image(), "page_users")
        try:
            loaded.choose(*(self._programs or loaded.programs()))
            self._resize(loaded)
            loaded.load()
        except BaseException:
            loaded.close()
            raise
        return loaded

    def _resize(self, loaded: Object) -> None:
        """Set the sizes of maps before they are made."""

    def _begin(self) -> None:
        """What has to be found out before anything is read."""

    def close(self) -> None:
        """End the programs; nothing of them stays in the kernel."""
        self._maps = {}
        self._object.close()

    def _run(self, program: str, *arguments: int) -> int:
        answer = self.bpf.run(self._object.program_fd(program), *arguments)
        return answer - (1 << 32) if answer >> 31 else answer

    def copy(self, addresses: NDArray[np.uint64], size: int, out: NDArray[np.uint8] | None = None
             ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """So many bytes (at most 128 KiB) from each address: an array of the shape (addresses,
        size), which is ``out`` if that is given, and which of them were readable."""
        found = np.empty((len(addresses), size), np.uint8) if out is None else out
        good = np.zeros(len(addresses), bool)
        at_once = max(min(layout.CHUNK_BYTES // 2 // max(size, 1), layout.REQUESTS), 1)
        requests, chunk = self._maps["requests"], self._maps["chunks"]
        for start in range(0, len(addresses), at_once):
            part = addresses[start:start + at_once]
            asked = requests[:len(part)]
            asked["address"], asked["size"] = part, size
            asked["at"] = np.arange(len(part)) * size
            asked["failed"] = 1
            self._run("copy", len(part))
            good[start:start + at_once] = asked["failed"] == 0
            found[start:start + at_once] = chunk[:len(part) * size].reshape(len(part), size)
        if not good.all():
            found[~good] = 0
        return found, good


class KernelMemory(Copies):
    """The kernel's structures, read for as long as this is open; use it with ``with``.

    ``layout``: where things are in this kernel's structures (`layout.LAYOUT`). ``failed``: how many
    reads failed, by what was read. ``has_known_tables``: whether `pageowner.kernel.page_tables` can
    read its page tables. Making one raises PageownerError as `Copies` does, and where
    nothing tells where page structs are.
    """

    _programs = ()
    most_tables: int | None = None
    """Page tables that there may be at most: the running kernel's need no bound."""

    def _tables(self) -> tuple[tuple[str, np.dtype[Any], int], ...]:
        return (*super()._tables(),
                ("files", layout.FILE, layout.FILES),
                ("areas", layout.AREA, layout.AREAS),
                ("caches", layout.CACHE, layout.CACHES),
                ("pools", layout.POOL, layout.CACHES),
                ("groups", layout.GROUP, layout.GROUPS),
                ("tasks", layout.TASK, self._tasks),
                ("layouts", layout.LAYOUT, 1),
                ("anchors", layout.ANCHOR, 1))

    def _begin(self) -> None:
        self.failed: dict[str, int] = {}
        self.has_known_tables = page_tables.is_known()
        self._run("find_layout", 0)
        self.layout: dict[str, int] = {
            name: int(self._maps["layouts"][0][name]) for name in layout.LAYOUT.names or ()}
        self.anchors: Anchors = find_anchors(self)

    def _resize(self, loaded: Object) -> None:
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].partition("/")[2])
        self._tasks = min(max(4096, running * 2), _MOST_TASKS)
        loaded.resize("tasks", self._tasks)

    def _count(self, what: str, failed: int) -> None:
        if failed:
            self.failed[what] = self.failed.get(what, 0) + failed

    def page_structs(self, first: int, count: int) -> NDArray[np.uint8] | None:
        """The page structs of these frames, 4,096 at most, as bytes of the shape (count, size of a
        page struct); None if there is memory without. The array is good until the next call."""
        size = self.layout["page_size_of"]
        if self._run("copy_pages", self.anchors.vmemmap + first * size, count * size):
            return None
        return self._maps["chunks"][:count * size].reshape(count, size)

    # -- structures ------------------------------------------------------------------------------

    def _answered(self, program: str, name: str, key: str, addresses: NDArray[np.uint64],
                  *more: int) -> Iterator[NDArray[Any]]:
        table = self._maps[name]
        for start in range(0, len(addresses), len(table)):
            part = table[:len(addresses) - start]
            part.view(np.uint8)[:] = 0
            part[key] = addresses[start:start + len(table)]
            self._run(program, len(part), *more)
            yield part

    def files(self, mappings: NDArray[np.uint64]) -> Files:
        """What file each struct address_space is of."""
        kind = np.dtype([(name, layout.FILE[name]) for name in FILE_NUMBERS])
        found = Files([np.zeros(0, kind)], [], [])
        for part in self._answered("find_files", "files", "mapping", mappings):
            numbers = np.empty(len(part), kind)
            for name in FILE_NUMBERS:
                numbers[name] = part[name]
            found.numbers.append(numbers)
            found.paths += part["path"].tolist()
            found.kinds += part["kind"].tolist()
        return found

    def caches(self, addresses: NDArray[np.uint64]) -> NDArray[Any]:
        """The names of slab caches (`layout.CACHE`)."""
        return _joined(self._answered("find_caches", "caches", "cache", addresses), layout.CACHE)

    def pools(self, addresses: NDArray[np.uint64]) -> NDArray[Any]:
        """The devices of page pools (`layout.POOL`)."""
        return _joined(self._answered("find_pools", "pools", "pool", addresses), layout.POOL)

    def groups(self, addresses: NDArray[np.uint64]) -> NDArray[Any]:
        """Memory cgroups (`layout.GROUP`)."""
        return _joined(self._answered("find_groups", "groups", "group", addresses), layout.GROUP)

    def areas(self, addresses: NDArray[np.uint64], of_vm_structs: bool = False) -> NDArray[Any]:
        """Areas of vmalloc by their struct vmap_area, or vm_struct (`layout.AREA`)."""
        return _joined(self._answered("find_areas", "areas", "address", addresses,
                                      int(of_vm_structs)), layout.AREA)

    def tasks(self) -> NDArray[Any]:
        """All tasks (`layout.TASK`), kernel threads without ``mm``: it is another's."""
        found = self._run("find_tasks", self._tasks)
        if found < 0 or found >= self._tasks:
            self._count("tasks", 1)
        count = -1 - found if found < 0 else found
        tasks = self._maps["tasks"][:count].copy()
        tasks["mm"][tasks["flags"] & np.uint32(PF_KTHREAD) != 0] = 0
        return tasks

    def anchor(self, descriptor: int) -> dict[str, int]:
        """What the kernel has of an open file of this process (`layout.ANCHOR`). Raises
        PageownerError."""
        if self._run("find_anchor", descriptor):
            raise PageownerError("cannot follow the kernel's structures from a file to its pages")
        return {name: int(self._maps["anchors"][0][name]) for name in layout.ANCHOR.names or ()}

    @property
    def page_shift(self) -> int:
        """Of a page's bytes."""
        return resource.getpagesize().bit_length() - 1


def _joined(parts: Iterator[NDArray[Any]], kind: np.dtype[Any]) -> NDArray[Any]:
    every = [part.copy() for part in parts]
    return np.concatenate(every) if every else np.zeros(0, kind)
