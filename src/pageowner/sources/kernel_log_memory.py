"""Mem-Info, slabs, tasks and lines of code in a kernel log, as OOM reports have them.

Forms: mm/show_mem.c of 6.12 and 7.3 (show_free_areas in mm/page_alloc.c until 6.4; zones had the
counters of nodes until 4.7), mm/slab_common.c (dump_unreclaimable_slab, since 4.15), mm/oom_kill.c
(dump_tasks), mm/memcontrol.c (mem_cgroup_print_oom_meminfo), lib/alloc_tag.c (since 6.10).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pageowner.model.kernel_log import CodeLine, HugePages, SlabCache, Task, Zone
from pageowner.sources.kernel_log_lines import NUMBER

if TYPE_CHECKING:
    from pageowner.model.kernel_log import MemInfo

__all__ = ["KINDS", "MemoryParts", "missing_of"]

KINDS = ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable",
         "slab_reclaimable", "slab_unreclaimable", "shmem", "pagetables", "free")
"""What every kernel since 3.x prints of the whole machine, in pages."""

_LINES_OF_KINDS = {
    "active_anon": ("inactive_anon", "isolated_anon"),
    "active_file": ("inactive_file", "isolated_file"),
    "unevictable": ("dirty", "writeback"),
    "slab_reclaimable": ("slab_unreclaimable",),
    "mapped": ("shmem", "pagetables"),
    "free": ("free_pcp", "free_cma"),
}
_PAIR = re.compile(rf"([A-Za-z_]+(?:\([a-z]+\))?): ?({NUMBER})(?![\d.])(?=\s|$)")
_KB = re.compile(rf"([A-Za-z_]+(?:\([a-z]+\))?): ?({NUMBER})[kK]B(?=\s|$)")
_NODE = re.compile(rf"Node ({NUMBER}) (?=active_anon:|hugepages_)")
_ZONE_NAMES = "DMA|DMA32|Normal|HighMem|Movable|Device"
_ZONE = re.compile(rf"(?:Node ({NUMBER}) )?({_ZONE_NAMES}) (?=free:)")
_FIRST_OF_ZONES = tuple("NDHM")
_LISTS = re.compile(rf"(?:Node ({NUMBER}) )?({_ZONE_NAMES}): (?=\d+\*)")
_LIST = re.compile(rf"(?<!\d)({NUMBER})\*({NUMBER})kB(?: \(([A-Z]*)\))?(?=\s)")
_LIST_SUM = re.compile(rf"= ({NUMBER})kB$")
_RESERVE = re.compile(rf"lowmem_reserve\[\]:((?: {NUMBER})+)$")
_HUGE = re.compile(rf"Node ({NUMBER}) hugepages_total=({NUMBER}) hugepages_free=({NUMBER})"
                   rf" hugepages_surp=\d+ hugepages_size=({NUMBER})kB$")
_TOTAL = re.compile(
    rf"({NUMBER}) (?:total )?(pagecache pages|pages in swap cache|pages RAM|pages reserved"
    r"|pages cma reserved|pages hwpoisoned|pages HighMem/MovableOnly|pages HighMem|pages shared"
    r"|pages non-shared|reserved pages|pages slab|free pages|pages swap cached)$")
_SWAP = re.compile(rf"(Free|Total) swap\s*= ?({NUMBER})kB$")
_CODE = re.compile(rf"\s*({NUMBER}(?:\.{NUMBER})?) ?([KMGTPE]?i?B)\s+({NUMBER}) (\S+:\d+)"
                   r" (?:\[(\S+)\] )?func:(\S+)$")
_SLAB = re.compile(rf"(\S.*?)\s+({NUMBER})KB\s+({NUMBER})KB$")
_TASKS = re.compile(r"\[ *pid *\]((?: +[a-z_]+)+) +name$")
_TASK = re.compile(rf"\[\s*({NUMBER})\]\s+(\S.*)$")
_VALUE = re.compile(rf"-?{NUMBER}")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}

_WHOLE, _BROKEN, _OTHER = "whole", "broken", "other"


class MemoryParts:
    """Takes the lines of one report into a `MemInfo`, and its tasks."""

    def __init__(self, memory: MemInfo) -> None:
        self.memory = memory
        self.tasks: list[Task] = []
        self.has_tasks = False
        self.has_totals = False
        self._columns: list[str] = []
        self._table = ""

    def take(self, text: str) -> str:
        """``whole`` if the line is of this part and was read, ``broken`` if it is and could not be
        read whole, ``other`` if it is not."""
        found = self._begins(text)
        if found == _OTHER:
            found = self._row(text)
        return found

    def _begins(self, text: str) -> str:
        """Lines that stand for themselves."""
        plain = text.strip()
        if plain in ("Unreclaimable slab info:", "Memory allocations:"):
            self._table = plain
            return _WHOLE
        if plain == "Mem-Info:" or plain.startswith("Tasks state (memory values in pages)") or (
                plain.startswith("Name  ") and plain.endswith("Total")):
            return _WHOLE
        if header := _TASKS.match(plain):
            self._columns, self._table, self.has_tasks = header[1].split(), "tasks", True
            return _WHOLE
        if plain.startswith("[ ") and "pid ]" in plain[:12]:
            return _BROKEN
        if plain[:1] in _FIRST_OF_ZONES:
            for begins, take in ((_ZONE, self._zone), (_LISTS, self._lists), (_NODE, self._node)):
                if found := begins.match(plain):
                    return take(plain, found)
        if plain.startswith("lowmem_reserve[]:"):
            found = _RESERVE.match(plain)
            if found is None or not self.memory.zones:
                return _BROKEN
            self.memory.zones[-1].reserve = [int(pages) for pages in found[1].split()]
            return _WHOLE
        if plain[:1].isdigit() and (found := _TOTAL.match(plain)):
            self.memory.totals[found[2].removeprefix("pages ").removesuffix(" pages")] = int(
                found[1])
            self.has_totals |= found[2] in ("pages RAM", "pages reserved")
            return _WHOLE
        if "swap" in plain and (found := _SWAP.match(plain)):
            self.memory.totals[f"{found[1].lower()} swap"] = int(found[2])
            return _WHOLE
        return self._kinds(plain)

    def _kinds(self, plain: str) -> str:
        first = plain.partition(":")[0]
        if first not in _LINES_OF_KINDS and first not in (
                "sec_pagetables", "kernel_misc_reclaimable", "bounce", "unstable", "balloon_pages"):
            return _OTHER
        pairs = _PAIR.findall(plain)
        if not pairs or pairs[0][0] != first:
            return _BROKEN
        self.memory.kinds.update((name, int(number)) for name, number in pairs)
        # One printk of several lines: each line, or all in one.
        expected = [name for line in {name for name, _ in pairs} & _LINES_OF_KINDS.keys()
                    for name in _LINES_OF_KINDS[line]]
        absent = {name for name in expected if name not in self.memory.kinds}
        old = {"free_pcp", "free_cma"}  # 4.0 and 3.x
        unread = _PAIR.sub("", plain).strip()
        return _BROKEN if absent - old or unread else _WHOLE

    def _node(self, plain: str, begins: re.Match[str]) -> str:
        if "hugepages_" in plain:
            huge = _HUGE.match(plain)
            if huge is None:
                return _BROKEN
            self.memory.huge.append(HugePages(*map(int, huge.groups())))
            return _WHOLE
        kb = {name: int(number) for name, number in _KB.findall(plain)}
        self.memory.nodes[int(begins[1])] = kb
        rest = re.sub(r"all_unreclaimable\? (?:yes|no)", "", _KB.sub("", plain[begins.end():]))
        whole = "all_unreclaimable?" in plain and "active_file" in kb and not rest.strip()
        return _WHOLE if whole else _BROKEN

    def _zone(self, plain: str, begins: re.Match[str]) -> str:
        kb = {name: int(number) for name, number in _KB.findall(plain)}
        self.memory.zones.append(Zone(int(begins[1] or 0), begins[2], kb))
        rest = re.sub(r"(?:pages_scanned:\d+|all_unreclaimable\? (?:yes|no))", "",
                      _KB.sub("", plain[begins.end():])).strip()
        needed = {"free", "min", "low", "high", "present", "active_file"}
        return _BROKEN if needed - kb.keys() or rest else _WHOLE

    def _lists(self, plain: str, begins: re.Match[str]) -> str:
        node, name = int(begins[1] or 0), begins[2]
        zone = next((zone for zone in self.memory.zones
                     if (zone.node, zone.name) == (node, name) and not zone.blocks), None)
        if zone is None:
            zone = Zone(node, name)
            self.memory.zones.append(zone)
        lists, total = _LIST.findall(plain), _LIST_SUM.search(plain)
        sizes = [int(size) for _, size, _ in lists]
        doubling = all(size == sizes[0] << order for order, size in enumerate(sizes))
        if not lists or not doubling:
            return _BROKEN
        zone.blocks = {order: (int(number), letters)
                       for order, (number, _, letters) in enumerate(lists)}
        self.memory.page_kb = self.memory.page_kb or sizes[0]
        added = sum(int(number) * int(size) for number, size, _ in lists)
        rest = _LIST_SUM.sub("", _LIST.sub("", plain[begins.end():])).strip()
        return _WHOLE if total is not None and int(total[1]) == added and not rest else _BROKEN

    def _row(self, text: str) -> str:
        """A line of the table that was begun."""
        plain = text.strip()
        if self._table == "Memory allocations:" and (code := _CODE.match(text)):
            size = float(code[1]) * _UNITS[code[2].removesuffix("B").removesuffix("i")]
            self.memory.code.append(CodeLine(int(size), int(code[3]), code[4], code[6], code[5]))
            return _WHOLE
        if self._table == "Unreclaimable slab info:" and (slab := _SLAB.match(plain)):
            self.memory.slabs.append(SlabCache(slab[1], int(slab[2]), int(slab[3])))
            return _WHOLE
        if self._table == "tasks" and (task := _TASK.match(plain)):
            return self._task(task)
        if (self._table == "Unreclaimable slab info:" and re.search(r"\s\d+K?B?$", plain)) or (
                self._table == "Memory allocations:" and "func:" in plain):
            return _BROKEN
        return _OTHER

    def _task(self, found: re.Match[str]) -> str:
        words = found[2].split(None, len(self._columns))
        if len(words) <= len(self._columns) or not all(map(_VALUE.fullmatch, words[:-1])):
            return _BROKEN
        values = dict(zip(self._columns, map(int, words[:-1]), strict=True))
        tgid = values.pop("tgid", int(found[1]))
        self.tasks.append(Task(int(found[1]), tgid, words[-1], values))
        return _WHOLE


def missing_of(memory: MemInfo) -> list[str]:
    """What a whole "Mem-Info" has and this one has not."""
    missing = [f"the counter {name}" for name in KINDS if name not in memory.kinds]
    if len(missing) == len(KINDS):
        missing = ["the counters of the whole machine (active_anon, free, …)"]
    if not memory.zones:
        missing.append("the lines of the zones")
    longest = max((len(zone.reserve) for zone in memory.zones), default=0)
    told = {name for zone in memory.zones for name in zone.kb} | memory.kinds.keys()
    missing += [f"the counter {name}" for name in ("free_pcp", "free_cma")
                if name in told and memory.kinds and name not in memory.kinds]
    for zone in memory.zones:
        where = f"zone {zone.name} of node {zone.node}"
        if "free" not in zone.kb:
            missing.append(f"the counters of {where}")
        elif "free_cma" in told and "free_cma" not in zone.kb:
            missing.append(f"free_cma of {where}")
        if len(zone.reserve) < max(longest, 1) and "free" in zone.kb:
            missing.append(f"lowmem_reserve of {where}")
        if "kernel_stack" not in zone.kb and zone.node not in memory.nodes:
            missing.append(f"the counters of node {zone.node}")
        if not zone.blocks:
            missing.append(f"the free blocks of {where}")
    missing += [f"the number of {name} pages" for name in ("RAM", "reserved")
                if name not in memory.totals]
    return list(dict.fromkeys(missing))
