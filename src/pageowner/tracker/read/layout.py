"""What both halves of the tracker share, made of records.h by scripts/build-bpf: edit that.

A struct is its fields in order, each with NumPy's name of its type; there are no holes in between.
The names of an enum are in its order, from 0 on. records.h says what all of it means.
"""

from __future__ import annotations

__all__ = ["CACHE_NAME", "COMM_LEN", "COUNTERS", "EXTFRAG", "EXTFRAG_KEY", "FREED", "FREED_WRITTEN",
           "HOOKS", "HOT", "MAX_BLOCK", "MAX_CLEARED", "MAX_DEPTH", "MEMO_COUNTERS", "MEMO_SLOTS",
           "NOT_BEGUN", "OBJECT", "OBJECT_CACHE", "OBJECT_CACHES", "OBJECT_PERCPU",
           "OBJECT_WRITTEN", "QUESTION", "QUESTIONS", "RECORD", "SIGHTING", "SIGHTINGS", "SPARES",
           "SPARE_HELD", "STACK", "STATES", "TASK", "TASK_SLOT_BITS", "TIMED", "TIMING",
           "TIMING_BUCKETS", "WAYS"]

COMM_LEN = 16
MAX_DEPTH = 64
MAX_CLEARED = 13
MAX_BLOCK = 20
TASK_SLOT_BITS = 20
SPARES = 4
SPARE_HELD = 0xffffffff
WAYS = 16
FREED_WRITTEN = 0xffffffffffffffff
NOT_BEGUN = 255
TIMING_BUCKETS = 128
MEMO_SLOTS = 16
SIGHTINGS = 64
QUESTIONS = 512
OBJECT_WRITTEN = 1
OBJECT_PERCPU = 0xffffffff
CACHE_NAME = 40
OBJECT_CACHES = 2048
STATES = ("none", "owned", "early", "filtered", "divided", "written")
COUNTERS = (
    "allocs", "frees", "bulk", "contig", "migrated", "splits", "extfrag", "filtered", "carves",
    "merges", "early_freed", "unknown_frees", "overwritten", "out_of_range", "stacks_full",
    "stacks_failed", "stack_collisions", "tasks_full", "tasks_taken", "bulk_missed",
    "extfrag_full", "contended", "nested_allocs", "nested_frees", "reentered", "freed_pages",
    "ran_migrate", "ran_split_page", "ran_split_folio", "ran_contig_around", "ran_isolated",
    "ran_exact", "ran_migrate_start", "ran_migrate_end", "objects_kmalloc", "objects_cache",
    "objects_percpu", "objects_bulk", "objects_kfree", "objects_cache_free", "objects_percpu_free",
    "objects_bulk_free", "objects_sheaf_free", "objects_rcu_free", "objects_full",
    "objects_overwritten", "objects_busy", "objects_bulk_missed", "object_caches_full",
    "objects_nested_kmalloc", "objects_nested_cache", "objects_nested_percpu",
    "objects_nested_bulk", "objects_nested_kfree", "objects_nested_cache_free",
    "objects_nested_percpu_free", "objects_nested_bulk_free", "objects_nested_sheaf_free",
    "objects_nested_rcu_free",
)
HOOKS = (
    "alloc", "free", "extfrag", "bulk", "contig", "migrate", "split", "contig_around", "kmalloc",
    "cache_alloc", "percpu_alloc", "objects_in_bulk", "nested_alloc", "nested_free",
    "nested_kmalloc", "nested_cache_alloc", "nested_percpu_alloc", "nested_objects_in_bulk",
)
TIMED = ("unwind", "learn")
MEMO_COUNTERS = (
    "hits", "misses", "checks", "differences", "replaced", "other_stack", "deep", "ambiguous",
    "varies", "pointers", "traced", "lost", "long",
)
RECORD = (
    ("ts", "u8"), ("stack_id", "u4"), ("task_id", "u4"), ("gfp_mask", "u4"), ("order", "u1"),
    ("state", "u1"), ("moved", "u1"), ("generation", "u1"),
)
FREED = (("ts", "u8"), ("stack_id", "u4"), ("task_id", "u4"))
TASK = (
    ("id", "u4"), ("refs", "u4"), ("tgid", "u4"), ("pid", "u4"), ("comm", "S16"),
    ("cgroup_id", "u8"),
)
STACK = (("hash", "u8"), ("n", "u4"), ("spare", "u4"), ("frames", "(64,)u8"))
EXTFRAG_KEY = (
    ("stack_id", "u4"), ("tgid", "u4"), ("pid", "u4"), ("alloc_order", "u1"),
    ("fallback_order", "u1"), ("alloc_migratetype", "u1"), ("fallback_migratetype", "u1"),
    ("comm", "S16"),
)
EXTFRAG = (("count", "u8"), ("last_ts", "u8"))
HOT = (
    ("busy", "u4"), ("task_id", "u4"), ("held", "u4"), ("until_check", "u4"), ("seen", "u8"),
    ("plain", "(2,)u8"), ("bottom", "u8"), ("after", "u8"), ("key", "u8"), ("hits", "u8"),
    ("checks", "u8"), ("pid_tgid", "u8"), ("cgroup_id", "u8"), ("comm", "(2,)u8"),
    ("raw_comm", "(2,)u8"), ("left_id", "u4"), ("left", "u4"),
)
TIMING = (("longest", "u8"), ("bucket", "(128,)u8"))
SIGHTING = (
    ("page", "u8"), ("address", "u8"), ("gfp_mask", "u8"), ("pinned", "u8"), ("order", "u4"),
    ("n", "u4"), ("frames", "(64,)u8"),
)
QUESTION = (("pfn", "u8"), ("flags", "u8"), ("refcount", "i4"), ("type", "u4"))
OBJECT = (
    ("ts", "u8"), ("stack_id", "u4"), ("task_id", "u4"), ("cache", "u4"), ("requested", "u4"),
    ("bytes", "u4"), ("gfp_mask", "u4"),
)
OBJECT_CACHE = (
    ("address", "u8"), ("name_at", "u8"), ("bytes", "u4"), ("object_size", "u4"), ("name", "S40"),
)
