"""Slab caches: /proc/slabinfo (slabinfo(5)) and /sys/kernel/slab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FREED_LATER", "SlabCache", "allocating_functions", "allocating_lines", "in_use",
           "names", "parse_slabinfo", "reclaimable_names"]

FREED_LATER = frozenset(("vmap_area",))
"""Caches whose objects the kernel keeps for a while after they were freed, until it frees many
together: areas of vmalloc, until there are 32 MiB of them and more (mm/vmalloc.c of 6.1 and 6.12,
free_vmap_area_noflush, lazy_max_pages). Each kernel stack that ends can add one."""

_LINE = re.compile(
    r"^(?P<name>\S+) +(?P<active>\d+) +(?P<objects>\d+) +(?P<size>\d+) +(?P<each>\d+)"
    r" +(?P<pages>\d+) +:"
    r" tunables.*: slabdata +\d+ +(?P<slabs>\d+)", re.MULTILINE)


class SlabCache(NamedTuple):
    """A cache: ``active`` of its ``objects`` of ``object_size`` bytes are in use; ``pages`` in all
    its slabs, of which one has room for ``per_slab`` objects in ``slab_pages``."""

    name: str
    active: int
    objects: int
    object_size: int
    pages: int
    per_slab: int = 0
    slab_pages: int = 1


def parse_slabinfo(text: str) -> list[SlabCache]:
    """The caches of the text of /proc/slabinfo, version 2.1 (mm/slab_common.c, cache_show)."""
    return [SlabCache(m["name"], int(m["active"]), int(m["objects"]), int(m["size"]),
                      int(m["slabs"]) * int(m["pages"]), int(m["each"]), int(m["pages"]))
            for m in _LINE.finditer(text)]


def in_use(proc: str = "/proc") -> dict[str, int]:
    """Objects in use of each cache, by the kernel's own count; empty where /proc/slabinfo is not
    readable."""
    try:
        text = Path(proc, "slabinfo").read_text(errors="backslashreplace")
    except OSError:
        return {}
    return {cache.name: cache.active for cache in parse_slabinfo(text)}


def names(proc: str = "/proc") -> frozenset[str]:
    """The names of all caches; none where /proc/slabinfo is not readable."""
    return frozenset(in_use(proc))


def reclaimable_names(caches: Iterable[str], sys: str = "/sys") -> set[str] | None:
    """Names of the caches whose pages count as reclaimable (SLAB_RECLAIM_ACCOUNT); None where
    /sys/kernel/slab does not tell (mm/slub.c, SLAB_ATTR_RO(reclaim_account))."""
    top, found, told = Path(sys, "kernel/slab"), set(), False
    for cache in caches:
        try:
            flag = (top / cache / "reclaim_account").read_text().strip()
        except OSError:
            continue
        told = True
        if flag == "1":
            found.add(cache)
    return found if told else None


def allocating_functions(caches: list[SlabCache], debug: str = "/sys/kernel/debug"
                         ) -> dict[str, str]:
    """The function that allocated the most objects of each cache that tells it: alloc_traces, of
    kernels booted with slub_debug=U (mm/slub.c, slab_debug_trace_open, 5.14)."""
    found = {}
    for cache in caches:
        try:
            text = Path(debug, "slab", cache.name, "alloc_traces").read_text()
        except OSError:
            continue
        most = max(_TRACE.findall(text), key=lambda line: int(line[0]), default=None)
        if most:
            found[cache.name] = most[1]
    return found


_TRACE = re.compile(r"^ *(\d+) ([^\s+]+)\+0x\S+ ", re.MULTILINE)


def allocating_lines(text: str) -> dict[str, str]:
    """The line of the kernel's code in which each function allocates the most, of the text of
    /proc/allocinfo (lib/alloc_tag.c, 6.10)."""
    found: dict[str, tuple[int, str]] = {}
    for size, place, function in _CODE.findall(text):
        if int(size) > found.get(function, (0, ""))[0]:
            found[function] = int(size), place
    return {function: place for function, (_, place) in found.items()}


_CODE = re.compile(r"^ *(\d+) +\d+ +(\S+:\d+)(?: \[\S+\])? func:(\S+)", re.MULTILINE)
