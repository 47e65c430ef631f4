/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * From where, as a number: the stack that the memo recognises, or that is unwound.
 */
#ifndef PAGEOWNER_STACKS_BPF_H
#define PAGEOWNER_STACKS_BPF_H

#include "memo.bpf.h"
#include "memo_learn.bpf.h"
#include "memo_state.bpf.h"
#include "shared.bpf.h"
#include "stack_table.bpf.h"

INLINE int is_iterator(u64 address)
{
	u32 i;

	for (i = 0; i < ITERATORS; i++)
		if (address > iterators[2 * i] && address <= iterators[2 * i + 1])
			return 1;
	return 0;
}

/* The frames of the stack from the n that were unwound; how many. Where a tracepoint has more than one
 * program, of ours or of other tracers, the first is that of what calls them. */
GLOBAL u32 take_frames(u32 hook, u32 n)
{
	struct scratch *scratch = scratch_of(hook);
	u32 i, first;

	if (!scratch)
		return 0;
	first = is_iterator(scratch->unwound[0]);
	for (i = 0; i < MAX_DEPTH && i < depth; i++)
		scratch->frames[i] = i + first < n ? scratch->unwound[i + (first & 1)] : 0;
	scratch->known = n - first < depth ? n - first : depth;
	scratch->n = scratch->known + first;
	return scratch->known;
}

/* The current stack's frames into scratch, those past the end 0; their number, 0 if there are
 * none. The size of the buffer is a constant of loading; skipped are the frames of the tracing
 * itself. */
INLINE u32 unwind(void *context, u32 hook, struct scratch *scratch)
{
	u64 began = begin_timing();
	long size = bpf_get_stack(context, scratch->unwound, (depth + 1) * sizeof(u64),
				  skip_frames[hook] & 0xff);

	end_timing(HOOKS + TIMING_UNWIND, began);
	if (size < (long)sizeof(u64)) {
		count(COUNT_STACKS_FAILED, 1);
		return 0;
	}
	return take_frames(hook, size / sizeof(u64));
}

/*
 * The id of the current stack: the only place that knows how stacks are found. What tells the
 * chains of this hook apart beforehand, if anything, is the salt.
 */
INLINE u32 stack_id_of(void *context, struct cpu *cpu, struct task_struct *current, u32 hook,
		       u64 salt)
{
	struct hot *hot = &cpu->hot[hook];
	struct memo_state *state = NULL;
	struct recent *recent = NULL;
	u32 n, i, id, why = MEMO_COUNTERS;
	struct scratch *scratch;
	u64 hash = 0, began;

	if (memo && !memo_off && hook < MEMO_HOOKS) {
		why = memo_look(hot, current, context);
		if (!why) {
			if (hook == HOOK_ALLOC)
				recent = &cpu->recent[(salt ^ salt >> 7) & (RECENT - 1)];
			id = memo_recall(hot, recent, hook, salt);
			if (id) {
				hot->hits++;
				if (!memo_due(hot))
					return id;
				scratch = scratch_of(hook);
				n = scratch ? unwind(context, hook, scratch) : 0;
				if (n && memo_compare(hot, hook, id, n))
					return id;
				why = MEMO_COUNTERS;
			}
		}
	}
	if (why < MEMO_COUNTERS) {
		state = memo_state_of(hook);
		if (state) {
			state->counters[MEMO_MISSES]++;
			if (why) {
				state->counters[why & (MEMO_SLOTS - 1)]++;
				state = NULL;
			}
		}
	}
	scratch = scratch_of(hook);
	n = scratch ? unwind(context, hook, scratch) : 0;
	if (!n)
		return 0;
	for (i = 0; i < MAX_DEPTH && i < depth; i++)
		hash = hash_step(hash, scratch->frames[i]);
	id = find_stack(hook, n, hash ? hash : 1);
	if (state) {
		began = begin_timing();
		memo_remember(hot, hook, id);
		end_timing(HOOKS + TIMING_LEARN, began);
	}
	return id;
}

INLINE u32 stack_id(void *context, u32 hook, u64 salt)
{
	struct cpu *cpu = this_cpu();

	return cpu ? stack_id_of(context, cpu, bpf_get_current_task_btf(), hook, salt) : 0;
}

#endif
