/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Where the return addresses of a stack that was unwound stand in the window: found with the table of
 * frame sizes, which grows with each one.
 */
#ifndef PAGEOWNER_MEMO_SEARCH_BPF_H
#define PAGEOWNER_MEMO_SEARCH_BPF_H

#include "memo_state.bpf.h"
#include "shared.bpf.h"

/* Words of the window that are looked at with one call, so that the rest costs a share of it. */
#define AT_ONCE 8
/* Learning takes place inside an allocation: it is left for the next time when so many words were
 * looked at in search of return addresses. What was learned of frames is kept, so the next time comes
 * further. A frame has four searches at most, of the whole window, so this is passed by at most as
 * many words. */
const volatile u32 most_looked = 16 * WINDOW_WORDS;

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

/* Some words of memo_search; a function of its own, that the verifier looks at once. */
GLOBAL int memo_search_some(u32 hook, u32 from, u64 address)
{
	struct memo_state *state = memo_state_of(hook);
	u32 i, at;
	u64 word;

	if (!state)
		return 0;
	for (i = 0; i < AT_ONCE; i++) {
		at = from + i;
		asm volatile("" : "+r"(at));
		if (at >= WINDOW_WORDS + TOP_WORDS || at >= *(volatile u32 *)&state->top)
			break;
		word = state->window[at];
		if (memo_is_trampoline(word))
			return 0;
		if (word != address || (state->walk.by_pointer && !memo_pointed(state, at)))
			continue;
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
	u32 i, from, base;

	if (!state)
		return 0;
	base = state->walk.base;
	state->walk.times = 0;
	state->walk.looked += base < state->top ? state->top - base : 1;
	for (i = 0; i < (WINDOW_WORDS + TOP_WORDS) / AT_ONCE; i++) {
		from = base + i * AT_ONCE;
		if (from >= *(volatile u32 *)&state->top)
			break;
		if (!memo_search_some(hook, from, address))
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

#endif
