/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * How the memo learns: from a stack that was unwound, the words of the window that it hangs on.
 */
#ifndef PAGEOWNER_MEMO_LEARN_BPF_H
#define PAGEOWNER_MEMO_LEARN_BPF_H

#include "memo.bpf.h"

INLINE int memo_is_anchor(u64 address)
{
	u32 i;

	for (i = 0; i < ANCHORS; i++)
		if (address > anchors[2 * i] && address <= anchors[2 * i + 1])
			return 1;
	return 0;
}

INLINE int memo_is_entry(u64 address)
{
	return (address > entry_text && address <= entry_text_end) ||
	       (address > fred_text && address <= fred_text_end);
}

INLINE int memo_is_trampoline(u64 word)
{
	return word && (word == trampolines[0] || word == trampolines[1]);
}

/* Whether a frame pointer may point to the return address at a place: the usual one to the word
 * below it (push %rbp; mov %rsp,%rbp), that of functions with an argument pointer to the word
 * above it (lea 8(%rsp),%r10), as ORC_REG_BP and ORC_REG_BP_INDIRECT. */
INLINE int memo_pointed(struct memo_state *state, u32 at)
{
	u32 below = at - 1, above = at + 1;

	asm volatile("" : "+r"(below), "+r"(above));
	return (below < WINDOW_WORDS + TOP_WORDS && state->pointed[below] == state->stamp) ||
	       (above < WINDOW_WORDS + TOP_WORDS && state->pointed[above] == state->stamp);
}

/* One word of memo_search; a function of its own, that the verifier looks at once. */
GLOBAL int memo_search_at(u32 hook, u32 at, u64 address)
{
	struct memo_state *state = memo_state_of(hook);
	u64 word;

	if (!state || at >= WINDOW_WORDS + TOP_WORDS || at < state->walk.base)
		return 1;
	word = state->window[at];
	if (memo_is_trampoline(word))
		return 0;
	if (word == address && (!state->walk.by_pointer || memo_pointed(state, at))) {
		if (state->walk.times < CANDIDATES)
			state->walk.found[state->walk.times & (CANDIDATES - 1)] = at;
		state->walk.times++;
	}
	return 1;
}

/* How often an address stands in the window from walk.base on (walk.times), and where
 * (walk.found); 0 if tracers have put their own in place of some return address. */
GLOBAL int memo_search(u32 hook, u64 address)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i;

	if (!state)
		return 0;
	state->walk.times = 0;
	for (i = 0; i < WINDOW_WORDS + TOP_WORDS; i++) {
		if (i >= *(volatile u32 *)&state->top)
			break;
		if (!memo_search_at(hook, i, address))
			return 0;
	}
	return 1;
}

/* Of the sizes that a frame may have, keep those that this stack allows. Entries of the table are
 * never taken away and only written in place: another CPU may hold one. */
GLOBAL int memo_narrow(u32 hook, u64 address)
{
	struct memo_state *state = memo_state_of(hook);
	struct memo_frame *frame;
	s32 size, last = 0;
	u32 i, left = 0;
	int anchored;
	u64 key;

	if (!state)
		return 0;
	key = state->walk.key;
	anchored = memo_is_anchor(key);
	frame = bpf_map_lookup_elem(&memo_frames, &key);
	if (!frame)
		return 0;
	for (i = 0; i < CANDIDATES; i++) {
		size = *(volatile s32 *)&frame->maybe[i];
		if (size < 0)
			continue;
		if (memo_word(state, anchored ? state->top - size : state->walk.base + size) ==
		    address) {
			last = size;
			left++;
		} else {
			*(volatile s32 *)&frame->maybe[i] = -1;
		}
	}
	if (left < 2)
		*(volatile s32 *)&frame->size = left ? last : VARIES;
	return 0;
}

/* A function that aligns its stack and still needs its arguments (lea 8(%rsp),%r10; and $-16,%rsp;
 * push -8(%r10)) has its return address twice: a copy, and just above it the one that counts, to
 * which the argument pointer saved in its frame leads. The place of that one, if two of the places
 * found are such a pair; else 0. Overwrites what was found then. */
GLOBAL u32 memo_realigned(u32 hook)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i, copy = 0, at = 0;

	if (!state || state->walk.times < 2)
		return 0;
	for (i = 1; i < CANDIDATES; i++) {
		if (i >= state->walk.times || at)
			break;
		copy = state->walk.found[i - 1];
		if (state->walk.found[i] - copy <= MOST_ALIGNED)
			at = state->walk.found[i];
	}
	if (!at || !memo_search(hook, state->bottom + (at + 1) * 8))
		return 0;
	return state->walk.times && state->walk.found[0] < copy ? at : 0;
}

/* Where the return address after the last of the walk stands, or minus the counter of why this
 * is not known. */
GLOBAL s32 memo_next(u32 hook, u64 address)
{
	struct memo_state *state = memo_state_of(hook);
	struct memo_frame *known, *frame;
	s32 at, base, size;
	int anchored;
	u32 times, i;
	u64 key;

	if (!state)
		return -MEMO_LOST;
	key = state->walk.key;
	frame = &state->fresh;
	base = state->walk.base;
	anchored = memo_is_anchor(key);
	state->walk.by_pointer = 0;
	known = bpf_map_lookup_elem(&memo_frames, &key);
	size = known ? *(volatile s32 *)&known->size : UNSURE;
	if (known && size == UNSURE) {
		memo_narrow(hook, address);
		size = *(volatile s32 *)&known->size;
		if (size == UNSURE)
			return -MEMO_AMBIGUOUS;
	}
	if (known && size != VARIES) {
		at = anchored ? (s32)state->top - size : base + size;
		if (at < 0 || at >= WINDOW_WORDS + TOP_WORDS || at >= (s32)state->top ||
		    (!anchored && base < WINDOW_WORDS && at >= WINDOW_WORDS))
			return -MEMO_DEEP;
		if (memo_word(state, at) == address)
			return at;
		if (memo_is_trampoline(memo_word(state, at)))
			return -MEMO_TRACED;
		if (anchored)
			return -MEMO_VARIES;
		/* From here on this frame is found by its pointer; whatever was remembered on
		 * the belief that its size is fixed is not taken any more. */
		*(volatile s32 *)&known->size = VARIES;
		__sync_fetch_and_add(&memo_epoch, 1);
		return -MEMO_VARIES;
	}
	if (state->top > WINDOW_WORDS && !anchored)
		return -MEMO_DEEP; /* it may be where we do not look */
	if (anchored && state->top > WINDOW_WORDS)
		state->walk.base = WINDOW_WORDS;
	if (!memo_search(hook, address))
		return -MEMO_TRACED;
	if (!state->walk.times)
		return -MEMO_LOST;
	if (state->walk.times > 1 && !anchored) {
		at = memo_realigned(hook);
		if (at) {
			__builtin_memset(frame, 0, sizeof(*frame));
			frame->size = VARIES;
			if (!known)
				bpf_map_update_elem(&memo_frames, &key, frame, BPF_NOEXIST);
			return at;
		}
		state->walk.by_pointer = !!known;
		memo_search(hook, address);
	}
	times = state->walk.times;
	at = state->walk.found[0];
	if (known)
		return times == 1 && memo_pointed(state, at) ? at : -MEMO_VARIES;
	if (times > CANDIDATES)
		return -MEMO_AMBIGUOUS;
	for (i = 0; i < CANDIDATES; i++) {
		at = state->walk.found[i];
		frame->maybe[i] = i >= times ? -1 : anchored ? (s32)state->top - at : at - base;
	}
	at = state->walk.found[0];
	frame->size = times == 1 ? frame->maybe[0] : UNSURE;
	bpf_map_update_elem(&memo_frames, &key, frame, BPF_NOEXIST);
	return times == 1 ? at : -MEMO_AMBIGUOUS;
}

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

	if (!state || !chain || i >= MAX_DEPTH || i >= depth)
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

	if (!state || !scratch || !chain || i >= MAX_DEPTH || i >= depth)
		return -MEMO_LOST;
	walk = &state->walk;
	address = scratch->frames[i];
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

GLOBAL int memo_point_at(u32 hook, u32 at)
{
	struct memo_state *state = memo_state_of(hook);
	u32 to;

	if (!state)
		return 0;
	to = memo_points_to(state, at);
	if (to < WINDOW_WORDS)
		memo_mark(state->pointed, to, state->stamp);
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

/* Mark where the window points into itself. */
GLOBAL int memo_pointers(u32 hook)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i;

	if (!state)
		return 0;
	for (i = 0; i < WINDOW_WORDS; i++) {
		if (i >= *(volatile u32 *)&state->top)
			break;
		memo_point_at(hook, i);
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
	for (i = 0; i < WINDOW_WORDS; i++) {
		if (i >= *(volatile u32 *)&state->top)
			break;
		if (!memo_check_pointer(hook, set, way, i))
			return -MEMO_POINTERS;
	}
	return 0;
}

/* Write the checks of the n frames in scratch into a chain; 0, or minus the counter of why not. */
GLOBAL s32 memo_checks(u32 hook, u32 set, u32 way, u32 n)
{
	struct memo_state *state = memo_state_of(hook);
	struct memo_chain *chain = memo_chain_at(set, way);
	s32 why;
	u32 i;

	if (!state || !chain)
		return -MEMO_LOST;
	__builtin_memset(&state->walk, 0, sizeof(state->walk));
	state->walk.key = hook + 1;
	if (!++state->stamp)
		state->stamp = 1;
	memo_pointers(hook);
	for (i = 0; i < MAX_DEPTH && i < depth; i++) {
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
	chain->size = state->walk.all || (n < depth && !state->walk.from_top)
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

/* Remember the chain of the n frames in scratch as this stack. */
GLOBAL int memo_remember(u32 hook, u64 key, u32 n, u32 stack_id)
{
	u32 set = key & memo_mask, tag = key >> 32 | 1, way, version;
	struct memo_state *state = memo_state_of(hook);
	struct memo_chain *chain;
	u32 *held;
	s32 why;

	if (reading != COPIED)
		memo_copy(hook);
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
	why = memo_checks(hook, set, way, n);
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
