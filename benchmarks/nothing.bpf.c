// SPDX-License-Identifier: MIT OR GPL-2.0
/* Programs that do nothing where the tracker's run: what running them costs. */
#define SEC(name) __attribute__((section(name), used))
#define NOTHING(section, name) SEC(section) int name(void *context) { (void)context; return 0; }

char LICENSE[] SEC("license") = "Dual MIT/GPL";

NOTHING("raw_tp/mm_page_alloc", on_alloc)
NOTHING("raw_tp/mm_page_alloc", on_nested_alloc)
NOTHING("raw_tp/mm_page_free", on_free)
NOTHING("raw_tp/mm_page_free", on_nested_free)
NOTHING("raw_tp/kmalloc", on_kmalloc)
NOTHING("raw_tp/kmem_cache_alloc", on_cache_alloc)
NOTHING("raw_tp/kfree", on_kfree)
NOTHING("raw_tp/kmem_cache_free", on_cache_free)
