"""What a snapshot of the tracker's maps needs beside them: of this machine, by /proc and its
kernel's other files."""

from __future__ import annotations

import os
import platform
import socket
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from pageowner.kernel import cgroups, gfp, kallsyms, zones
from pageowner.kernel.task_flags import PF_KTHREAD
from pageowner.model.metadata import Metadata
from pageowner.system.container_names import container_names
from pageowner.tracker.read import extfrag, pageblocks
from pageowner.tracker.read.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from pageowner.model.page_users import PageUsers
    from pageowner.tracker.read.maps import Store

__all__ = ["Machine"]



class Machine:
    """Each answer is of the moment when it is asked for first, or of that of the call. Raises
    PageownerError where a file cannot be read."""

    @cached_property
    def symbols(self) -> kallsyms.Kallsyms:
        """Names of the kernel's addresses."""
        return kallsyms.load()

    @cached_property
    def zone_map(self) -> zones.ZoneMap:
        """The zones of its memory."""
        return zones.running()

    @cached_property
    def gfp(self) -> gfp.GfpFlags:
        """The names of its gfp flags."""
        return gfp.running()

    @cached_property
    def _pagetypeinfo(self) -> str:
        return zones.read_text("/proc/pagetypeinfo")

    def frames(self) -> Frames:
        """What tells of each page frame."""
        return Frames()

    def users(self, pfn: NDArray[np.uint64], order: NDArray[np.uint8], flags: NDArray[np.uint64],
              symbols: kallsyms.Kallsyms) -> PageUsers:
        """What has each of these blocks now; see `users.find.find_users`."""
        from pageowner.tracker.users.find import find_users

        return find_users(pfn, order, flags, symbols)

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def block_types(self, store: Store, memory: Iterable[tuple[int, int]]
                    ) -> tuple[pageblocks.BlockTypes | None, str]:
        """The types of the pageblocks in these frames (first, behind the last), or None and why
        not."""
        return pageblocks.block_types(store, self.symbols, self.zone_map,
                                      zones.parse_pagetypeinfo(self._pagetypeinfo), memory)

    def block_names(self) -> tuple[str, ...]:
        """Its migratetypes, in the order of enum migratetype."""
        return extfrag.block_names(self._pagetypeinfo)

    def cgroups(self) -> cgroups.Cgroups:
        """The cgroups that memory is charged to."""
        return cgroups.memory()

    def container_names(self, paths: Iterable[str | None]) -> dict[str, str]:
        """What the containers and pods in these paths of cgroups are called."""
        return container_names(paths)

    def free_blocks(self) -> dict[tuple[int, str], tuple[int, ...]]:
        """Free blocks by order of each (node, zone)."""
        return zones.parse_buddyinfo(zones.read_text("/proc/buddyinfo"))

    def can_be_ended(self) -> list[int]:
        """All tasks but init, kernel threads (PF_KTHREAD of include/linux/sched.h) and this one."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in (1, os.getpid()):
                continue
            with (suppress(OSError, ValueError, IndexError),
                  open(f"/proc/{name}/stat", "rb") as file):
                # behind the name, which may hold anything: state, ppid, …, and as seventh the flags
                if not int(file.read().rpartition(b")")[2].split()[6]) & PF_KTHREAD:
                    found.append(int(name))
        return sorted(found)

    def moment(self, store: Store, now_ns: int, counts_types: bool = True) -> Metadata:
        """Which machine it was, and when. ``counts_types``: whether pageblocks may be counted by
        type for it, which takes the kernel a while."""
        return Metadata(
            source="", kind="tracker", host=socket.gethostname(), kernel=platform.release(),
            boot_id=str(store.facts.get("boot_id") or "") or None,
            taken_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), clock_ns=now_ns,
            page_size=os.sysconf("SC_PAGE_SIZE"),
            pageblock_order=zones.pageblock_order(
                self._pagetypeinfo if counts_types else "", zones.read_text("/proc/meminfo"),
                zones.max_order()))
