/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Down to the object: the hooks on what lies in slabs, and on percpu memory, where that was asked for.
 *
 * Which objects are followed depends on their address alone, so that each one's allocation and free
 * agree about it. Each program is loaded and attached for itself (object_hooks.py); which argument of
 * a tracepoint is which is a parameter, since that has changed between kernels
 * (include/trace/events/kmem.h).
 */
#ifndef PAGEOWNER_OBJECTS_BPF_H
#define PAGEOWNER_OBJECTS_BPF_H

#include "functions.bpf.h"
#include "object_table.bpf.h"
#include "shared.bpf.h"
#include "stacks.bpf.h"
#include "tasks.bpf.h"

/* Which argument of the tracepoint is what; NOT_THERE if it has none such. */
const volatile u8 object_gfp = NOT_THERE;
const volatile u8 object_requested = NOT_THERE;
const volatile u8 object_bytes = NOT_THERE;
const volatile u8 object_of_cache = NOT_THERE;
const volatile u8 object_result_bytes = 4; /* of what kmem_cache_alloc_bulk() returns */

/*
 * Each program may be there twice: what interrupts allocate and free while it is at work for what they
 * interrupted, the kernel does not run it for, and its second copy takes, loaded with `second` and run
 * after it. The first says when it is at work, and what it has dealt with. Where neither tells of an
 * event, since an interrupt came between the two copies, or just before and behind the first, when the
 * kernel holds it to be running as well, the table of objects tells: an object is freed once more, which
 * does no harm, or seen to be there.
 */
const volatile u8 second;
const volatile u8 twice; /* there are two copies of each */

#define KIND(counter) ((counter) - COUNT_OBJECTS_KMALLOC)

/* What the second copy is to do with an event. */
enum turn {
	TURN_MINE,   /* of the first copy; or the second's, which the first was too busy for */
	TURN_UNSURE, /* the table tells */
	TURN_DONE,   /* the first has dealt with it */
};

INLINE int objects_begun(void)
{
	return (skip_frames[HOOK_KMALLOC] & 0xff) != NOT_BEGUN;
}

INLINE void count_second(u32 counter)
{
	count(KIND(counter) + COUNT_OBJECTS_NESTED_KMALLOC, 1);
}

/* An event of an address begins. */
INLINE enum turn begin_event(u32 counter, u64 address)
{
	struct cpu *cpu = twice ? this_cpu() : NULL;
	struct events *events = cpu ? &cpu->events[KIND(counter)] : NULL;

	if (!events)
		return TURN_MINE;
	if (!second) {
		*(volatile u64 *)&events->at_work = 1;
		barrier();
		return TURN_MINE;
	}
	if (*(volatile u64 *)&events->at_work) {
		if (objects_begun())
			count_second(counter);
		return TURN_MINE;
	}
	if (*(volatile u64 *)&events->done != (address | EVENT_DONE))
		return TURN_UNSURE;
	*(volatile u64 *)&events->done = 0; /* the next event of the same address is another */
	return TURN_DONE;
}

/* (A program stays on its CPU, also where it is put aside in between.) */
INLINE void end_event(u32 counter, u64 address)
{
	struct cpu *cpu = twice && !second ? this_cpu() : NULL;
	struct events *events = cpu ? &cpu->events[KIND(counter)] : NULL;

	if (!events)
		return;
	barrier();
	*(volatile u64 *)&events->done = address | EVENT_DONE;
	*(volatile u64 *)&events->at_work = 0;
}

INLINE void freed_at(u64 address, u32 which)
{
	enum turn turn = begin_event(which, address);
	u64 hash = object_hash(address);

	if (turn != TURN_DONE && address && hash <= object_share && objects_begun()) {
		keep_cpu();
		if (object_freed(address, hash, which) && turn == TURN_UNSURE)
			count_second(which);
		give_cpu();
	}
	end_event(which, address);
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

/* The hook whose scratch memory this copy has. */
INLINE u32 hook_of(u32 hook)
{
	return second ? hook - HOOK_KMALLOC + HOOK_NESTED_KMALLOC : hook;
}

INLINE u64 who_allocates(u64 *context, struct cpu *cpu, u32 hook, u64 salt)
{
	struct task_struct *current = bpf_get_current_task_btf();
	u64 who = stack_id_of(context, cpu, current, hook, salt);

	return who | (u64)task_id_of(&cpu->hot[hook], current, hook) << 32;
}

/* Whether an object that was allocated is to be put into the table. */
INLINE int is_to_be_put(u64 address, u32 gfp_mask, enum turn turn)
{
	if (turn == TURN_UNSURE && is_put(address, gfp_mask))
		return 0;
	if (!filters || object_passes())
		return 1;
	/* what was there before is gone all the same */
	object_freed(address, object_hash(address), COUNT_OBJECTS_OVERWRITTEN);
	return 0;
}

/* hook: of the first copy; these are in the order of their counters. sizes: the bytes taken in the upper
 * half, those asked for in the lower; 0: as the cache has it. */
INLINE void object_allocated(u64 *context, u64 address, u64 sizes, u64 cache, u64 salt, u32 hook,
			     enum turn turn)
{
	u32 counter = hook - HOOK_KMALLOC + COUNT_OBJECTS_KMALLOC, own = hook_of(hook);
	u32 gfp_mask = argument_at(context, object_gfp);
	struct cpu *cpu;
	u64 who;

	keep_cpu();
	if (is_to_be_put(address, gfp_mask, turn)) {
		cpu = begin(own);
		if (cpu) {
			who = who_allocates(context, cpu, own, salt);
			count(counter, 1);
			if (turn == TURN_UNSURE)
				count_second(counter);
			put_object(address, sizes, gfp_mask, cache, who);
			end(cpu, own, 0);
		} else {
			count(COUNT_OBJECTS_BUSY, 1);
		}
	}
	give_cpu();
}

/* ---- hooks ---- */

#define ZERO_SIZE 16 /* kmalloc(0) gives this (include/linux/slab.h, ZERO_SIZE_PTR) */

/* kmalloc(call_site, ptr, bytes_req, bytes_alloc, gfp_flags, node). What has pages of its own is
 * theirs. */
SEC("raw_tp/kmalloc")
int on_kmalloc(u64 *context)
{
	u64 address = context[1], bytes;
	enum turn turn = begin_event(COUNT_OBJECTS_KMALLOC, address);

	if (turn != TURN_DONE && object_hash(address) <= object_share && address > ZERO_SIZE &&
	    objects_begun()) {
		bytes = argument_at(context, object_bytes);
		if (bytes <= kmalloc_max)
			object_allocated(context, address,
					 bytes << 32 | (u32)argument_at(context, object_requested),
					 cache_of(address), context[0] ^ bytes, HOOK_KMALLOC, turn);
	}
	end_event(COUNT_OBJECTS_KMALLOC, address);
	return 0;
}

/* kmem_cache_alloc(call_site, ptr, s, gfp_flags, node) */
SEC("raw_tp/kmem_cache_alloc")
int on_cache_alloc(u64 *context)
{
	u64 address = context[1];
	enum turn turn = begin_event(COUNT_OBJECTS_CACHE, address);

	if (turn != TURN_DONE && object_hash(address) <= object_share && address && objects_begun())
		object_allocated(context, address, 0, argument_at(context, object_of_cache),
				 context[0], HOOK_CACHE_ALLOC, turn);
	end_event(COUNT_OBJECTS_CACHE, address);
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

/* Of one bulk no more: a page of pointers (kfree_rcu()) has 511, of 16 KiB 2,047, of 64 KiB 8,191. */
#define BULK_AT_ONCE 512
#define BULKS 16

INLINE void count_beyond(u64 n)
{
	if (n > BULK_AT_ONCE * BULKS)
		count(COUNT_OBJECTS_BULK_MISSED, n - BULK_AT_ONCE * BULKS);
}

GLOBAL int freed_from(u64 place, u32 which)
{
	u64 address = 0, hash;

	if (bpf_probe_read_kernel(&address, sizeof(address), (void *)place) || !address)
		return 0;
	hash = object_hash(address);
	if (hash > object_share)
		return 0;
	keep_cpu();
	object_freed(address, hash, which);
	give_cpu();
	return 0;
}

/* (What loops many times calls functions that the verifier checks once.) */
GLOBAL int free_some(u64 places, u64 n, u32 which)
{
	u32 i;

	for (i = 0; i < BULK_AT_ONCE; i++) {
		if (i >= n)
			break;
		freed_from(places + i * sizeof(u64), which);
	}
	return 0;
}

INLINE void freed_in_bulk(u64 places, u64 n, u32 which)
{
	u64 done = 0;
	u32 i;

	for (i = 0; i < BULKS; i++) {
		if (done >= n)
			break;
		free_some(places + done * sizeof(u64), n - done, which);
		done += BULK_AT_ONCE;
	}
	count_beyond(n);
}

INLINE void bulk_freed(u64 places, u64 n, u32 which)
{
	if (begin_event(which, places) != TURN_DONE && objects_begun())
		freed_in_bulk(places, n, which);
	end_event(which, places);
}

/* rcu_invoke_kfree_bulk_callback(rcuname, nr_records, p), with CONFIG_RCU_TRACE: what kfree_rcu() frees
 * goes past kfree() */
SEC("raw_tp/rcu_invoke_kfree_bulk_callback")
int on_rcu_free(u64 *context)
{
	bulk_freed(context[2], context[1], COUNT_OBJECTS_RCU_FREE);
	return 0;
}

/* kmem_cache_free_bulk(s, size, p), through which kfree_rcu() and the network free */
SEC("fentry")
int on_free_bulk(u64 *context)
{
	bulk_freed(argument(context, 2), argument(context, 1), COUNT_OBJECTS_BULK_FREE);
	return 0;
}

/* __kfree_rcu_sheaf(s, obj), from kfree_rcu(): the object waits there to be free, which no tracepoint
 * will tell (6.18), or is freed later in another way. Seen at the beginning: at the end it may be
 * allocated again already. */
SEC("fentry")
int on_rcu_sheaf(u64 *context)
{
	freed_at(argument(context, 1), COUNT_OBJECTS_SHEAF_FREE);
	return 0;
}

/* In the upper half of a gfp mask: the first copy may have put them. */
#define PERHAPS_PUT (1ULL << 32)

GLOBAL int put_one_more(u64 place, u64 gfp_mask, u64 cache, u64 stack_and_task)
{
	u64 address = 0;

	if (bpf_probe_read_kernel(&address, sizeof(address), (void *)place) || !address ||
	    object_hash(address) > object_share ||
	    (gfp_mask & PERHAPS_PUT && is_put(address, gfp_mask)))
		return 0;
	hold_more(stack_and_task >> 32, 1);
	count(COUNT_OBJECTS_BULK, 1);
	return put_object(address, 0, gfp_mask, cache, stack_and_task);
}

GLOBAL int put_some(u64 places, u64 n, u64 gfp_mask, u64 cache, u64 stack_and_task)
{
	u32 i;

	for (i = 0; i < BULK_AT_ONCE; i++) {
		if (i >= n)
			break;
		put_one_more(places + i * sizeof(u64), gfp_mask, cache, stack_and_task);
	}
	return 0;
}

INLINE void allocated_in_bulk(u64 *context, u64 cache, u64 gfp_mask, u64 places, u64 n,
			      enum turn turn)
{
	u32 own = hook_of(HOOK_OBJECTS_IN_BULK), i;
	u64 done = 0, who, first = 0;
	struct cpu *cpu;

	if (turn == TURN_UNSURE) {
		if (bpf_probe_read_kernel(&first, sizeof(first), (void *)places) ||
		    is_put(first, gfp_mask))
			return;
		if (object_hash(first) <= object_share)
			count_second(COUNT_OBJECTS_BULK);
		gfp_mask |= PERHAPS_PUT;
	}
	if (filters && !object_passes()) {
		freed_in_bulk(places, n, COUNT_OBJECTS_OVERWRITTEN);
		return;
	}
	keep_cpu();
	cpu = begin(own);
	if (cpu) {
		who = who_allocates(context, cpu, own, cache);
		for (i = 0; i < BULKS; i++) {
			if (done >= n)
				break;
			put_some(places + done * sizeof(u64), n - done, gfp_mask, cache, who);
			done += BULK_AT_ONCE;
		}
		count_beyond(n);
		drop_task(who >> 32, 1);
		end(cpu, own, 0);
	} else {
		count(COUNT_OBJECTS_BUSY, 1);
	}
	give_cpu();
}

/* kmem_cache_alloc_bulk(s, flags, size, p): gives all or none, and says which by their number, or by
 * true or false (7.x) */
SEC("fexit")
int on_alloc_bulk(u64 *context)
{
	u64 places = argument(context, 3), gave = argument(context, 4);
	enum turn turn = begin_event(COUNT_OBJECTS_BULK, places);

	if (turn != TURN_DONE && (object_result_bytes == 1 ? (u8)gave : (u32)gave) && objects_begun())
		allocated_in_bulk(context, argument(context, 0), (u32)argument(context, 1), places,
				  argument(context, 2), turn);
	end_event(COUNT_OBJECTS_BULK, places);
	return 0;
}

/* percpu_alloc_percpu(call_site, reserved, is_atomic, size, align, base_addr, off, ptr, bytes_alloc,
 * gfp_flags): of bytes_alloc, for all CPUs together (5.19; before, there is no tracepoint like it) */
SEC("raw_tp/percpu_alloc_percpu")
int on_percpu_alloc(u64 *context)
{
	u64 address = context[7];
	enum turn turn = begin_event(COUNT_OBJECTS_PERCPU, address);

	if (turn != TURN_DONE && object_hash(address) <= object_share && address && objects_begun())
		object_allocated(context, address, context[8] << 32 | (u32)context[3],
				 OBJECT_PERCPU, context[0] ^ context[3], HOOK_PERCPU_ALLOC, turn);
	end_event(COUNT_OBJECTS_PERCPU, address);
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
