/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * How the memo learns: from a stack that was unwound, the words of the window that it hangs on.
 */
#ifndef PAGEOWNER_MEMO_LEARN_BPF_H
#define PAGEOWNER_MEMO_LEARN_BPF_H

#include "memo.bpf.h"
#include "memo_search.bpf.h"
#include "memo_state.bpf.h"
#include "shared.bpf.h"

INLINE void memo_mark(u32 *marks, u32 at, u32 mark)
{
	asm volatile("" : "+r"(at));
	if (at < WINDOW_WORDS + TOP_WORDS)
		marks[at] = mark;
}

/* A check that is not of the common kind; 0 if there is no room. */
INLINE int memo_special(struct memo_walk *walk, struct memo_chain *chain, u32 kind, u32 place,
			u32 value)
{
	u32 at = walk->special;
	struct memo_check *check;

	asm volatile("" : "+r"(at));
	if (at >= SPECIAL_CHECKS)
		return 0;
	check = &chain->specials[at];
	check->kind = kind;
	check->place = place * 8;
	check->value = value;
	walk->special = at + 1;
	return 1;
}

/* One more place of a return address: the first goes to the checks of frame i. */
GLOBAL int memo_also(u32 hook, u32 set, u32 way, u32 i, u32 at)
{
	struct memo_state *state = memo_state_of(hook);
	struct memo_chain *chain = memo_chain_at(set, way);
	u64 word;

	if (!state || !chain || i > MAX_DEPTH || i > depth)
		return 0;
	word = memo_word(state, at);
	memo_mark(state->placed, at, state->stamp);
	memo_mark(state->starts, at, state->walk.base);
	if (state->walk.near == i + 1)
		return memo_special(&state->walk, chain, FROM_BOTTOM, at, word);
	chain->checks[i].kind = FROM_BOTTOM;
	chain->checks[i].place = at * 8;
	chain->checks[i].value = word;
	state->walk.near = i + 1;
	return 1;
}

/* Where it is not known which of several places is frame i's, all of them are checked, and so it
 * goes on to the end of the chain; the stack must then be exactly as deep. */
GLOBAL s32 memo_step_all(u32 hook, u32 set, u32 way, u32 i, u64 address)
{
	struct memo_state *state = memo_state_of(hook);
	u32 k;

	if (!state)
		return -MEMO_LOST;
	if (state->top > WINDOW_WORDS)
		return -MEMO_DEEP;
	if (state->walk.registers || state->walk.from_top)
		return -MEMO_AMBIGUOUS;
	state->walk.by_pointer = 0;
	if (!memo_search(hook, address))
		return -MEMO_TRACED;
	if (!state->walk.times)
		return -MEMO_LOST;
	if (state->walk.times > CANDIDATES)
		return -MEMO_AMBIGUOUS;
	for (k = 0; k < CANDIDATES; k++) {
		if (k >= state->walk.times)
			break;
		if (!memo_also(hook, set, way, i, state->walk.found[k]))
			return -MEMO_POINTERS;
	}
	state->walk.base = state->walk.found[0] + 1;
	state->walk.all = 1;
	state->walk.registers = memo_is_entry(address);
	return 0;
}

/* Write the check of frame i, where the walk up to it has come to; 0, or minus the counter of
 * why not. */
GLOBAL s32 memo_step(u32 hook, u32 set, u32 way, u32 i)
{
	struct memo_state *state = memo_state_of(hook);
	struct scratch *scratch = scratch_of(hook);
	struct memo_chain *chain = memo_chain_at(set, way);
	struct memo_walk *walk;
	u64 address, pointer;
	u32 base;
	s32 at;

	if (!state || !scratch || !chain || i > MAX_DEPTH || i > depth)
		return -MEMO_LOST;
	walk = &state->walk;
	if (walk->looked > most_looked)
		return -MEMO_LONG;
	address = scratch->unwound[i];
	if (address >> 32 != 0xffffffff)
		return -MEMO_LOST;
	if (walk->all)
		return memo_step_all(hook, set, way, i, address);
	base = walk->base;
	at = memo_next(hook, address);
	if (at == -MEMO_AMBIGUOUS || at == -MEMO_VARIES) {
		walk->base = base;
		return memo_step_all(hook, set, way, i, address);
	}
	if (at < 0)
		return at;
	if (memo_is_anchor(walk->key))
		walk->from_top = 1;
	if (walk->from_top) {
		if (!memo_special(walk, chain, FROM_TOP, state->top - at, address))
			return -MEMO_LOST;
	} else {
		chain->checks[i].kind = FROM_BOTTOM;
		chain->checks[i].place = at * 8;
		chain->checks[i].value = address;
		walk->near = i + 1;
		memo_mark(state->placed, at, state->stamp);
		memo_mark(state->starts, at, base);
	}
	walk->key = address;
	walk->base = at + 1;
	if (walk->registers) {
		/* struct pt_regs: ip, cs, flags, sp. After the interrupted function's return the
		 * stack is counted from there. */
		pointer = memo_word(state, at + 3) - state->bottom;
		if (pointer & 7 || pointer > WINDOW_WORDS * 8 || pointer / 8 <= (u32)at ||
		    walk->from_top ||
		    !memo_special(walk, chain, ON_STACK, at + 3, pointer))
			return -MEMO_LOST;
		walk->base = pointer / 8;
		walk->key ^= INTERRUPTED;
	}
	walk->registers = memo_is_entry(address);
	return 0;
}

/* Where in the window this word of it points to; WINDOW_WORDS if it does not. */
INLINE u32 memo_points_to(struct memo_state *state, u32 at)
{
	u64 pointer = memo_word(state, at) - state->bottom;

	return pointer < WINDOW_WORDS * 8 && !(pointer & 7) ? pointer / 8 : WINDOW_WORDS;
}

/* Some words of memo_pointers. */
GLOBAL int memo_point_some(u32 hook, u32 from)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i, to;

	if (!state)
		return 0;
	for (i = 0; i < AT_ONCE; i++) {
		if (from + i >= *(volatile u32 *)&state->top)
			break; /* what is behind it is of other stacks */
		to = memo_points_to(state, from + i);
		if (to < WINDOW_WORDS)
			memo_mark(state->pointed, to, state->stamp);
	}
	return 0;
}

/* If this word of the window may be the pointer of a frame of the chain, write a check. A frame
 * pointer may be saved in any frame below, an argument pointer is in the frame itself. */
GLOBAL int memo_check_pointer(u32 hook, u32 set, u32 way, u32 at)
{
	struct memo_state *state = memo_state_of(hook);
	struct memo_chain *chain = memo_chain_at(set, way);
	u32 to, above, below;

	if (!state || !chain)
		return 0;
	to = memo_points_to(state, at);
	if (to == WINDOW_WORDS)
		return 1;
	above = to + 1;
	below = to - 1;
	asm volatile("" : "+r"(below), "+r"(above));
	if ((above < WINDOW_WORDS && state->placed[above] == state->stamp) ||
	    (below < WINDOW_WORDS && state->placed[below] == state->stamp &&
	     at >= state->starts[below]))
		return memo_special(&state->walk, chain, ON_STACK, at, to * 8);
	return 1;
}

/* Some words of memo_check_pointers: 0 if there are too many such. */
GLOBAL int memo_check_some(u32 hook, u32 set, u32 way, u32 from)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i;

	if (!state)
		return 0;
	for (i = 0; i < AT_ONCE; i++) {
		if (from + i >= *(volatile u32 *)&state->top)
			break;
		if (memo_points_to(state, from + i) < WINDOW_WORDS &&
		    !memo_check_pointer(hook, set, way, from + i))
			return 0;
	}
	return 1;
}

/* Mark where the window points into itself. */
GLOBAL int memo_pointers(u32 hook)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i;

	if (!state)
		return 0;
	for (i = 0; i < WINDOW_WORDS; i += AT_ONCE) {
		if (i >= *(volatile u32 *)&state->top)
			break;
		memo_point_some(hook, i);
	}
	return 0;
}

/* Write a check for every word of the window that may be the pointer of a frame of the chain. */
GLOBAL int memo_check_pointers(u32 hook, u32 set, u32 way)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i;

	if (!state)
		return -MEMO_LOST;
	for (i = 0; i < WINDOW_WORDS; i += AT_ONCE) {
		if (i >= *(volatile u32 *)&state->top)
			break;
		if (!memo_check_some(hook, set, way, i))
			return -MEMO_POINTERS;
	}
	return 0;
}

/* Write the checks of the frames that were unwound into a chain; 0, or minus the counter of why not.
 * An iterator's frame is one of them: with it the first one's place hangs on nothing but the program's
 * context, however many programs the tracepoint has just now. */
GLOBAL s32 memo_checks(u32 hook, u32 set, u32 way)
{
	struct memo_state *state = memo_state_of(hook);
	struct memo_chain *chain = memo_chain_at(set, way);
	struct scratch *scratch = scratch_of(hook);
	s32 why;
	u32 i, n;

	if (!state || !chain || !scratch)
		return -MEMO_LOST;
	n = scratch->n;
	__builtin_memset(&state->walk, 0, sizeof(state->walk));
	state->walk.key = hook + 1;
	if (!++state->stamp)
		state->stamp = 1;
	memo_pointers(hook);
	for (i = 0; i <= MAX_DEPTH && i <= depth; i++) {
		if (i >= n)
			break;
		why = memo_step(hook, set, way, i);
		if (why < 0)
			return why;
	}
	why = memo_check_pointers(hook, set, way);
	if (why < 0)
		return why;
	/* A stack ends where the registers are a user's, and those are on top of it: elsewhere the same
	 * addresses at the same places go on, as when a fault comes on the way out of a fault. What is
	 * counted from the top says so itself. */
	chain->size = state->walk.all || (scratch->known < depth && !state->walk.from_top)
		      ? state->after - state->bottom : 0;
	chain->near = state->walk.near;
	chain->special = state->walk.special;
	return 0;
}

/* A place for a chain in its set: a free one, or one that was not used of late. */
INLINE u32 memo_way(u32 set)
{
	u32 way, any = bpf_get_prandom_u32() & (MEMO_WAYS - 1), unused = MEMO_WAYS;
	struct memo_chain *chain;
	u32 *tag;

	for (way = 0; way < MEMO_WAYS; way++) {
		chain = memo_chain_at(set, way);
		tag = memo_tag_at(set, way);
		if (!chain || !tag || !*tag)
			return way;
		if (!chain->used)
			unused = way;
	}
	if (unused < MEMO_WAYS)
		return unused;
	for (way = 0; way < MEMO_WAYS; way++) {
		chain = memo_chain_at(set, way);
		if (chain)
			chain->used = 0;
	}
	return any;
}

/* Remember the chain of the frames that were unwound as this stack. */
GLOBAL int memo_remember(struct hot *hot, u32 hook, u32 stack_id)
{
	u64 key = hot ? hot->key : 0;
	u32 set = key & memo_mask, tag = key >> 32 | 1, way, version;
	struct memo_state *state = memo_state_of(hook);
	struct memo_chain *chain;
	u32 *held;
	s32 why;

	if (!hot)
		return 0;
	memo_copy(hook, hot->bottom, hot->after);
	way = memo_way(set);
	chain = memo_chain_at(set, way);
	held = memo_tag_at(set, way);
	if (!state || !chain || !held || !stack_id)
		return 0;
	/* Programs that interrupt each other leave a chain to whoever began first. */
	version = *(volatile u32 *)&chain->version;
	if (version & 1 || __sync_val_compare_and_swap(&chain->version, version, version + 1) !=
			   version)
		return 0;
	if (*held)
		state->counters[MEMO_REPLACED]++;
	*(volatile u32 *)held = 0;
	barrier();
	why = memo_checks(hook, set, way);
	if (why < 0) {
		state->counters[-why & (MEMO_SLOTS - 1)]++;
	} else {
		chain->stack_id = stack_id;
		chain->used = 1;
		barrier();
		*(volatile u32 *)held = tag;
	}
	barrier();
	*(volatile u32 *)&chain->version = version + 2;
	return 0;
}

#endif
