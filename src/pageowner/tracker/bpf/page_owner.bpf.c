// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The in-kernel half of the tracker: for every page frame, who allocated it.
 *
 * Here are the hooks that every kernel has, and what is part of the object: functions.bpf.h (hooks
 * that a kernel may lack), on_request.bpf.h (what userspace runs), events.bpf.h (what an event does); these
 * use shared.bpf.h (parameters, maps), store.bpf.h, tasks.bpf.h and stacks.bpf.h (with memo.bpf.h).
 * The rules are those of the kernel's own mm/page_owner.c; tests/spec/page_owner_spec.py says them
 * again in plain Python.
 *
 * A record stands at the first page of a block only. Splits that no hook sees are made good when
 * a part of the block is freed: what remains is divided as the buddy allocator would, so that the
 * pages owned are exact whichever hooks are there.
 */
#include "events.bpf.h"
#include "shared.bpf.h"
#include "store.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* ---- hooks that every kernel has ---- */

/*
 * An interrupt may allocate or free while a program of ours is at work for what it interrupted. The
 * kernel does not run a program inside itself (before 6.1 it does, and begin() sees to it). So each
 * of these two tracepoints has a second program, attached after the first, for the events that the
 * first one was too busy for. That an event was dealt with is read from the store as well: before
 * begin() and after end() the kernel still holds the first program to be running.
 */
/* Whether the first program has just dealt with this event, for the second one that follows it: the
 * short answer nearly always; where an interrupt came between the two, the store has the long one.
 * Once only: the next event of the same page is another. */
INLINE int was_seen(u32 hook, u64 page)
{
	struct cpu *cpu = this_cpu();

	if (!cpu || *(volatile u64 *)&cpu->hot[hook].seen != page)
		return 0;
	*(volatile u64 *)&cpu->hot[hook].seen = 0;
	return 1;
}

INLINE int is_busy(u32 hook)
{
	struct cpu *cpu = this_cpu();

	return cpu && *(volatile u32 *)&cpu->hot[hook].busy;
}

/* mm_page_alloc(page, order, gfp_flags, migratetype); page is NULL when nothing was found */
SEC("raw_tp/mm_page_alloc")
int on_alloc(u64 *context)
{
	struct cpu *cpu;
	u64 began;

	if (!context[0])
		return 0;
	keep_cpu();
	began = begin_timing();
	cpu = begin(HOOK_ALLOC);
	if (cpu) {
		count_alone(cpu, COUNT_ALLOCS);
		allocated(context, cpu, page_to_pfn(context[0]), context[1], context[2],
			  HOOK_ALLOC);
		end(cpu, HOOK_ALLOC, context[0]);
		end_timing(HOOK_ALLOC, began);
	}
	give_cpu();
	return 0;
}

/* Whether the store says that the first program has dealt with this allocation: the block is there, and
 * this task's. (A record that an unseen free has left over may look so too, but not be another's.) */
INLINE int is_in_store(u64 pfn, u64 *context)
{
	struct record *record = record_at(pfn);
	u32 word = record ? RECORD_WORD(record) : 0;

	return is_block(word) && order_in(word) == context[1] &&
	       record->gfp_mask == (u32)context[2] &&
	       (state_in(word) == STATE_FILTERED || is_mine(record));
}

SEC("raw_tp/mm_page_alloc")
int on_nested_alloc(u64 *context)
{
	struct cpu *cpu;
	u64 began, pfn;

	if (!context[0] || was_seen(HOOK_ALLOC, context[0]))
		return 0;
	keep_cpu();
	began = begin_timing();
	pfn = page_to_pfn(context[0]);
	cpu = record_at(pfn) && (is_busy(HOOK_ALLOC) || !is_in_store(pfn, context))
		  ? begin(HOOK_NESTED_ALLOC) : NULL;
	if (cpu) {
		count_alone(cpu, COUNT_NESTED_ALLOCS);
		allocated(context, cpu, pfn, context[1], context[2], HOOK_NESTED_ALLOC);
		end(cpu, HOOK_NESTED_ALLOC, 0);
		end_timing(HOOK_NESTED_ALLOC, began);
	}
	give_cpu();
	return 0;
}

/* The pages are counted to be held against the kernel's own count of them (kernel/vmstat.py): those
 * beyond the first of a block here, where the two programs may come in each other's way. */
INLINE void count_free(struct cpu *cpu, enum counter which, u32 order)
{
	count_alone(cpu, which);
	if (order)
		count(COUNT_FREED_PAGES, (1ULL << (order & 31)) - 1);
}

INLINE void freed(u64 *context, struct cpu *cpu, u64 pfn, u32 hook)
{
	was_freed(&cpu->hot[hook], pfn, context[1]);
	if (free_side)
		keep_free_side(context, pfn, hook);
	end(cpu, hook, hook == HOOK_FREE ? context[0] : 0);
}

/* mm_page_free(page, order) */
SEC("raw_tp/mm_page_free")
int on_free(u64 *context)
{
	struct cpu *cpu;
	u64 began;

	keep_cpu();
	began = begin_timing();
	cpu = begin(HOOK_FREE);
	if (cpu) {
		count_free(cpu, COUNT_FREES, context[1]);
		freed(context, cpu, page_to_pfn(context[0]), HOOK_FREE);
		end_timing(HOOK_FREE, began);
	}
	give_cpu();
	return 0;
}

SEC("raw_tp/mm_page_free")
int on_nested_free(u64 *context)
{
	u64 pfn = page_to_pfn(context[0]);
	struct cpu *cpu;
	struct record *record;
	u64 began;

	if (was_seen(HOOK_FREE, context[0]))
		return 0;
	keep_cpu();
	began = begin_timing();
	record = record_at(pfn);
	cpu = record && (state_in(RECORD_WORD(record)) != STATE_NONE || is_busy(HOOK_FREE))
		  ? begin(HOOK_NESTED_FREE) : NULL;
	if (cpu) {
		count_free(cpu, COUNT_NESTED_FREES, context[1]);
		freed(context, cpu, pfn, HOOK_NESTED_FREE);
		end_timing(HOOK_NESTED_FREE, began);
	}
	give_cpu();
	return 0;
}

/* mm_page_alloc_extfrag(page, alloc_order, fallback_order, alloc_migratetype,
 * fallback_migratetype) */
HELD("raw_tp/mm_page_alloc_extfrag", on_extfrag, HOOK_EXTFRAG)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct extfrag_key key = {
		.stack_id = stack_id(context, HOOK_EXTFRAG, 0),
		.tgid = pid_tgid >> 32,
		.pid = pid_tgid,
		.alloc_order = context[1],
		.fallback_order = context[2],
		.alloc_migratetype = context[3],
		.fallback_migratetype = context[4],
	};
	struct extfrag first = {.count = 1, .last_ts = bpf_ktime_get_ns()}, *known;

	bpf_get_current_comm(key.comm, COMM_LEN);
	count(COUNT_EXTFRAG, 1);
	known = bpf_map_lookup_elem(&extfrag, &key);
	if (known) {
		__sync_fetch_and_add(&known->count, 1);
		known->last_ts = first.last_ts;
	} else if (bpf_map_update_elem(&extfrag, &key, &first, BPF_NOEXIST)) {
		count(COUNT_EXTFRAG_FULL, 1);
	}
}

#include "functions.bpf.h"
#include "objects.bpf.h"
#include "on_request.bpf.h"
