/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The stack depot: from where, as a number. Entries stay; stacks are compared whole, so that none
 * is taken for another of the same hash.
 */
#ifndef PAGEOWNER_STACKS_BPF_H
#define PAGEOWNER_STACKS_BPF_H

#include "shared.bpf.h"

INLINE struct stack *stack_at(u32 slot)
{
	return bpf_map_lookup_elem(&stacks, &slot);
}

/* Whether a slot holds the frames in scratch, of which those past the end are 0. */
GLOBAL int same_stack(u32 slot, u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct stack *stack = stack_at(slot);
	u64 differ = 0;
	u32 i;

	if (!scratch || !stack)
		return 0;
	for (i = 0; i < MAX_DEPTH && i < depth; i++)
		differ |= stack->frames[i] ^ scratch->frames[i];
	return differ == 0;
}

GLOBAL int write_stack(u32 slot, u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct stack *stack = stack_at(slot);
	u32 i;

	if (!scratch || !stack)
		return 0;
	for (i = 0; i < MAX_DEPTH && i < depth; i++)
		stack->frames[i] = scratch->frames[i];
	return 0;
}

/* The slot of a stack of n frames in scratch, found or made; 0: no room. */
GLOBAL u32 find_stack(u32 hook, u32 n, u64 hash)
{
	struct stack *stack;
	u32 way, slot, bucket = hash >> 32;
	u64 held;

	for (way = 0; way < WAYS; way++) {
		slot = (bucket + way) & stack_mask;
		stack = stack_at(slot);
		if (!slot || !stack)
			continue;
		held = *(volatile u64 *)&stack->hash;
		if (!held)
			held = __sync_val_compare_and_swap(&stack->hash, 0, hash);
		if (!held) {
			write_stack(slot, hook);
			in_order();
			*(volatile u32 *)&stack->n = n;
			return slot;
		}
		/* While another CPU writes it, nothing proves that it is ours: take a slot of
		 * our own; readers compare stacks by their frames. */
		if (held != hash || *(volatile u32 *)&stack->n != n)
			continue;
		in_order();
		if (same_stack(slot, hook))
			return slot;
		count(COUNT_STACK_COLLISIONS, 1);
	}
	count(COUNT_STACKS_FULL, 1);
	return 0;
}

#include "memo.bpf.h"
#include "memo_learn.bpf.h"

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
