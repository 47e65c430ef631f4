/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What an allocation and a free do, whichever hook has seen them.
 */
#ifndef PAGEOWNER_EVENTS_BPF_H
#define PAGEOWNER_EVENTS_BPF_H

#include "shared.bpf.h"
#include "stacks.bpf.h"
#include "store.bpf.h"
#include "splitting.bpf.h"
#include "tasks.bpf.h"

/* Whether a record is the current task's. */
INLINE int is_mine(struct record *record)
{
	return is_current(record->task_id);
}

INLINE int passes(u64 pfn, u32 order, u32 gfp_mask)
{
	if (user_gfp && (gfp_mask & user_gfp) == user_gfp)
		return 0;
	if (order < min_order)
		return 0;
	if (only_tgid && bpf_get_current_pid_tgid() >> 32 != only_tgid)
		return 0;
	if (only_cgroup && bpf_get_current_ancestor_cgroup_id(cgroup_level) != only_cgroup)
		return 0;
	if (sample > 1 && (hash_step(1, pfn) >> 33) % sample)
		return 0;
	return 1;
}

INLINE void allocated(void *context, struct cpu *cpu, u64 pfn, u32 order, u32 gfp_mask,
		      u32 hook)
{
	struct task_struct *current;
	struct record *record;
	u32 stack, task;
	u64 ts;

	if (filters && !passes(pfn, order, gfp_mask)) {
		own_filtered(pfn, order, gfp_mask);
		return;
	}
	/* The record is in no cache, as a rule: asked for now it is there when it is needed. Before
	 * that the clock, which waits until all that was asked for is there (lfence, on x86). */
	ts = bpf_ktime_get_ns();
	record = order ? NULL : record_at(pfn);
	if (record)
		(void)RECORD_WORD(record);
	current = bpf_get_current_task_btf();
	stack = stack_id_of(context, cpu, current, hook, (u64)order << 32 | gfp_mask);
	task = task_id_of(&cpu->hot[hook], current, hook);
	if (!record || !own_page(record, gfp_mask, stack, task, ts))
		own(pfn, order, gfp_mask, stack, task);
}

INLINE void keep_free_side(void *context, u64 pfn, u32 hook)
{
	u64 span = pfn >> span_shift;
	u32 key = span, slot = pfn & ((1U << span_shift) - 1);
	struct freed *freed;
	void *inner;
	u32 task, stack;
	u64 was;

	if (span >= span_count)
		return;
	inner = bpf_map_lookup_elem(&freed_spans, &key);
	if (!inner) {
		key = spare_of(span);
		if (!key)
			return;
		inner = bpf_map_lookup_elem(&freed_spans, &key);
		if (!inner)
			return;
	}
	freed = bpf_map_lookup_elem(inner, &slot);
	if (!freed)
		return;
	task = task_id(hook);
	stack = stack_id(context, hook, 0);
	was = *(volatile u64 *)&freed->ts;
	if (was != FREED_WRITTEN &&
	    __sync_val_compare_and_swap(&freed->ts, was, FREED_WRITTEN) == was) {
		in_order();
		freed->stack_id = stack;
		freed->task_id = task;
		in_order();
		*(volatile u64 *)&freed->ts = bpf_ktime_get_ns();
	} else {
		count(COUNT_CONTENDED, 1);
	}
	drop_task(task, 1);
}

INLINE void was_freed(struct hot *hot, u64 pfn, u32 order)
{
	struct record *record = record_for(pfn);
	u32 word, task;

	if (!record) {
		count(COUNT_OUT_OF_RANGE, 1);
		return;
	}
	word = RECORD_WORD(record);
	task = *(volatile u32 *)&record->task_id;
	if (is_block(word) && order_in(word) == order &&
	    replace_word(record, word, next_word(word, record_word(0, STATE_NONE, 0)))) {
		if (state_in(word) == STATE_OWNED)
			leave_task(hot, task);
		return;
	}
	free_part(pfn, order);
}

#endif
