/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The objects of slabs that are followed, by their address: which they are, their caches, and the table
 * of them (records.h has its protocol). Who is not followed leaves no trace in it.
 */
#ifndef PAGEOWNER_OBJECT_TABLE_BPF_H
#define PAGEOWNER_OBJECT_TABLE_BPF_H

#include "functions.bpf.h"
#include "shared.bpf.h"
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

/* The slot that holds an address; object_mask + 1: none does. */
GLOBAL u32 find_object(u64 address, u64 hash)
{
	u32 way, slot;
	u64 *word;

	for (way = 0; way < WAYS; way++) {
		slot = object_slot(hash, way);
		word = object_word(slot);
		if (word && *(volatile u64 *)word == address)
			return slot;
	}
	return object_mask + 1;
}

/* Whether an object of this task, or of a task that found no place, is at the address, with this gfp
 * mask. */
GLOBAL int is_put(u64 address, u32 gfp_mask)
{
	u32 slot = find_object(address, object_hash(address));
	struct object *object = object_at(slot);

	return slot <= object_mask && object && object->gfp_mask == gfp_mask &&
	       (!object->task_id || is_current(object->task_id));
}

/* The object at an address is gone; whether there was one. */
GLOBAL int object_freed(u64 address, u64 hash, u32 which)
{
	u32 slot = find_object(address, hash), task;
	struct object *object = object_at(slot);
	u64 *word = object_word(slot);

	if (slot > object_mask || !object || !word)
		return 0;
	task = *(volatile u32 *)&object->task_id;
	if (__sync_val_compare_and_swap(word, address, 0) != address)
		return 0;
	if (which < COUNTERS)
		count(which, 1);
	drop_task(task, 1);
	return 1;
}

#endif
