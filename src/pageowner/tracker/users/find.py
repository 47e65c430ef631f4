"""Who has each page now: slab caches, files, processes, tasks, areas of vmalloc, by the kernel's
own structures, and by /proc alone where those may not be read.

Pages change while they are read. So every page struct is read twice, before and after the names of
what it points to, and what differs then is counted and has no user; names of files are read twice
too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import flag_bits, kallsyms, process_memory, slabs
from pageowner.kernel.cgroups import gone
from pageowner.model.page_users import FREED, NOBODY, PageUsers
from pageowner.tracker.users import areas as vmalloc
from pageowner.tracker.users.anonymous import give_anonymous
from pageowner.tracker.users.bpf_objects import BpfPages, bpf_holders, bpf_pages
from pageowner.tracker.users.files import Holders, Namer, group_path, read_files, same_files
from pageowner.tracker.users.layout import FILE_CHANGED, FILE_FAILED, FILE_NOT_OWN, NOT_KNOWN
from pageowner.tracker.users.mapped_files import give_mapped_files
from pageowner.tracker.users.memory import Files, KernelMemory
from pageowner.tracker.users.pages import Pages, read_columns
from pageowner.tracker.users.tables import PageTables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Surroundings", "Users", "find_users", "may_be_areas", "of_slabs", "with_gone"]

_REMOVED = 2
_KERNEL = np.uint64(1 << 63)
_SLAB, _ANON, _TABLE = (np.uint64(flag_bits.mask(name)) for name in ("slab", "anon", "pgtable"))
_LISTED = np.uint64(flag_bits.mask("anon", "lru"))
_NO_FILE = np.uint64(flag_bits.mask("slab", "anon", "pgtable", "buddy", "nopage", "offline",
                                    "reserved", "compound_tail"))
_KERNELS = np.uint64(flag_bits.mask("slab", "anon", "pgtable", "buddy", "nopage", "offline",
                                    "reserved", "lru", "huge"))
"""A page with none of these may be the kernel's own: of vmalloc, a stack, a page pool."""
_POOL_MASK, _POOL_MAGIC = np.uint64(0xFFFF00000000007C), np.uint64(0xDEAD000000000040)
"""PP_SIGNATURE without the bits that may hold an index (include/net/page_pool, PP_DMA_INDEX_BITS,
6.16)."""


def find_users(pfn: NDArray[np.uint64], order: NDArray[np.uint8], flags: NDArray[np.uint64],
               symbols: kallsyms.Kallsyms | None = None) -> PageUsers:
    """The users of blocks of 2**order pages that begin at these frames, in order of frames;
    ``flags``: bits of /proc/kpageflags.

    Never raises because something is not readable: what could not be asked is in the result's
    ``notes``, and the blocks that it concerns have no user.
    """
    found = PageUsers.of(len(pfn))
    pages = Pages(pfn, order, flags)
    try:
        memory = KernelMemory()
    except PageownerError as error:
        found.notes.append(f"{error}; what processes have and map is known from /proc alone")
        names = _names_of_processes()
        give_anonymous(found, pages, names)
        give_mapped_files(found, pages, names)
        return found
    with memory:
        Users(memory, found, pages, symbols).find()
    return found


class Surroundings:
    """What tells of the running kernel's users beside its structures: files in /proc and /sys.

    ``is_still``: nothing changes while it is read; ``file_seconds``: how long names of files are
    looked up.
    """

    is_still = False
    file_seconds = 1.0

    def numbers_are_of_proc(self, tasks: NDArray[Any], found: PageUsers) -> bool:
        """Whether /proc has the processes of these tasks (`KernelMemory.tasks`)."""
        same = numbers_of_proc(tasks)
        if not same:
            found.notes.append("this process is in a PID namespace: the numbers of processes are"
                               " those of the whole machine, which /proc here does not have")
        return same

    def cache_names(self) -> frozenset[str]:
        """The names of all slab caches; none where they are not known."""
        return slabs.names()

    def area_caches(self) -> frozenset[str]:
        """What the slab cache of struct vmap_area may be called."""
        return vmalloc.cache_names()

    def deleted_files(self, users: Users) -> dict[tuple[str, int], Sequence[tuple[int, str]]]:
        """Who (pid, comm) holds each deleted file, by its device and inode."""
        if not users.in_proc:
            return {}
        opened = process_memory.open_files(users.names)
        if not opened.complete:
            users.found.notes.append("not all open files could be looked at in time: who holds"
                                     " some deleted files is not known")
        return {(file.device, file.inode): file.holders for file in opened.deleted}

    def namer(self, holders: Holders) -> Namer:
        """Names for files."""
        return Namer(holders)

    def bpf_pages(self, users: Users, areas: vmalloc.Areas) -> BpfPages:
        """What of them is of BPF maps and programs."""
        holders, complete = bpf_holders(users.names if users.in_proc else {})
        found = bpf_pages(users.memory, areas, users.tables, holders)
        return found if complete else found._replace(notes=[
            "not all open files could be looked at in time: who else holds BPF maps and programs,"
            " and who holds some, is not known"])


def of_slabs(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which blocks are of slabs."""
    found: NDArray[np.bool_] = flags & _SLAB != 0
    return found


def may_be_areas(flags: NDArray[np.uint64]) -> bool:
    """Whether any of these blocks may be of vmalloc, or a stack."""
    return bool((flags & _KERNELS == 0).any())


def _names_of_processes(proc: str = "/proc") -> dict[int, str]:
    names = {}
    for entry in Path(proc).iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                names[int(entry.name)] = (entry / "comm").read_bytes().rstrip(b"\n").decode(
                    "utf-8", "backslashreplace")
    return names


def numbers_of_proc(tasks: NDArray[Any], own: str = "/proc/self") -> bool:
    """Whether /proc has the same numbers of processes as the kernel has in ``tasks``
    (`KernelMemory.tasks`), of which this process is the first: not so in a PID namespace."""
    return bool(len(tasks)) and str(tasks[0]["tgid"]) == os.readlink(own)


def with_gone(memcg: Any, found: PageUsers) -> Any:
    """A column of cgroups, an Arrow dictionary, with the removed ones in it."""
    import pyarrow as pa

    if not found.gone:
        return memcg
    known = memcg.dictionary.to_pylist()
    codes = memcg.indices.fill_null(NOBODY).to_numpy()
    codes = np.where(found.groups >= 0, len(known) + found.groups, codes).astype(np.int32)
    places: dict[str, int] = {}
    joined = np.array([places.setdefault(name, len(places)) for name in (*known, *found.gone)],
                      np.int32)
    codes = np.where(codes >= 0, joined[codes], NOBODY)
    return pa.DictionaryArray.from_arrays(
        pa.array(np.maximum(codes, 0).astype(np.int32), mask=codes < 0),
        pa.array(list(places), pa.string()))


class Users:
    """Finds the users of ``pages`` by ``memory``'s structures, and gives them to ``found``."""

    def __init__(self, memory: KernelMemory, found: PageUsers, pages: Pages,
                 symbols: kallsyms.Kallsyms | None, around: Surroundings | None = None) -> None:
        self.memory, self.found, self.pages, self.symbols = memory, found, pages, symbols
        self.around = around or Surroundings()
        self.tasks = memory.tasks()
        self.tables = PageTables(memory, self.tasks)
        self.in_proc = self.around.numbers_are_of_proc(self.tasks, found)
        self.names: dict[int, str] = {}
        """Of processes by tgid."""
        self.by_mm: dict[int, int] = {}
        for task in self.tasks:
            tgid = int(task["tgid"])
            if task["pid"] == tgid or tgid not in self.names:
                self.names[tgid] = bytes(task["comm"]).partition(b"\0")[0].decode(
                    "utf-8", "backslashreplace")
            if task["mm"]:
                self.by_mm.setdefault(int(task["mm"]), tgid)

    def find(self) -> None:
        """Look at all that tells."""
        memory, pages, found = self.memory, self.pages, self.found
        # First what changes hands most often.
        # Of processes that are one address space (vfork, CLONE_VM), one.
        own = set(self.by_mm.values())
        if (pages.flags & _ANON != 0).any():
            give_anonymous(found, pages, {tgid: name for tgid, name in self.names.items()
                                          if tgid in own},
                           self.tables.of_process if self.tables.known else None, self.in_proc)
        columns, good = read_columns(memory, pages.pfn)
        found.count("unreadable_pages", np.count_nonzero(~good & (pages.flags != 0)))
        self._slabs(columns, good)
        self._files(columns, good)
        if kernels := may_be_areas(pages.flags):
            self._stacks()
            self._vmalloc(columns)
        if kernels or (pages.flags & _TABLE != 0).any():
            self._page_tables()
        self._pools(columns)
        self._types(columns)
        self._removed_cgroups(columns)
        self._check(columns)
        self._free(columns, good)
        for what, number in memory.failed.items():
            found.count(what, number)

    # -- what page structs point to ----------------------------------------------------------------

    def _slabs(self, columns: dict[str, NDArray[np.uint64]], good: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero((self.pages.flags & _SLAB != 0) & good)
        distinct, index = np.unique(columns["cache"][rows], return_inverse=True)
        caches = self.memory.caches(distinct)
        known = self.around.cache_names()
        codes = np.full(len(distinct), NOBODY, np.int32)
        self.cache_sizes = np.zeros(len(self.pages.pfn), np.uint32)
        self.cache_of = codes
        for place, cache in enumerate(caches):
            name = bytes(cache["name"]).partition(b"\0")[0].decode("utf-8", "backslashreplace")
            # A page that is no slab any more may point to anything.
            if cache["failed"] or not name.isprintable() or name not in (known or {name} - {""}):
                self.found.count("unnamed_slabs", np.count_nonzero(index == place))
            else:
                codes[place] = self.found.code(f"slab {name}")
        self.found.give(rows, codes[index])
        self.cache_sizes[rows] = caches["size"][index]

    def _files(self, columns: dict[str, NDArray[np.uint64]], good: NDArray[np.bool_]) -> None:
        mapping = columns["mapping"]
        rows = np.flatnonzero((self.pages.flags & _NO_FILE == 0) & good
                              & (mapping >= _KERNEL) & (mapping & np.uint64(3) == 0))
        distinct, index = np.unique(mapping[rows], return_inverse=True)
        size = np.bincount(index, np.left_shift(1, self.pages.order[rows].astype(np.int64)),
                           len(distinct))
        largest = np.argsort(-size, kind="stable")
        files = read_files(self.memory, distinct[largest], self.around.file_seconds)
        asked = files.column("mapping")
        again = files if self.around.is_still else self.memory.files(asked)
        same = same_files(files, again)
        if not same.all():  # some were renamed just now, mostly
            third = self.memory.files(asked)
            same |= same_files(again, third)
            again = third
        state = again.column("state")
        sure = same & (state & np.uint32(FILE_FAILED | FILE_NOT_OWN | FILE_CHANGED) == 0)
        self.found.count("changed_files", np.count_nonzero(~sure))
        self.found.count("late_files", len(distinct) - len(files))
        labels = self.around.namer(self._holders(again)).names(again)
        codes = np.full(len(distinct), NOBODY, np.int32)
        for place in np.flatnonzero(sure).tolist():
            codes[largest[place]] = self.found.code(labels[place])
        self.found.give(rows, codes[index])

    def _holders(self, files: Files) -> Holders:
        by_mm = {mm: f"{tgid} ({self.names[tgid]})" for mm, tgid in self.by_mm.items()}
        by_file = {}
        if (files.column("links") == 0).any():
            for file, ((pid, comm), *others) in self.around.deleted_files(self).items():
                more = f" and {len(others)} more" if others else ""
                by_file[file] = f"{pid} ({comm}){more}"
        return Holders(by_mm, by_file)

    def _pools(self, columns: dict[str, NDArray[np.uint64]]) -> None:
        rows = np.flatnonzero((self.pages.flags & _KERNELS == 0)
                              & (columns["magic"] & _POOL_MASK == _POOL_MAGIC))
        distinct, index = np.unique(columns["pool"][rows], return_inverse=True)
        codes = np.full(len(distinct), self.found.code("page pool"), np.int32)
        for place, pool in enumerate(self.memory.pools(distinct)):
            device = bytes(pool["device"]).partition(b"\0")[0].decode("utf-8", "backslashreplace")
            if device and not pool["failed"]:
                codes[place] = self.found.code(f"page pool of {device}")
        self.found.give(rows, codes[index])

    def _types(self, columns: dict[str, NDArray[np.uint64]]) -> None:
        highest = columns["type"] >> np.uint32(24)
        for word, label in (("type_large_kmalloc", "large kmalloc"), ("type_zsmalloc", "zsmalloc")):
            number = self.memory.layout[word]
            if number != NOT_KNOWN:
                self.found.give(np.flatnonzero(highest == number), self.found.code(label))

    def _removed_cgroups(self, columns: dict[str, NDArray[np.uint64]]) -> None:
        """/proc/kpagecgroup has the nearest cgroup above that still exists (page_cgroup_ino() in
        mm/memcontrol.c)."""
        rows = np.flatnonzero((self.pages.flags & _SLAB == 0) & (columns["memcg"] >= _KERNEL)
                              & (columns["memcg"] & np.uint64(7) == 0))
        distinct, index = np.unique(columns["memcg"][rows], return_inverse=True)
        codes = np.full(len(distinct), NOBODY, np.int32)
        for place, group in enumerate(self.memory.groups(distinct)):
            if group["state"] == _REMOVED:
                codes[place] = len(self.found.gone)
                self.found.gone.append(gone(int(group["id"]), group_path(bytes(group["path"]))))
        self.found.groups[rows] = codes[index]

    def _check(self, before: dict[str, NDArray[np.uint64]]) -> None:
        """Page structs once more: a page that is another's now has no user."""
        after, good = read_columns(self.memory, self.pages.pfn, ("cache", "mapping", "memcg"))
        flags = self.pages.flags
        changed = ~good
        for name, mine in (("cache", flags & _SLAB != 0), ("mapping", flags & _NO_FILE == 0)):
            changed |= mine & (before[name] != after[name])
        self.found.groups[before["memcg"] != after["memcg"]] = NOBODY
        changed &= self.found.codes != NOBODY
        self.found.codes[changed] = NOBODY
        self.found.count("changed_pages", np.count_nonzero(changed))

    def _free(self, columns: dict[str, NDArray[np.uint64]], good: NDArray[np.bool_]) -> None:
        """Pages that are nobody's, since they are free. (Slabs and much else have no references,
        and a file's page has none while it is reclaimed.)"""
        pages, found = self.pages, self.found
        nobodys = found.codes == NOBODY
        # Frames without a page struct, or one that nobody ever filled in, are in no zone.
        found.free = nobodys & (pages.flags == 0) & (columns["references"].view(np.int32) <= 0)
        # 6.18 takes some words of slabs for those of anonymous pages.
        listed = (pages.flags & _LISTED != 0) & (pages.flags & _SLAB == 0)
        freed = np.flatnonzero(nobodys & listed & good & (columns["references"] == 0))
        found.give(freed, found.code(FREED))
        found.count("freed_pages", np.left_shift(1, pages.order[freed].astype(np.int64)).sum())

    # -- what tells its pages itself ---------------------------------------------------------------

    def _give_frames(self, pfn: NDArray[np.uint64], codes: NDArray[np.int32],
                     among: NDArray[np.bool_]) -> None:
        place, inside = self.pages.places_of(pfn)
        inside &= among[place]
        self.found.give(place[inside], codes[inside])

    def _of_process(self, words: str) -> NDArray[np.int32]:
        """The label of each task, with its process."""
        codes = {tgid: self.found.code(f"{words} {tgid} ({name})")
                 for tgid, name in self.names.items()}
        return np.array([codes[int(tgid)] for tgid in self.tasks["tgid"]], np.int32)

    def _stacks(self) -> None:
        pfn, task, unread = vmalloc.stack_frames(self.memory, self.tasks)
        self.found.count("unreadable_stacks", unread)
        self._give_frames(pfn, self._of_process("kernel stacks of")[task],
                          self.pages.flags & _KERNELS == 0)

    def _vmalloc(self, columns: dict[str, NDArray[np.uint64]]) -> None:
        names = self.around.area_caches()
        wanted = {code for name in names
                  if (code := self.found.code(f"slab {name}")) is not None}
        rows = np.flatnonzero(np.isin(self.found.codes, list(wanted)))
        try:
            symbols = self.symbols or kallsyms.load()
        except PageownerError as error:
            # Without the functions that asked for areas, percpu chunks and stacks that the kernel
            # keeps for the next task look like any other area.
            self.found.notes.append(f"the areas of vmalloc are not told: {error}")
            return
        areas = vmalloc.find_areas(self.memory, self.tables, symbols, self.pages.pfn[rows],
                                   self.pages.order[rows], self.cache_sizes[rows])
        self.found.count("unreadable_areas", areas.unread)
        if not len(areas.areas):
            self.found.notes.append("the areas of vmalloc were not found: " + (
                "no slab cache is known to hold their struct vmap_area"
                if self.memory.anchors.direct_map is not None else
                "where the kernel maps all memory is not known"))
        kernels = self.pages.flags & _KERNELS == 0
        named = self.around.bpf_pages(self, areas)
        self.found.count("unreadable_page_tables", named.unread)
        self.found.notes += named.notes
        codes = np.array([self.found.code(
            named.areas.get(place) or vmalloc.label(caller, int(flags))) for place, (caller, flags)
            in enumerate(zip(areas.callers, areas.areas["flags"], strict=True))], np.int32)
        for pfn, label in named.frames:
            self._give_frames(pfn, np.full(len(pfn), self.found.code(label), np.int32), kernels)
        if len(codes):
            self._give_frames(areas.pfn, codes[areas.area], kernels)
        chunks = [area for area, caller in zip(areas.areas, areas.callers, strict=True)
                  if caller == vmalloc.PERCPU]
        if chunks and self.tables.known:
            self._percpu(chunks, kernels)

    def _percpu(self, chunks: list[Any], kernels: NDArray[np.bool_]) -> None:
        code = self.found.code("per-CPU memory")
        for chunk in chunks:
            pfn, unread = self.tables.mapped(int(chunk["start"]), int(chunk["end"]))
            self.found.count("unreadable_page_tables", unread)
            self._give_frames(pfn, np.full(len(pfn), code, np.int32), kernels)

    def _page_tables(self) -> None:
        if not self.tables.known:
            self.found.notes.append("whose the page tables are is " + (
                "not known: nor is where the kernel maps all memory"
                if self.memory.has_known_tables else "known only on x86-64"))
            return
        flagged = self.pages.flags & _TABLE != 0
        is_table = flagged | (self.pages.flags & _KERNELS == 0)
        codes = self._of_process("page tables of")
        found, kernel = self.tables.of_processes(), self.tables.of_kernel
        # Topmost ones have no flag of their own in older kernels.
        self._give_frames(found.pfn[found.top], codes[found.task[found.top]], is_table)
        self._give_frames(found.pfn, codes[found.task], flagged)
        self._give_frames(kernel.pfn, np.full(
            len(kernel.pfn), self.found.code("page tables of the kernel"), np.int32), is_table)
        self.found.count("unreadable_page_tables", found.unread + len(kernel.unread))
