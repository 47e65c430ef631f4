/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The table of stacks: each has a number. Entries stay; stacks are compared whole, so that none is
 * taken for another of the same hash.
 */
#ifndef PAGEOWNER_STACK_TABLE_BPF_H
#define PAGEOWNER_STACK_TABLE_BPF_H

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

#endif
