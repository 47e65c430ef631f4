"""A kernel's memory made of declared structs, for readers of page owner: what a kernel of some
version would have, with the records that a test plants."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from pageowner.kernel_memory.access import Member

PAGE = 4096
SECTION = 1 << 15
STEXT, DATA = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000
PAGES, EXT, DEPOT, HEAP = (0xFFFFEA0000000000, 0xFFFF888010000000, 0xFFFF888040000000,
                           0xFFFF888050000000)

KALLSYMS = b"""\
ffffffff81000000 T _stext
ffffffff81000100 T register_early_stack
ffffffff81000200 T alloc_pages_noprof
ffffffff81000300 T do_anonymous_page
ffffffff81000400 T end_of_it
ffffffff81ff0000 T _etext
"""

_OWNER = {"order": (0, 2), "last_migrate_reason": (2, 2), "gfp_mask": (4, 4), "handle": (8, 4)}
_TIMED = _OWNER | {"ts_nsec": (16, 8), "free_ts_nsec": (24, 8), "comm": (32, 16), "pid": (48, 4),
                   "tgid": (52, 4)}
_PAGE = {"flags": (0, 8), "compound_head": (8, 8), "private": (40, 8), "page_type": (48, 4)}

PART = {"slabindex": 0, "pool_index": 0, "pool_index_plus_1": 1}


@dataclass(frozen=True)
class Version:
    """What differs between kernels."""

    release: str
    owner: dict[str, tuple[int, int]]
    owner_size: int
    pool: str
    pool_bits: int
    entries_at: int
    page: dict[str, tuple[int, int]]
    enums: dict[str, dict[str, int]]
    buddy: int
    pools: str = "stack_pools"
    pools_by_pointer: bool = False
    wide_blocks: bool = False
    fields: bool = True

    @property
    def ext_size(self) -> int:
        return 8 + self.owner_size


_EXT = {"PAGE_EXT_OWNER": 0, "PAGE_EXT_OWNER_ALLOCATED": 1}
_REASONS = {"MR_TYPES": 2}
_KINDS = {"MIGRATE_TYPES": 6}
_FLAGS = {"__NR_PAGEFLAGS": 21}

VERSIONS = (
    Version("5.10.0-test", _OWNER, 16, "slabindex", 21, 24, _PAGE,
            {"page_ext_flags": _EXT, "migrate_reason": _REASONS, "migratetype": _KINDS,
             "pageflags": _FLAGS}, 0xFFFFFF7F, "stack_slabs", fields=False),
    Version("6.1.100", _TIMED, 56, "slabindex", 16, 24, _PAGE | {"memcg_data": (56, 8)},
            {"page_ext_flags": _EXT, "migrate_reason": _REASONS, "migratetype": _KINDS,
             "pageflags": _FLAGS}, 0xFFFFFF7F, "stack_slabs"),
    Version("6.12.5", _TIMED | {"free_pid": (56, 4)}, 64, "pool_index_plus_1", 17, 32,
            _PAGE | {"memcg_data": (56, 8)},
            {"page_ext_flags": _EXT, "migrate_reason": _REASONS, "migratetype": _KINDS,
             "pageflags": _FLAGS, "pagetype": {"PGTY_buddy": 0xF0}}, 0xF0FFFFFF),
    Version("7.3.4", _TIMED | {"free_pid": (56, 4)}, 64, "pool_index_plus_1", 17, 32,
            {**{name: place for name, place in _PAGE.items() if name != "compound_head"},
             "compound_info": (8, 8), "memcg_data": (56, 8)},
            {"page_ext_flags": _EXT, "migrate_reason": {"MR_NEVER": -1, **_REASONS},
             "migratetype": _KINDS, "pageflags": _FLAGS, "pagetype": {"PGTY_buddy": 0xF0},
             "pageblock_bits": {"PB_migrate_isolate": 4}}, 0xF0FFFFFF,
            pools_by_pointer=True, wide_blocks=True),
)


class MadeTypes:
    """Types of a version."""

    def __init__(self, version: Version) -> None:
        self.enums = version.enums
        parts = {version.pool: Member(0, 4, 0, version.pool_bits),
                 "offset": Member(0, 4, version.pool_bits, 10)}
        plain = {
            "page_ext": (8, {"flags": (0, 8)}),
            "page_ext_operations": (40, {"offset": (0, 8)}),
            "page_owner": (version.owner_size, version.owner),
            "page": (64, version.page),
            "mem_section": (32, {"section_mem_map": (0, 8), "usage": (8, 8), "page_ext": (16, 8)}),
            "mem_section_usage": (24, {"pageblock_flags": (24, 0)}),
            "stack_record": (32, {"size": (12, 4), "handle": (16, 4),
                                  "entries": (version.entries_at, 0)}),
            "trace_print_flags": (16, {"mask": (0, 8), "name": (8, 8)}),
            "page_flags_fields": (32, {"width": (0, 4), "shift": (4, 4), "mask": (8, 4),
                                       "name": (24, 8)}),
            "zone": (1984, {"free_area": (256, 1408)}), "free_area": (128, {}),
            "obj_cgroup": (48, {"memcg": (16, 8)}),
            "mem_cgroup": (2048, {"css": (0, 208)}),
            "cgroup_subsys_state": (208, {"cgroup": (0, 8), "ss": (8, 8), "flags": (84, 4)}),
            "cgroup": (512, {"kn": (64, 8)}),
            "kernfs_node": (128, {"parent": (8, 8), "name": (16, 8)}),
        }
        self.structs = {name: (size, {word: Member(*place) for word, place in members.items()})
                        for name, (size, members) in plain.items()}
        self.structs["handle_parts"] = 4, parts

    def size(self, name: str) -> int | None:
        return self.structs[name][0] if name in self.structs else None

    def member(self, name: str, path: str) -> Member | None:
        return self.structs[name][1].get(path) if name in self.structs else None

    def enumerator(self, name: str, value: str) -> int | None:
        return self.enums.get(name, {}).get(value)


@dataclass
class MadeMemory:
    """Memory of a kernel with two sections, of which the first has page_ext; records are planted
    with `plant`. It is a `pageowner.kernel_memory.access.Memory`."""

    version: Version
    page_size: int = PAGE
    live: bool = False
    machine: str = "x86_64"
    section_size_bits: int | None = None
    regions: dict[int, bytearray] = field(default_factory=dict)
    symbols: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.release = self.version.release
        self.types = MadeTypes(self.version)
        self._top, self._depot_top = HEAP, 0
        self.regions[PAGES] = bytearray(64 * SECTION)
        self.regions[EXT] = bytearray(self.version.ext_size * SECTION)
        self.regions[DEPOT] = bytearray(4 * PAGE)
        self.number("max_pfn", 2 * SECTION)
        self.number("min_low_pfn", 1)
        self.number("page_ext_size", self.version.ext_size)
        self.number("page_owner_inited", 1, "<I")
        self.symbols["page_owner_ops"] = self.put(struct.pack("<5Q", 8, 0, 0, 0, 0))
        self.symbols["transparent_hugepage_flags"] = self.put(bytes(8))
        bits = bytearray(64 if self.version.wide_blocks else 32)
        bits[0] = 0x01 if self.version.wide_blocks else 0x01 | 2 << 4
        if self.version.wide_blocks:
            bits[1] = 2
            bits[2] = 1 | 1 << 4
        else:
            bits[1] = 5
        usage = self.put(bytes(24) + bits)
        sections = bytearray(PAGE)
        struct.pack_into("<3Q", sections, 0, PAGES | 0xF, usage, EXT)
        struct.pack_into("<3Q", sections, 32, PAGES | 0xF, usage, 0)
        roots = self.put(struct.pack("<Q", self.put(bytes(sections))))
        self.number("mem_section", roots)
        pools = struct.pack("<4Q", DEPOT, 0, 0x1234, 0)
        table = self.put(pools)
        if self.version.pools_by_pointer:
            self.number("stack_pools", table)
            self.number("stack_max_pools", 4, "<I")
        else:
            self.symbols[self.version.pools] = table
        self._tables()

    def _tables(self) -> None:
        def flags(symbol: str, table: dict[str, int]) -> None:
            self.symbols[symbol] = self.put(b"".join(
                struct.pack("<2Q", mask, self.text(name)) for name, mask in table.items())
                + bytes(16))

        def pointers(symbol: str, names: tuple[str, ...]) -> None:
            self.symbols[symbol] = self.put(b"".join(
                struct.pack("<Q", self.text(name)) for name in names))

        flags("gfpflag_names", {"GFP_KERNEL": 0xCC0, "__GFP_MOVABLE": 8, "__GFP_RECLAIMABLE": 16,
                                "__GFP_ZERO": 0x100})
        flags("pageflag_names", {"locked": 1, "uptodate": 8, "lru": 32})
        pointers("migrate_reason_names", ("compaction", "memory_failure"))
        pointers("migratetype_names", ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA",
                                       "Isolate"))
        if self.version.fields:
            self.symbols["pff"] = self.put(b"".join(
                struct.pack("<iiiiQQ", width, shift, mask, 0, 0, self.text(name))
                for name, width, shift, mask in (
                    ("section", 0, 0, 0), ("node", 6, 58, 63), ("zone", 2, 56, 3),
                    ("lastcpupid", 8, 48, 0xFF), ("kasantag", 0, 0, 0))))

    # -- making --------------------------------------------------------------------------------

    def put(self, data: bytes) -> int:
        """Bytes somewhere in memory; their address."""
        address = self._top
        self.regions[address] = bytearray(data)
        self._top += (len(data) // 64 + 1) * 64
        return address

    def text(self, name: str) -> int:
        return self.put(name.encode() + b"\0")

    def number(self, symbol: str, value: int, form: str = "<Q") -> None:
        self.symbols[symbol] = self.put(struct.pack(form, value).ljust(8, b"\0"))

    def stack(self, *addresses: int, size: int | None = None) -> int:
        """A stack in the depot; its handle."""
        place = self._depot_top
        handle = PART[self.version.pool] | place // 16 << self.version.pool_bits
        if self.version.pool == "slabindex":
            handle |= 1 << self.version.pool_bits + 10  # ``valid``: no handle is 0
        record = bytearray(self.version.entries_at + 8 * len(addresses))
        struct.pack_into("<II", record, 12, len(addresses) if size is None else size, handle)
        struct.pack_into(f"<{len(addresses)}Q", record, self.version.entries_at, *addresses)
        self.regions[DEPOT][place:place + len(record)] = record
        self._depot_top += -(-len(record) // 16) * 16
        return handle

    def plant(self, pfn: int, handle: int, *, order: int = 0, gfp: int = 0xCC0, reason: int = -1,
              pid: int = 7, tgid: int = 5, comm: bytes = b"sh", ts: int = 1000, free_ts: int = 900,
              flags: int = 3, page_flags: int = 8, charge: int = 0, page_type: int = 0xFFFFFFFF,
              private: int = 0) -> None:
        """A record of a frame."""
        owner = self.version.owner
        entry = bytearray(self.version.ext_size)
        struct.pack_into("<Q", entry, 0, flags)
        values = {"order": ("<H", order), "last_migrate_reason": ("<h", reason),
                  "gfp_mask": ("<I", gfp), "handle": ("<I", handle), "ts_nsec": ("<Q", ts),
                  "free_ts_nsec": ("<Q", free_ts), "comm": ("<16s", comm), "pid": ("<i", pid),
                  "tgid": ("<i", tgid)}
        for name, (form, value) in values.items():
            if name in owner:
                struct.pack_into(form, entry, 8 + owner[name][0], value)
        at = pfn * self.version.ext_size
        self.regions[EXT][at:at + len(entry)] = entry
        page = self.version.page
        struct.pack_into("<Q", self.regions[PAGES], pfn * 64, page_flags)
        struct.pack_into("<Q", self.regions[PAGES], pfn * 64 + page["private"][0], private)
        struct.pack_into("<I", self.regions[PAGES], pfn * 64 + page["page_type"][0], page_type)
        if "memcg_data" in page:
            struct.pack_into("<Q", self.regions[PAGES], pfn * 64 + page["memcg_data"][0], charge)

    def cgroup(self, name: str, online: bool = True) -> int:
        """A memory cgroup; the address of its struct mem_cgroup."""
        if "memory_cgrp_subsys" not in self.symbols:
            self.symbols["memory_cgrp_subsys"] = self.put(bytes(8))
        node = self.put(struct.pack("<3Q", 0, HEAP, self.text(name)))
        cgroup = self.put(bytes(64) + struct.pack("<Q", node))
        css = bytearray(208)
        struct.pack_into("<2Q", css, 0, cgroup, self.symbols["memory_cgrp_subsys"])
        struct.pack_into("<I", css, 84, 2 * online)
        return self.put(bytes(css))

    # -- reading -------------------------------------------------------------------------------

    def copy(self, addresses: np.ndarray, size: int, out: np.ndarray | None = None
             ) -> tuple[np.ndarray, np.ndarray]:
        found = np.empty((len(addresses), size), np.uint8) if out is None else out
        found[:] = 0
        starts = sorted(self.regions)
        place = np.searchsorted(np.array(starts, np.uint64), addresses, "right") - 1
        first = np.array([*starts, 0], np.uint64)[place]
        length = np.array([*(len(self.regions[start]) for start in starts), 0], np.int64)[place]
        within = (addresses - first).astype(np.int64)
        good = (place >= 0) & (within >= 0) & (within + size <= length)
        for number in np.unique(place[good]).tolist():
            mine = np.flatnonzero(good & (place == number))
            region = np.frombuffer(self.regions[starts[number]], np.uint8)
            found[mine] = region[within[mine][:, None] + np.arange(size)]
        return found, good

    def symbol(self, name: str) -> int | None:
        return self.symbols.get(name)
