/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Down to the object: who allocated what lies in slabs, where that was asked for.
 *
 * Which objects are followed depends on their address alone, so that each one's allocation and free
 * agree about it, and nothing is kept of the others. Each program is loaded and attached for itself
 * (object_hooks.py); which argument of a tracepoint is which is a parameter, since that has changed
 * between kernels (include/trace/events/kmem.h).
 */
#ifndef PAGEOWNER_OBJECTS_BPF_H
#define PAGEOWNER_OBJECTS_BPF_H

#include "functions.bpf.h"
#include "shared.bpf.h"
#include "stacks.bpf.h"
#include "tasks.bpf.h"

struct kmem_cache {
	const char *name;
	unsigned int size;
	unsigned int object_size;
} CORE;
struct slab {
	struct kmem_cache *slab_cache; /* 5.17 */
} CORE;

const volatile u64 object_share;   /* followed are the objects whose hash is at most this */
const volatile u64 object_seed;    /* another choice each time */
const volatile u32 object_mask;    /* slots - 1, a power of two */
const volatile u32 kmalloc_max;    /* bytes of the largest object of kmalloc() in a slab */
/* Which argument of the tracepoint is what; NOT_THERE if it has none such. */
const volatile u8 object_gfp = NOT_THERE;
const volatile u8 object_requested = NOT_THERE;
const volatile u8 object_bytes = NOT_THERE;
const volatile u8 object_of_cache = NOT_THERE;

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, u64);
	FIELD_NUMBER(max_entries, 1);
} object_words SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct object);
	FIELD_NUMBER(max_entries, 1);
} objects SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct object_cache);
	FIELD_NUMBER(max_entries, 1);
} object_caches SEC(".maps");

/* ---- which ---- */

INLINE u64 object_hash(u64 address)
{
	u64 hash = (address ^ object_seed) * 0x9e3779b97f4a7c15ULL;

	return (hash ^ hash >> 32) * 0xd6e8feb86659fd93ULL;
}

/* Two buckets of half the ways each, from bits that are not those that choose. */
INLINE u32 object_slot(u64 hash, u32 way)
{
	u32 bucket = way < WAYS / 2 ? (u32)hash : (u32)(hash * 0x9e3779b97f4a7c15ULL >> 32);

	return ((bucket & ~(u32)(WAYS / 2 - 1)) | (way & (WAYS / 2 - 1))) & object_mask;
}

INLINE u64 *object_word(u32 slot)
{
	return bpf_map_lookup_elem(&object_words, &slot);
}

INLINE struct object *object_at(u32 slot)
{
	return bpf_map_lookup_elem(&objects, &slot);
}

/* ---- its cache ---- */

INLINE int same_cache(struct object_cache *known, u64 address, u64 name_at, u32 bytes)
{
	return *(volatile u64 *)&known->address == address && known->name_at == name_at &&
	       known->bytes == bytes;
}

/* The slot of the cache at an address, found or made; 0: none, or no room. */
GLOBAL u32 find_cache(u64 address)
{
	struct kmem_cache *const cache = NULL;
	struct object_cache *known;
	u32 way, slot, bytes = 0, object_size = 0;
	u64 name_at = 0, hash = hash_step(0, address);

	if (!core_field_exists(cache->name) || !core_field_exists(cache->size) ||
	    bpf_probe_read_kernel(&name_at, sizeof(name_at),
				  (void *)(address + core_field_offset(cache->name))) ||
	    bpf_probe_read_kernel(&bytes, sizeof(bytes),
				  (void *)(address + core_field_offset(cache->size))))
		return 0;
	for (way = 0; way < WAYS; way++) {
		slot = ((u32)(hash >> 32) + way) & (OBJECT_CACHES - 1);
		known = bpf_map_lookup_elem(&object_caches, &slot);
		if (!slot || !known)
			continue;
		if (same_cache(known, address, name_at, bytes))
			return slot;
		if (*(volatile u64 *)&known->address ||
		    __sync_val_compare_and_swap(&known->address, 0, address | OBJECT_WRITTEN))
			continue;
		known->name_at = name_at;
		known->bytes = bytes;
		if (!bpf_probe_read_kernel(&object_size, sizeof(object_size),
					   (void *)(address + core_field_offset(cache->object_size))))
			known->object_size = object_size;
		bpf_probe_read_kernel_str(known->name, CACHE_NAME, (void *)name_at);
		in_order();
		*(volatile u64 *)&known->address = address;
		return slot;
	}
	count(COUNT_OBJECT_CACHES_FULL, 1);
	return 0;
}

/* The address of the cache of an object in the direct map; 0 if it cannot be told. */
INLINE u64 cache_of(u64 address)
{
	u64 page, cache = 0;

	if (!direct_map || address < direct_map ||
	    !core_field_exists(((struct slab *)0)->slab_cache))
		return 0;
	page = head_of(vmemmap + ((address - direct_map) >> page_shift) *
					 core_type_size(struct page));
	bpf_probe_read_kernel(&cache, sizeof(cache), (void *)(page +
			      core_field_offset(((struct slab *)0)->slab_cache)));
	return cache;
}

/* ---- what an event does ---- */

/* The slot of an address, taken to be written: its own where a free was missed, else an empty one;
 * object_mask + 1: there is none. */
GLOBAL u32 take_object(u64 address, u64 hash)
{
	u32 way, slot, empty = object_mask + 1;
	struct object *object;
	u64 *word, held;

	for (way = 0; way < WAYS; way++) {
		slot = object_slot(hash, way);
		word = object_word(slot);
		if (!word)
			continue;
		held = *(volatile u64 *)word;
		if (!held && empty > object_mask)
			empty = slot;
		if (held != address ||
		    __sync_val_compare_and_swap(word, address, address | OBJECT_WRITTEN) != address)
			continue;
		object = object_at(slot);
		if (object)
			drop_task(object->task_id, 1);
		count(COUNT_OBJECTS_OVERWRITTEN, 1);
		return slot;
	}
	if (empty > object_mask)
		return empty;
	word = object_word(empty);
	if (word && !__sync_val_compare_and_swap(word, 0, address | OBJECT_WRITTEN))
		return empty;
	for (way = 0; way < WAYS; way++) { /* another was quicker: the next one */
		slot = object_slot(hash, way);
		word = object_word(slot);
		if (word && !*(volatile u64 *)word &&
		    !__sync_val_compare_and_swap(word, 0, address | OBJECT_WRITTEN))
			return slot;
	}
	return object_mask + 1;
}

/* The object at an address was allocated; its task's reference passes to it. */
GLOBAL int put_object(u64 address, u64 sizes, u32 gfp_mask, u64 cache, u64 stack_and_task)
{
	u32 slot = take_object(address, object_hash(address));
	struct object *object = object_at(slot);
	u64 *word = object_word(slot);
	u32 task = stack_and_task >> 32;
	struct object_cache *known;
	u32 of;

	if (slot > object_mask || !object || !word) {
		count(COUNT_OBJECTS_FULL, 1);
		drop_task(task, 1);
		return 0;
	}
	in_order();
	of = cache == OBJECT_PERCPU ? OBJECT_PERCPU : cache ? find_cache(cache) : 0;
	known = of && cache != OBJECT_PERCPU ? bpf_map_lookup_elem(&object_caches, &of) : NULL;
	object->ts = bpf_ktime_get_ns();
	object->stack_id = stack_and_task;
	object->task_id = task;
	object->cache = of;
	object->bytes = sizes >> 32;
	object->requested = sizes;
	if (!object->bytes && known) {
		object->bytes = known->bytes;
		object->requested = known->object_size;
	}
	object->gfp_mask = gfp_mask;
	in_order();
	*(volatile u64 *)word = address;
	return 0;
}

GLOBAL int object_freed(u64 address, u64 hash, u32 which)
{
	struct object *object;
	u32 way, slot, task;
	u64 *word;

	for (way = 0; way < WAYS; way++) {
		slot = object_slot(hash, way);
		word = object_word(slot);
		if (!word || *(volatile u64 *)word != address)
			continue;
		object = object_at(slot);
		task = object ? *(volatile u32 *)&object->task_id : 0;
		if (__sync_val_compare_and_swap(word, address, 0) != address)
			continue;
		if (which < COUNTERS)
			count(which, 1);
		drop_task(task, 1);
		break;
	}
	return 0;
}

INLINE void freed_at(u64 address, u32 which)
{
	u64 hash = object_hash(address);

	if (address && hash <= object_share)
		object_freed(address, hash, which);
}

/* An argument of a tracepoint that is known by its place; 0 if it is not there. */
INLINE u64 argument_at(u64 *context, u8 place)
{
	return place == NOT_THERE ? 0 : argument(context, place);
}

INLINE int object_passes(void)
{
	if (only_tgid && bpf_get_current_pid_tgid() >> 32 != only_tgid)
		return 0;
	return !only_cgroup || bpf_get_current_ancestor_cgroup_id(cgroup_level) == only_cgroup;
}

/* The hooks that call this are in the order of their counters. sizes: the bytes taken in the upper half, those asked for in the lower; 0: as the cache has it. */
INLINE void object_allocated(u64 *context, u64 address, u64 sizes, u64 cache, u64 salt, u32 hook)
{
	struct task_struct *current;
	struct cpu *cpu;
	u64 who;

	if (filters && !object_passes())
		return;
	keep_cpu();
	cpu = begin(hook);
	if (cpu) {
		current = bpf_get_current_task_btf();
		who = stack_id_of(context, cpu, current, hook, salt);
		who |= (u64)task_id_of(&cpu->hot[hook], current, hook) << 32;
		count(hook - HOOK_KMALLOC + COUNT_OBJECTS_KMALLOC, 1);
		put_object(address, sizes, argument_at(context, object_gfp), cache, who);
		end(cpu, hook, 0);
	}
	give_cpu();
}

/* ---- hooks ---- */

/* kmalloc(call_site, ptr, bytes_req, bytes_alloc, gfp_flags, node). What has pages of its own is
 * theirs. */
SEC("raw_tp/kmalloc")
int on_kmalloc(u64 *context)
{
	u64 address = context[1], bytes;

	if (object_hash(address) > object_share || address <= 16)
		return 0;
	bytes = argument_at(context, object_bytes);
	if (bytes <= kmalloc_max)
		object_allocated(context, address,
				 bytes << 32 | (u32)argument_at(context, object_requested),
				 cache_of(address), context[0] ^ bytes, HOOK_KMALLOC);
	return 0;
}

/* kmem_cache_alloc(call_site, ptr, s, gfp_flags, node) */
SEC("raw_tp/kmem_cache_alloc")
int on_cache_alloc(u64 *context)
{
	u64 address = context[1];

	if (object_hash(address) > object_share || !address)
		return 0;
	object_allocated(context, address, 0, argument_at(context, object_of_cache), context[0],
			 HOOK_CACHE_ALLOC);
	return 0;
}

/* kfree(call_site, ptr) */
SEC("raw_tp/kfree")
int on_kfree(u64 *context)
{
	freed_at(context[1], COUNT_OBJECTS_KFREE);
	return 0;
}

/* kmem_cache_free(call_site, ptr, s) */
SEC("raw_tp/kmem_cache_free")
int on_cache_free(u64 *context)
{
	freed_at(context[1], COUNT_OBJECTS_CACHE_FREE);
	return 0;
}

#define BULK_OBJECTS 512 /* more than fit into a page of pointers with its head */

GLOBAL int freed_from(u64 place, u32 which)
{
	u64 address = 0;

	if (!bpf_probe_read_kernel(&address, sizeof(address), (void *)place))
		freed_at(address, which);
	return 0;
}

INLINE void freed_in_bulk(u64 places, u64 n, u32 which)
{
	u32 i;

	for (i = 0; i < BULK_OBJECTS; i++) {
		if (i >= n)
			break;
		freed_from(places + i * sizeof(u64), which);
	}
}

/* rcu_invoke_kfree_bulk_callback(rcuname, nr_records, p), with CONFIG_RCU_TRACE: what kfree_rcu() frees
 * goes past kfree() */
SEC("raw_tp/rcu_invoke_kfree_bulk_callback")
int on_rcu_free(u64 *context)
{
	freed_in_bulk(context[2], context[1], COUNT_OBJECTS_RCU_FREE);
	return 0;
}

/* kmem_cache_free_bulk(s, size, p), through which kfree_rcu() and the network free */
SEC("fentry")
int on_free_bulk(u64 *context)
{
	freed_in_bulk(argument(context, 2), argument(context, 1), COUNT_OBJECTS_BULK_FREE);
	return 0;
}

/* __kfree_rcu_sheaf(s, obj): true if the object waits there to be free, which no tracepoint will tell
 * (6.18) */
SEC("fexit")
int on_rcu_sheaf(u64 *context)
{
	if ((u8)argument(context, 2))
		freed_at(argument(context, 1), COUNT_OBJECTS_SHEAF_FREE);
	return 0;
}

GLOBAL int put_one_more(u64 place, u32 gfp_mask, u64 cache, u64 stack_and_task)
{
	u64 address = 0;

	if (bpf_probe_read_kernel(&address, sizeof(address), (void *)place) || !address ||
	    object_hash(address) > object_share)
		return 0;
	hold_more(stack_and_task >> 32, 1);
	count(COUNT_OBJECTS_BULK, 1);
	return put_object(address, 0, gfp_mask, cache, stack_and_task);
}

/* kmem_cache_alloc_bulk(s, flags, size, p): how many it gave, all or none */
SEC("fexit")
int on_alloc_bulk(u64 *context)
{
	u64 cache = argument(context, 0), places = argument(context, 3);
	u32 gfp_mask = argument(context, 1), n = argument(context, 4), i;
	struct task_struct *current;
	struct cpu *cpu;
	u64 who;

	if (!n || (filters && !object_passes()))
		return 0;
	keep_cpu();
	cpu = begin(HOOK_OBJECTS_IN_BULK);
	if (cpu) {
		current = bpf_get_current_task_btf();
		who = stack_id_of(context, cpu, current, HOOK_OBJECTS_IN_BULK, cache);
		who |= (u64)task_id_of(&cpu->hot[HOOK_OBJECTS_IN_BULK], current,
				       HOOK_OBJECTS_IN_BULK) << 32;
		for (i = 0; i < BULK_OBJECTS; i++) {
			if (i >= n)
				break;
			put_one_more(places + i * sizeof(u64), gfp_mask, cache, who);
		}
		drop_task(who >> 32, 1);
		end(cpu, HOOK_OBJECTS_IN_BULK, 0);
	}
	give_cpu();
	return 0;
}

/* percpu_alloc_percpu(call_site, reserved, is_atomic, size, align, base_addr, off, ptr, bytes_alloc,
 * gfp_flags): of bytes_alloc, for all CPUs together (5.19; before, there is no tracepoint like it) */
SEC("raw_tp/percpu_alloc_percpu")
int on_percpu_alloc(u64 *context)
{
	u64 address = context[7];

	if (object_hash(address) > object_share || !address)
		return 0;
	object_allocated(context, address, context[8] << 32 | (u32)context[3],
			 OBJECT_PERCPU, context[0] ^ context[3], HOOK_PERCPU_ALLOC);
	return 0;
}

/* percpu_free_percpu(base_addr, off, ptr) */
SEC("raw_tp/percpu_free_percpu")
int on_percpu_free(u64 *context)
{
	freed_at(context[2], COUNT_OBJECTS_PERCPU_FREE);
	return 0;
}

#endif
