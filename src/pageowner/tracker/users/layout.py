"""The layout of the maps of bpf/page_users.bpf.c as NumPy types: page_users.h says what each field
means, and a test compares the two."""

from __future__ import annotations

import numpy as np

__all__ = ["ANCHOR", "AREA", "AREAS", "CACHE", "CACHES", "CHUNK_BYTES", "FILE", "FILES",
           "FILE_CHANGED", "FILE_CUT", "FILE_FAILED", "FILE_NAMELESS", "FILE_NOT_OWN",
           "FILE_ROOTLESS", "FILE_UNLINKED", "GROUP", "GROUPS", "LAYOUT", "NOT_KNOWN",
           "POOL", "REQUEST", "REQUESTS", "TASK"]

CHUNK_BYTES, REQUESTS = 1 << 18, 4096
FILES, AREAS, CACHES, GROUPS = 512, 1024, 1024, 256
NOT_KNOWN = 0xFFFFFFFF

(FILE_FAILED, FILE_NOT_OWN, FILE_NAMELESS, FILE_CUT, FILE_UNLINKED, FILE_ROOTLESS,
 FILE_CHANGED) = (1 << bit for bit in range(7))

REQUEST = np.dtype([("address", "u8"), ("at", "u4"), ("size", "u4"), ("failed", "u4"),
                    ("unused", "u4")])
LAYOUT = np.dtype([(name, "u4") for name in (
    "page_size_of", "page_mapping", "page_type", "page_refcount", "page_pool_magic", "page_pool",
    "slab_cache", "order_byte", "flag_head", "flag_slab", "type_table", "type_large_kmalloc",
    "type_zsmalloc", "area_size", "area_start", "area_vm", "area_list", "has_stack_areas",
    "page_memcg", "page_list", "table_deposit")])
ANCHOR = np.dtype([(name, "u8") for name in ("page", "mapping", "inode", "task", "pgd")])
FILE = np.dtype([("mapping", "u8"), ("inode", "u8"), ("number", "u8"), ("mapper", "u8"),
                 ("device", "u4"), ("own_device", "u4"), ("links", "u4"), ("state", "u4"),
                 ("length", "u4"), ("unused", "u4"), ("kind", "S16"), ("path", "S944"),
                 ("spare", "u8")])
CACHE = np.dtype([("cache", "u8"), ("failed", "u4"), ("size", "u4"), ("name", "S48")])
TASK = np.dtype([("pid", "u4"), ("tgid", "u4"), ("mm", "u8"), ("pgd", "u8"), ("stack", "u8"),
                 ("area", "u8"), ("flags", "u4"), ("unused", "u4"), ("comm", "S16")])
AREA = np.dtype([("address", "u8"), ("start", "u8"), ("end", "u8"), ("vm", "u8"),
                 ("caller", "u8"), ("pages", "u8"), ("flags", "u8"), ("count", "u4"),
                 ("state", "u4")])
GROUP = np.dtype([("group", "u8"), ("id", "u8"), ("state", "u4"), ("length", "u4"),
                  ("path", "S496")])
POOL = np.dtype([("pool", "u8"), ("failed", "u4"), ("id", "u4"), ("device", "S16")])
