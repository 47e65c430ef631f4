"""The migratetypes of pageblocks, which a stock kernel shows nowhere but in its own memory.

They are bits in the usage of memory sections, which BPF can read where /proc/kallsyms has the
kernel's data symbols (CONFIG_KALLSYMS_ALL, as in the kernels of the large distributions). What was
read is believed only if it adds up to what /proc/pagetypeinfo counts.

Sources: include/linux/mmzone.h (struct mem_section, __nr_to_section), include/linux/
pageblock-flags.h, mm/page_alloc.c (get_pfnblock_migratetype), mm/vmstat.c
(pagetypeinfo_showblockcount_print) of 6.12 and 6.18.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.model.pfn_runs import SideBySide, joined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pageowner.kernel.kallsyms import Kallsyms
    from pageowner.kernel.zones import PageTypeInfo, ZoneMap
    from pageowner.tracker.read.maps import Store

__all__ = ["NO_SYMBOL", "SYMBOL", "BlockTypes", "block_types", "counted", "disagreement"]

SYMBOL = "mem_section"
NO_SYMBOL = "/proc/kallsyms has no mem_section"
_MIGRATETYPE, _ISOLATED = 7, 16
"""Bits 0 to 2 are the type; since 6.17 bit 4 says that it is isolated (PB_migrate_isolate)."""


@dataclass(frozen=True)
class BlockTypes:
    """``code``: for each pageblock of ``numbers`` its place in ``names``, or -1."""

    order: int
    numbers: SideBySide
    code: NDArray[np.int32]
    names: tuple[str, ...]

    def column(self, pfns: NDArray[np.uint64]) -> Any:
        """The type of each pfn's pageblock as an Arrow dictionary<int32, string>; null where it
        is not known."""
        import pyarrow as pa

        if not len(self.code):
            return pa.nulls(len(pfns), pa.dictionary(pa.int32(), pa.string()))
        place = self.numbers.places((pfns >> np.uint64(self.order)).astype(np.int64))
        code = np.where(place >= 0, self.code[place], -1).astype(np.int32)
        return pa.DictionaryArray.from_arrays(
            pa.array(code, mask=code < 0), pa.array(self.names, pa.string()))


def block_types(store: Store, symbols: Kallsyms, zone_map: ZoneMap, info: PageTypeInfo,
                memory: Iterable[tuple[int, int]]) -> tuple[BlockTypes | None, str]:
    """The types of all pageblocks in these frames of the zones (first, behind the last), or None
    and why not, in some words."""
    address = symbols.address_of(SYMBOL)
    names = tuple(next(iter(info.blocks.values()), ()))
    if address is None:
        return None, NO_SYMBOL
    if not names:
        return None, "/proc/pagetypeinfo does not count pageblocks by type"
    order = info.pageblock_order
    first = min(zone.start_pfn for zone in zone_map.zones)
    behind = max(zone.end_pfn for zone in zone_map.zones)
    numbers = SideBySide(joined(
        (max(start, first) >> order, (min(end, behind) - 1 >> order) + 1) for start, end in memory))
    pfns = numbers.numbers().astype(np.uint64) << np.uint64(order)
    answers = store.pageblocks(pfns, address, order)
    bits = answers["flags"].astype(np.int32)
    code = np.where(answers["refcount"] < 0, -1, bits & _MIGRATETYPE)
    if "Isolate" in names:
        code[(code >= 0) & (bits & _ISOLATED != 0)] = names.index("Isolate")
    code[code >= len(names)] = -1
    found = BlockTypes(order, numbers, code.astype(np.int32), names)
    wrong = disagreement(counted(found, zone_map), info.blocks)
    return (None, wrong) if wrong else (found, "")


def counted(found: BlockTypes, zone_map: ZoneMap) -> dict[tuple[int, str], dict[str, int]]:
    """How many pageblocks of each zone have which type, in steps of a block from the zone's first
    frame on, as the kernel counts."""
    total = {}
    firsts = found.numbers.numbers() << found.order
    for place, zone in enumerate(zone_map.zones):
        # a zone may begin in the midst of a block
        pfns = np.maximum(firsts, zone.start_pfn).astype(np.uint64)
        near = firsts + (1 << found.order) > zone.start_pfn
        mine = found.code[near & (zone_map.locate(pfns) == place)]
        counts = np.bincount(mine[mine >= 0], minlength=len(found.names)).tolist()
        total[zone.node, zone.name] = dict(zip(found.names, counts, strict=True))
    return total


def disagreement(ours: dict[tuple[int, str], dict[str, int]],
                 kernels: dict[tuple[int, str], dict[str, int]]) -> str:
    """What is wrong if ours cannot be what the kernel counts; empty if it can be.

    By type over all zones: where memory was put into another zone in the midst of one, to which of
    them a block belongs stands in its struct page only. Blocks change their type while both are
    read, a few in a thousand. Of Movable ones ours may be more: memory that is offline has that
    type, and the kernel does not count it.
    """
    read, said = _by_type(ours), _by_type(kernels)
    allowed = 2 + sum(said.values()) // 200
    for name, number in said.items():
        if (abs(read[name] - number) > allowed if name != "Movable"
                else read[name] + allowed < number):
            return (f"mem_section shows {read[name]:,} {name} pageblocks, the kernel"
                    f" counts {number:,}")
    return ""


def _by_type(zones: dict[tuple[int, str], dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in zones.values():
        total.update(counts)
    return total
