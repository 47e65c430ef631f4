"""Why an allocation failed that a kernel log reports: too little memory, or none in one piece.

The rules are those of __zone_watermark_ok() and gfp_zone() (mm/page_alloc.c and
include/linux/gfp.h of 6.12): a zone gives a block if enough memory stays free above its low mark,
and a free block is large enough and of a type that the allocation may use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pageowner.model.kernel_log import MemoryReport, Zone

__all__ = ["Blocks", "ZoneBlocks", "blocks_of"]

_ZONES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")
_DMA, _HIGHMEM, _DMA32, _MOVABLE, _HIGH = 0x1, 0x2, 0x4, 0x8, 0x20
"""___GFP_DMA to ___GFP_MOVABLE and ___GFP_HIGH (include/linux/gfp_types.h): the same since 3.x."""


@dataclass(frozen=True)
class ZoneBlocks:
    """A zone that the allocation may use: bytes ``free`` for it, and ``needed`` before it gets any;
    ``large``: free blocks that are large enough. ``verdict``: ``low``, ``fragmented`` or
    ``enough``."""

    node: int
    name: str
    free: int
    needed: int
    large: int
    verdict: str


@dataclass(frozen=True)
class Blocks:
    """``verdict``: ``out of memory`` if every zone is low, ``fragmented`` if one has the memory but
    not in one piece, ``enough`` if one has a block, ``unknown`` without free lists."""

    order: int
    verdict: str
    zones: list[ZoneBlocks]


def blocks_of(report: MemoryReport, page_size: int) -> Blocks | None:
    """None if the report is not about an allocation of pages."""
    if report.order is None or report.order < 0 or report.gfp_mask is None or (
            report.kind == "cgroup out of memory"):
        return None
    mask, zones = report.gfp_mask, report.memory.zones
    highest = _ZONES.index("DMA" if mask & _DMA else "DMA32" if mask & _DMA32 else
                           "Normal" if not mask & _HIGHMEM else
                           "Movable" if mask & _MOVABLE else "HighMem")
    judged = [_judged(zone, report.order, mask, _reserve(zone, zones, highest), page_size)
              for zone in zones
              if _ZONES.index(zone.name) <= highest and "free" in zone.kb and zone.blocks]
    verdicts = {zone.verdict for zone in judged}
    return Blocks(report.order, "unknown" if not verdicts else "enough" if "enough" in verdicts
                  else "fragmented" if "fragmented" in verdicts else "out of memory", judged)


def _reserve(zone: Zone, zones: list[Zone], highest: int) -> int:
    """Pages of a zone that are kept for allocations which cannot use a higher one. The list has a
    place for each zone that the kernel was built with, populated or not."""
    present = {other.name for other in zones}
    built = [name for name in _ZONES if name in present or name in ("Normal", "Movable", "Device")]
    for name in ("DMA32", "DMA"):
        if len(built) < len(zone.reserve) and name not in built and "HighMem" not in present:
            built = sorted([*built, name], key=_ZONES.index)
    usable = [place for place, name in enumerate(built[:len(zone.reserve)])
              if _ZONES.index(name) <= highest]
    return zone.reserve[usable[-1]] if usable else 0


def _judged(zone: Zone, order: int, mask: int, reserve: int, page_size: int) -> ZoneBlocks:
    kb, page_kb = zone.kb, page_size >> 10
    may_use_cma, may_use_high = bool(mask & _MOVABLE), bool(mask & _HIGH)
    free = kb["free"]
    if not may_use_cma:
        free -= kb.get("free_cma", 0)
    if not may_use_high:
        free -= kb.get("free_highatomic", kb.get("reserved_highatomic", 0))
    least = kb.get("min", 0)
    if may_use_high:
        least -= least // 2
    needed = least + reserve * page_kb + (page_kb << order) - page_kb
    usable = set("UME") | ({"C"} if may_use_cma else set()) | ({"H"} if may_use_high else set())
    large = sum(number for size, (number, letters) in zone.blocks.items()
                if size >= order and (not letters or set(letters) & usable))
    verdict = "low" if free <= needed else "enough" if large else "fragmented"
    return ZoneBlocks(zone.node, zone.name, max(free, 0) << 10, needed << 10, large, verdict)
