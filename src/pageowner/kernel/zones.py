"""Zones, pageblocks and free lists, from /proc/zoneinfo, pagetypeinfo, buddyinfo and iomem.

Parsers are pure: text in, values out. Formats: mm/vmstat.c (zoneinfo_show_print,
pagetypeinfo_showfree_print, frag_show_print) of 6.1 and 6.12.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pageowner.errors import PageownerError
from pageowner.kernel.flag_bits import MAX_ORDER
from pageowner.kernel.meminfo import kilobytes

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "NAMES",
    "PageTypeInfo",
    "Zone",
    "ZoneMap",
    "free_pages",
    "max_order",
    "meminfo_pages",
    "pageblock_order",
    "parse_buddyinfo",
    "parse_pagetypeinfo",
    "parse_zoneinfo",
    "read_text",
    "running",
]

NAMES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
"""What zones are called (mm/page_alloc.c, zone_names)."""


@dataclass(frozen=True)
class Zone:
    """A zone of a node: ``spanned`` frames from ``start_pfn`` on, of which ``present`` exist and
    ``managed`` belong to the page allocator."""

    node: int
    name: str
    start_pfn: int
    spanned: int
    present: int
    managed: int

    @property
    def end_pfn(self) -> int:
        """The first pfn behind it."""
        return self.start_pfn + self.spanned


class ZoneMap:
    """Zones in pfn order, to find those of many page frames at once."""

    def __init__(self, zones: list[Zone]) -> None:
        self.zones = sorted(zones, key=lambda zone: (zone.start_pfn, zone.spanned))

    def zone_of(self, pfn: int) -> Zone | None:
        """The zone of one page frame, by the rule of `locate`; None outside of all."""
        mine = [zone for zone in self.zones if zone.start_pfn <= pfn < zone.end_pfn]
        return mine[-1] if mine else None

    def locate(self, pfns: NDArray[np.uint64]) -> NDArray[np.int16]:
        """Index into `zones` of each pfn, -1 outside of all.

        Where the spans of nodes overlap, the zone that begins last wins.
        """
        import numpy as np

        index = np.full(len(pfns), -1, np.int16)
        values = np.asarray(pfns, np.uint64)
        for number, zone in enumerate(self.zones):
            index[(values >= np.uint64(zone.start_pfn)) & (values < np.uint64(zone.end_pfn))] = (
                number)
        return index

    def zone_column(self, pfns: NDArray[np.uint64]) -> pa.DictionaryArray[Any, Any]:
        """The zone's name for each pfn, as an Arrow dictionary<int32, string>; null outside."""
        import numpy as np
        import pyarrow as pa

        index = self.locate(pfns)
        names = sorted({zone.name for zone in self.zones})
        code = np.array([names.index(zone.name) for zone in self.zones] + [-1], np.int32)[index]
        return pa.DictionaryArray.from_arrays(
            pa.array(code, pa.int32(), mask=index < 0), pa.array(names, pa.string()))

    def node_column(self, pfns: NDArray[np.uint64]) -> pa.Array[Any]:
        """The node of each pfn, as an Arrow int16 array; null outside."""
        import numpy as np
        import pyarrow as pa

        index = self.locate(pfns)
        node = np.array([zone.node for zone in self.zones] + [-1], np.int16)[index]
        return pa.array(node, pa.int16(), mask=index < 0)


def parse_zoneinfo(text: str) -> list[Zone]:
    """The zones with pages, of the text of /proc/zoneinfo.

    Raises PageownerError if there are none.
    """
    zones = []
    for part in re.split(r"^(?=Node )", text, flags=re.MULTILINE):
        head = re.match(r"Node (\d+), zone\s+(\S+)", part)
        numbers = {
            word: re.search(rf"^\s+{word}:?\s+(\d+)$", part, re.MULTILINE)
            for word in ("spanned", "present", "managed", "start_pfn")
        }
        start, spanned, present = (numbers[w] for w in ("start_pfn", "spanned", "present"))
        if not head or not start or not spanned or not present or int(present[1]) == 0:
            continue
        managed = numbers["managed"]
        zones.append(Zone(int(head[1]), head[2], int(start[1]), int(spanned[1]), int(present[1]),
                          int(managed[1]) if managed else int(present[1])))
    if not zones:
        raise PageownerError("there is no zone with pages in this zoneinfo")
    return zones


def meminfo_pages(meminfo: str, name: str, page_size: int = 4096) -> int | None:
    """A line of the text of /proc/meminfo, in pages; None if there is none."""
    found = kilobytes(meminfo).get(name)
    return None if found is None else found // page_size


def free_pages(zoneinfo: str) -> int:
    """Pages that are free, those on the CPUs' own lists too, of the text of /proc/zoneinfo."""
    return sum(map(int, re.findall(r"^\s+(?:nr_free_pages|count:)\s+(\d+)$", zoneinfo,
                                   re.MULTILINE)))


def running(proc: str = "/proc") -> ZoneMap:
    """The zones of this machine; raises PageownerError if /proc/zoneinfo is not readable."""
    return ZoneMap(parse_zoneinfo(read_text(f"{proc}/zoneinfo")))


def max_order(proc: str = "/proc") -> int:
    """The largest order of the page allocator (MAX_PAGE_ORDER), which kernels are built with: 10
    most often, 13 on arm64 with pages of 64 KiB. /proc/buddyinfo has a column for each order."""
    columns = parse_buddyinfo(read_text(f"{proc}/buddyinfo")).values()
    return max(map(len, columns), default=MAX_ORDER + 1) - 1


def parse_buddyinfo(text: str) -> dict[tuple[int, str], tuple[int, ...]]:
    """Free blocks by order of each (node, zone), of the text of /proc/buddyinfo."""
    found = {}
    for node, zone, counts in re.findall(
        r"^Node (\d+), zone\s+(\S+)((?: +\d+)+) *$", text, re.MULTILINE
    ):
        found[int(node), zone] = tuple(map(int, counts.split()))
    return found


@dataclass(frozen=True)
class PageTypeInfo:
    """The content of /proc/pagetypeinfo.

    ``free`` holds free blocks by order for each (node, zone, migratetype); counts that the kernel
    cut off at 100,000 (it prints ``>100000``) are in ``cut_off`` too, as (node, zone, migratetype,
    order). ``blocks`` holds pageblocks by (node, zone) and migratetype, ``mixed`` those of them
    with pages of another mobility (only with page_owner on; else empty).
    """

    pageblock_order: int
    pages_per_block: int
    free: dict[tuple[int, str, str], tuple[int, ...]] = field(default_factory=dict)
    cut_off: set[tuple[int, str, str, int]] = field(default_factory=set)
    blocks: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)
    mixed: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)


def parse_pagetypeinfo(text: str) -> PageTypeInfo:
    """The text of /proc/pagetypeinfo; raises PageownerError if it names no pageblock order."""
    order = re.search(r"^Page block order:\s*(\d+)$", text, re.MULTILINE)
    per_block = re.search(r"^Pages per block:\s*(\d+)$", text, re.MULTILINE)
    if not order:
        raise PageownerError("this pagetypeinfo names no pageblock order")
    found = PageTypeInfo(int(order[1]), int(per_block[1]) if per_block else 1 << int(order[1]))
    types: list[str] = []
    table: dict[tuple[int, str], dict[str, int]] = {}
    for line in text.splitlines():
        title = re.match(r"Number of (blocks type|mixed blocks)\s+(.*)", line)
        free = re.match(r"Node\s+(\d+), zone\s+(\S+), type\s+(\S+)((?:\s+>?\d+)+)\s*$", line)
        row = re.match(r"Node (\d+), zone\s+(\S+)((?:\s+\d+)+)\s*$", line)
        if title:
            types = title[2].split()
            table = found.blocks if title[1] == "blocks type" else found.mixed
        elif free:
            key = (int(free[1]), free[2], free[3])
            counts = free[4].split()
            found.free[key] = tuple(int(count.lstrip(">")) for count in counts)
            found.cut_off.update((*key, n) for n, count in enumerate(counts) if count[0] == ">")
        elif row:
            numbers = map(int, row[3].split())
            table[int(row[1]), row[2]] = dict(zip(types, numbers, strict=False))
    return found


def pageblock_order(pagetypeinfo: str | None, meminfo: str | None = None,
                    largest: int = MAX_ORDER) -> int | None:
    """The order of a pageblock: from pagetypeinfo, else where /proc/meminfo says that there are
    huge pages.

    Pageblocks are then as large as a huge page (include/linux/pageblock-flags.h), and at most of
    the ``largest`` order: the huge page that one table of page table entries maps, whatever
    ``default_hugepagesz`` is, which Hugepagesize tells (HPAGE_SHIFT of x86, arm64, riscv,
    loongarch). None if neither text tells.
    """
    if pagetypeinfo:
        found = re.search(r"^Page block order:\s*(\d+)$", pagetypeinfo, re.MULTILINE)
        if found:
            return int(found[1])
    if meminfo and kilobytes(meminfo).get("Hugepagesize"):
        import os

        return min(os.sysconf("SC_PAGE_SIZE").bit_length() - 1 - 3, largest)
    return None


def read_text(path: str) -> str:
    """The text of a file of /proc; raises PageownerError if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except PermissionError as error:
        raise PageownerError(f"cannot read {path}: {error.strerror}; run as root") from error
    except OSError as error:
        raise PageownerError(f"cannot read {path}: {error.strerror}") from error
