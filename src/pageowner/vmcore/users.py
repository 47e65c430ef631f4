"""Who had each page when the memory was dumped: slab caches, files, processes, tasks, areas of
vmalloc, as `pageowner.tracker.users.find` has it of the running kernel."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel_memory.access import strings, word
from pageowner.model.page_users import PageUsers
from pageowner.tracker.users.areas import VMAP_AREA
from pageowner.tracker.users.files import Namer
from pageowner.tracker.users.find import Surroundings, Users
from pageowner.tracker.users.pages import Pages
from pageowner.vmcore.bpf_objects import bpf_pages
from pageowner.vmcore.open_files import OpenFiles, deleted_files, open_files
from pageowner.vmcore.structs import value
from pageowner.vmcore.user_files import mounts
from pageowner.vmcore.user_structures import KernelStructures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pageowner.kernel.kallsyms import Kallsyms
    from pageowner.tracker.users.areas import Areas
    from pageowner.tracker.users.bpf_objects import BpfPages
    from pageowner.tracker.users.files import Holders
    from pageowner.vmcore.memory import Vmcore
    from pageowner.vmcore.sections import MemMaps

__all__ = ["find_users"]


def find_users(memory: Vmcore, maps: MemMaps, pfn: NDArray[np.uint64], order: NDArray[np.uint8],
               flags: NDArray[np.uint64], symbols: Kallsyms) -> PageUsers:
    """The users of blocks of 2**order pages that begin at these frames, in order of frames;
    ``flags``: bits of /proc/kpageflags.

    What cannot be read is in the result's ``notes``, and the blocks that it concerns have no user.
    """
    found = PageUsers.of(len(pfn))
    try:
        structures: Any = KernelStructures(memory, maps)
        Users(structures, found, Pages(pfn, order, flags), symbols,
              _OfDump(structures)).find()
    except PageownerError as error:
        found.notes.append(f"not all of what had pages could be found: {error}")
    return found


class _OfDump(Surroundings):
    """What /proc and /sys would tell, out of the same memory."""

    is_still = True
    file_seconds = 30.0

    def __init__(self, structures: KernelStructures) -> None:
        self._structures, self._memory = structures, structures.memory

    def numbers_are_of_proc(self, tasks: NDArray[Any], found: PageUsers) -> bool:
        """No: /proc is of another machine."""
        return False

    def cache_names(self) -> frozenset[str]:
        """Not known beforehand."""
        return frozenset()

    def area_caches(self) -> frozenset[str]:
        """The name of the cache that the kernel takes struct vmap_area from."""
        names = {VMAP_AREA}
        pointer = self._memory.symbol("vmap_area_cachep")
        if pointer is not None:
            cache = word(self._memory, pointer)
            at = value(self._memory, cache, "kmem_cache", "name")
            (name,) = strings(self._memory, np.array([at], np.uint64), 48)
            names.add((name or b"").decode("utf-8", "backslashreplace"))
        return frozenset(names)

    @cached_property
    def _opened(self) -> OpenFiles:
        return open_files(self._structures.follow, self._structures.file_tables)

    def _count_left_out(self, users: Users) -> None:
        if self._opened.left_out:
            note = (f"{self._opened.left_out:,} tables of open files cannot be read, or not to"
                    " their ends: files without a name, and BPF maps and programs, may be of more"
                    " processes than are named")
            users.found.notes += [note] if note not in users.found.notes else []

    def deleted_files(self, users: Users) -> dict[tuple[str, int], Sequence[tuple[int, str]]]:
        """By the tables of open files of all tasks."""
        self._count_left_out(users)
        try:
            return deleted_files(self._structures.follow, self._opened, users.names)
        except PageownerError as error:
            users.found.notes.append(f"who held files without a name is not known: {error}")
            return {}

    def bpf_pages(self, users: Users, areas: Areas) -> BpfPages:
        """By the kernel's own lists of maps and programs."""
        self._count_left_out(users)
        return bpf_pages(self._structures.follow, areas, users.tables, self._opened, users.names)

    def namer(self, holders: Holders) -> Namer:
        """Names as the first process saw them."""
        return Namer(holders, mounts(self._memory, self._structures.super_blocks), sys=None)
