"""What a snapshot needs beside the tracker's maps, of the machine whose memory was dumped."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel import gfp, zones
from pageowner.kernel.task_flags import PF_KTHREAD
from pageowner.kernel_memory import name_tables, pageblocks
from pageowner.kernel_memory.access import member, offset, strings, symbol, word
from pageowner.kernel_memory.sections import Pieces
from pageowner.model.metadata import Metadata
from pageowner.model.pfn_runs import SideBySide, joined
from pageowner.tracker.read.machine import Machine
from pageowner.tracker.read.pageblocks import BlockTypes
from pageowner.vmcore.page_structs import VmcoreFrames
from pageowner.vmcore.structs import linked, text, value
from pageowner.vmcore.users import find_users

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.kernel.cgroups import Cgroups
    from pageowner.kernel.kallsyms import Kallsyms
    from pageowner.model.page_users import PageUsers
    from pageowner.tracker.read.maps import Store
    from pageowner.vmcore.memory import Vmcore

__all__ = ["VmcoreMachine"]

_MOST_NODES = 1024
_NS = 10**9


class VmcoreMachine(Machine):
    """Read out of its memory."""

    def __init__(self, memory: Vmcore) -> None:
        """Raises PageownerError where its structures are not as they should be."""
        self.memory = memory
        self._frames = VmcoreFrames(memory)
        self.newest_ns = 0
        """The newest time that a record has; set by who reads them."""

    @cached_property
    def symbols(self) -> Kallsyms:
        """Names of its kernel's addresses."""
        return self.memory.symbols

    @cached_property
    def gfp(self) -> gfp.GfpFlags:
        """The names of its gfp flags."""
        try:
            return name_tables.gfp_flags(self.memory)
        except PageownerError:
            return gfp.for_release(self.memory.release)

    def frames(self) -> VmcoreFrames:
        """What tells of each page frame."""
        return self._frames

    @cached_property
    def _nodes(self) -> list[int]:
        """Addresses of its NUMA nodes (struct pglist_data)."""
        memory = self.memory
        table = memory.symbol("node_data")
        if table is None:
            return [symbol(memory, "contig_page_data")]
        count = word(memory, symbol(memory, "nr_node_ids"), "<u4") if memory.symbol(
            "nr_node_ids") is not None else 1
        if not 0 < count <= _MOST_NODES:
            raise PageownerError(f"its kernel would have {count} NUMA nodes: it is damaged")
        found = [word(memory, table + 8 * node) for node in range(count)]
        return [node for node in found if node]

    @cached_property
    def _zones(self) -> list[tuple[zones.Zone, int]]:
        """Each zone with memory, and the address of its struct."""
        memory, types = self.memory, self.memory.types
        place, size = member(types, "pglist_data", "node_zones"), types.size("zone") or 0
        if not size or place.size % size:
            raise PageownerError("the kernel's types (BTF) do not have struct zone")
        found = []
        for number, node in enumerate(self._nodes):
            for at in range(node + place.offset, node + place.offset + place.size, size):
                present = value(memory, at, "zone", "present_pages")
                if not present:
                    continue
                pointer = np.array([value(memory, at, "zone", "name")], np.uint64)
                (name,) = strings(memory, pointer, 16)
                node_id = value(memory, node, "pglist_data", "node_id")
                found.append((zones.Zone(
                    node_id if node_id < _MOST_NODES else number,
                    (name or b"?").decode("ascii", "backslashreplace"),
                    value(memory, at, "zone", "zone_start_pfn"),
                    value(memory, at, "zone", "spanned_pages"), present,
                    word(memory, at + offset(types, "zone", "managed_pages"))), at))
        if not found:
            raise PageownerError("no zone in it has memory: it is damaged")
        return found

    @cached_property
    def zone_map(self) -> zones.ZoneMap:
        """The zones of its memory."""
        return zones.ZoneMap([zone for zone, _ in self._zones])

    @property
    def zone_structs(self) -> list[int]:
        """Addresses of the structs of zones with memory."""
        return [at for _, at in self._zones]

    def container_names(self, paths: Iterable[str | None]) -> dict[str, str]:
        """None: the machine's files are not in its memory."""
        return {}

    def free_blocks(self) -> dict[tuple[int, str], tuple[int, ...]]:
        """Free blocks by order of each (node, zone)."""
        types = self.memory.types
        size = types.size("free_area") or 1
        place = member(types, "zone", "free_area")
        count = offset(types, "free_area", "nr_free")
        return {(zone.node, zone.name): tuple(
            word(self.memory, at + place.offset + order * size + count)
            for order in range(place.size // size)) for zone, at in self._zones}

    def users(self, pfn: NDArray[np.uint64], order: NDArray[np.uint8], flags: NDArray[np.uint64],
              symbols: Kallsyms) -> PageUsers:
        """What had each of these blocks; see `vmcore.users.find_users`."""
        return find_users(self.memory, self._frames.mem_maps, pfn, order, flags, symbols)

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC when it was dumped, as the kernel last wrote it down, which is at its
        last tick; not before the newest record."""
        return max(self._monotonic() or 0, self.newest_ns)

    def _timekeeper(self) -> int | None:
        """kernel/time/timekeeping.c: ``shadow_timekeeper``, a copy, until 6.12; since 6.13 struct
        tk_data (``tk_core``, since 6.17 ``timekeeper_data``)."""
        memory = self.memory
        inside = memory.types.member("tk_data", "timekeeper")
        if inside is None:
            return memory.symbol("shadow_timekeeper")
        for name in ("timekeeper_data", "tk_core"):
            if (address := memory.symbol(name)) is not None:
                return address + inside.offset
        return None

    def _monotonic(self) -> int | None:
        keeper = self._timekeeper()
        if keeper is None:
            return None
        try:
            base, fine, shift = (value(self.memory, keeper, "timekeeper", f"tkr_mono.{name}")
                                 for name in ("base", "xtime_nsec", "shift"))
        except PageownerError:
            return None
        return base + (fine >> (shift & 63))

    def taken_at(self) -> str | None:
        """When the kernel died, else the time of its clock when it was dumped."""
        seconds = self.memory.info.crash_time
        if seconds is None and (keeper := self._timekeeper()) is not None:
            try:
                seconds = value(self.memory, keeper, "timekeeper", "xtime_sec")
            except PageownerError:
                return None
        if seconds is None or not 0 < seconds < 1 << 33:
            return None
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    def host(self) -> str | None:
        """Its name."""
        address = self.memory.symbol("init_uts_ns")
        if address is None:
            return None
        try:
            raw = text(self.memory, address, "uts_namespace", "name.nodename")
        except PageownerError:
            return None
        return raw.decode("utf-8", "backslashreplace") or None

    @cached_property
    def _block_names(self) -> tuple[str, ...]:
        try:
            return name_tables.block_types(self.memory)
        except PageownerError:
            return gfp.BLOCK_TYPES[:6]

    def block_names(self) -> tuple[str, ...]:
        """Its migratetypes, in the order of enum migratetype."""
        return self._block_names

    def block_types(self, store: Store, memory: Iterable[tuple[int, int]]
                    ) -> tuple[BlockTypes | None, str]:
        """The types of the pageblocks in these frames (first, behind the last), or None and why
        not."""
        maps = self._frames.mem_maps
        there = np.flatnonzero(maps.maps)
        first = there.astype(np.uint64) << np.uint64(maps.bits)
        frames = 1 << maps.bits
        pieces = Pieces(first, first + np.uint64(frames), first, maps.maps[there],
                        maps.usage[there], frames, 0)
        found = pageblocks.BlockTypes(self.memory, pieces)
        if found.why_none:
            return None, found.why_none
        numbers = SideBySide(joined((start >> found.order, (end - 1 >> found.order) + 1)
                                    for start, end in memory))
        pfns = numbers.numbers().astype(np.uint64) << np.uint64(found.order)
        return BlockTypes(found.order, numbers, found.codes(pfns), found.names), ""

    def cgroups(self) -> Cgroups:
        """The cgroups that memory is charged to, as far as they were met."""
        return self._frames.charges.paths()

    def can_be_ended(self) -> list[int]:
        """All tasks but init and kernel threads."""
        memory = self.memory
        first = memory.symbol("init_task")
        if first is None:
            return []
        at = offset(memory.types, "task_struct", "tasks")
        found = []
        try:
            for link in linked(memory, first + at):
                tgid = value(memory, link - at, "task_struct", "tgid")
                if tgid > 1 and not value(memory, link - at, "task_struct", "flags") & PF_KTHREAD:
                    found.append(tgid)
        except PageownerError:
            return []
        return sorted(set(found))

    def moment(self, store: Store, now_ns: int, counts_types: bool = True) -> Metadata:
        """Which machine it was, and when."""
        return Metadata(
            source="", kind="tracker", host=self.host(), kernel=self.memory.release or None,
            boot_id=str(store.facts.get("boot_id") or "") or None, taken_at=self.taken_at(),
            clock_ns=now_ns, page_size=self.memory.page_size,
            pageblock_order=pageblocks.pageblock_order(self.memory))
