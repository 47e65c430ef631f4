/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The memo: which stack this is, by looking at the words where its return addresses stood the last
 * time, instead of unwinding it again. docs/memo.md has the reasons and the proof in full.
 *
 * Places are counted in words of 8 bytes. The window is what lies between a little below the
 * program's context, which is on the stack of the task that runs, and the top of that stack;
 * beyond WINDOW_WORDS only the TOP_WORDS highest words belong to it. A chain is known by its
 * checks: words of the window and what they must be. They are found with a table of frame sizes:
 * for a return address, how far above its own place the next one stands. ORC says the same for
 * the same address each time; the memo sees it once, when the next return address of an unwound
 * stack stands in one place of the window only, and holds it against every later unwinding.
 * Some rules need a word more:
 *
 * - Above a frame of the entry code stand the registers of what was interrupted: its stack
 *   pointer, from which its caller is found, is checked too.
 * - A function that aligns its stack finds its caller from its frame pointer. Every word of the
 *   window that could be such a pointer to a place of the chain is checked too.
 * - The first function of a system call leaves a gap of random size below itself
 *   (randomize_kstack_offset): its caller is counted from the top of the stack.
 */
#ifndef PAGEOWNER_MEMO_BPF_H
#define PAGEOWNER_MEMO_BPF_H

#include "shared.bpf.h"
#include "stack_table.bpf.h"
#include "memo_state.bpf.h"

/* ---- looking ---- */

/* Where the window is. 0, or the counter of why there is none. */
INLINE u32 memo_look(struct hot *hot, struct task_struct *task, void *context)
{
	u64 stack, bottom;

	hot->plain[0] = (u64)task->stack;
	hot->plain[1] = (u64)context;
	barrier();
	stack = *(volatile u64 *)&hot->plain[0];
	bottom = *(volatile u64 *)&hot->plain[1] - BELOW_CONTEXT * 8;
	if (bottom - stack > thread_size - TOP_WORDS * 8)
		return MEMO_OTHER_STACK;
	hot->bottom = bottom;
	hot->after = stack + thread_size;
	return 0;
}

/* Copy the window; if it cannot be done, it has no words. */
GLOBAL int memo_copy(u32 hook, u64 bottom, u64 after)
{
	struct memo_state *state = memo_state_of(hook);
	u64 size = after - bottom;

	if (!state)
		return 0;
	state->bottom = bottom;
	state->after = after;
	state->top = size / 8;
	if (size > WINDOW_WORDS * 8) {
		size = WINDOW_WORDS * 8;
		state->top = WINDOW_WORDS + TOP_WORDS;
		if (bpf_probe_read_kernel(state->window + WINDOW_WORDS, TOP_WORDS * 8,
					  (void *)(after - TOP_WORDS * 8)))
			state->top = 0;
	}
	asm volatile("" : "+r"(size));
	if (size > WINDOW_WORDS * 8 ||
	    bpf_probe_read_kernel(state->window, size, (void *)bottom))
		state->top = 0;
	return 0;
}

/* What words of the window are read with, in whichever way. */
struct memo_reader {
	char *place;               /* IN_PLACE: the window's first word */
	u64 bottom, size;          /* of the window, to the end of the stack, in bytes */
	u32 type;                  /* BY_CAST: of struct rb_node, in the kernel's BTF */
};

INLINE struct memo_reader memo_reader(u64 bottom, u64 after)
{
	struct memo_reader reader = {.bottom = bottom, .size = after - bottom};

	if (reading == IN_PLACE)
		reader.place = (char *)bpf_get_current_task_btf()->stack +
			       (thread_size - reader.size);
	else if (reading == BY_CAST)
		reader.type = core_type_id(struct rb_node);
	return reader;
}

/* The word so many bytes above the window's first; how: as `reading`, a constant here. */
INLINE u64 memo_read_as(struct memo_reader *reader, u64 at, u8 how)
{
	struct rb_node *word;
	u64 copy = 0;

	if (how == IN_PLACE)
		return *(volatile u64 *)(reader->place + at);
	if (how == BY_CAST) {
		word = bpf_rdonly_cast((void *)(reader->bottom + at), reader->type);
		return *(volatile unsigned long *)&word->__rb_parent_color;
	}
	/* What cannot be read is 0, which is no return address. */
	return bpf_probe_read_kernel(&copy, sizeof(copy), (void *)(reader->bottom + at)) ? 0 : copy;
}

INLINE u64 memo_read(struct memo_reader *reader, u64 at)
{
	u8 how = reading;

	if (how == IN_PLACE)
		return memo_read_as(reader, at, IN_PLACE);
	if (how == BY_CAST)
		return memo_read_as(reader, at, BY_CAST);
	return memo_read_as(reader, at, ONE_BY_ONE);
}

/* Separates chains; that two have one key only costs a comparison. Of system calls the word 6
 * below the end of the registers of userspace is the number (orig_ax), and the one 22 below, under
 * them, tells them from exceptions. The size of the gap that system calls begin with is left out. */
INLINE u64 memo_key(struct memo_reader *reader, u32 hook, u64 salt)
{
	u64 hash = hash_step(salt, hook | memo_epoch << 8 | reader->size >> 9 << 40);

	hash = hash_step(hash, memo_read(reader, reader->size - stack_padding - 6 * 8));
	return hash_step(hash, memo_read(reader, reader->size - stack_padding - 22 * 8));
}

#define CODE 0xffffffff00000000ULL /* the high half of addresses of code */

/* Whether every word that this chain depends on is what it was. */
INLINE int memo_same_as(struct memo_reader *reader, struct memo_chain *chain, u32 most, u8 how)
{
	struct memo_check *check;
	u64 at, expected;
	u32 i, n;

	n = chain->near;
	for (i = 0; i < most; i++) { /* (i < n is no bound to verifiers before 6.8) */
		if (i >= n)
			break;
		check = &chain->checks[i];
		if (memo_read_as(reader, check->place, how) != (check->value | CODE))
			return 0;
	}
	n = chain->special;
	for (i = 0; i < SPECIAL_CHECKS; i++) {
		if (i >= n)
			break;
		check = &chain->specials[i];
		at = check->place;
		expected = check->value | CODE;
		if (check->kind == FROM_TOP)
			at = reader->size - at;
		else if (check->kind == ON_STACK)
			expected = reader->bottom + check->value;
		if (memo_read_as(reader, at, how) != expected)
			return 0;
	}
	return 1;
}

INLINE int memo_same(struct memo_reader *reader, struct memo_chain *chain, u32 most)
{
	u8 how = reading;

	if (chain->size && chain->size != reader->size)
		return 0;
	if (how == IN_PLACE)
		return memo_same_as(reader, chain, most, IN_PLACE);
	if (how == BY_CAST)
		return memo_same_as(reader, chain, most, BY_CAST);
	return memo_same_as(reader, chain, most, ONE_BY_ONE);
}

/* The id of the stack if it is that of this chain, else 0. (A function that the verifier looks at
 * once.) */
GLOBAL u32 memo_try(struct hot *hot, u32 set, u32 way, u32 tag)
{
	u64 at = way & (MEMO_WAYS - 1), size = memo_chain_size();
	char *tags = memo_set_at(set);
	struct memo_chain *chain;
	struct memo_reader reader;
	u32 *held, id, version;

	if (!hot || !tags)
		return 0;
	held = (u32 *)tags + at;
	if (*(volatile u32 *)held != tag)
		return 0;
	asm volatile("%0 *= %1" : "+r"(at) : "r"(size));
	chain = (struct memo_chain *)(tags + MEMO_TAGS + at);
	reader = memo_reader(hot->bottom, hot->after);
	/* An interrupt's program may write it meanwhile: then it is not this chain. */
	version = *(volatile u32 *)&chain->version;
	id = *(volatile u32 *)&chain->stack_id;
	barrier();
	if (!memo_same(&reader, chain, depth + 1))
		return 0;
	barrier();
	if (version & 1 || *(volatile u32 *)&chain->version != version ||
	    *(volatile u32 *)held != tag)
		return 0;
	if (!chain->used)
		chain->used = 1;
	return id;
}

GLOBAL u64 memo_key_of(struct hot *hot, u32 hook, u64 salt)
{
	struct memo_reader reader;

	if (!hot)
		return 0;
	reader = memo_reader(hot->bottom, hot->after);
	return memo_key(&reader, hook, salt);
}

/* The id of the current stack if it is known, else 0: first whether it is the last one of this
 * salt, most often it is. */
INLINE u32 memo_recall(struct hot *hot, struct recent *recent, u32 hook, u64 salt)
{
	u32 set, way, tag, id, *tags, epoch = *(volatile u32 *)&memo_epoch;
	u64 key;

	if (recent && recent->salt == salt && recent->epoch == epoch) {
		id = memo_try(hot, recent->set, recent->way, recent->tag);
		if (id)
			return id;
	}
	key = memo_key_of(hot, hook, salt);
	hot->key = key;
	set = key & memo_mask;
	tag = key >> 32 | 1;
	tags = (u32 *)memo_set_at(set);
	if (!tags)
		return 0;
	for (way = 0; way < MEMO_WAYS; way++) {
		if (((volatile u32 *)tags)[way] != tag)
			continue;
		id = memo_try(hot, set, way, tag);
		if (!id)
			continue;
		if (recent) {
			recent->salt = salt;
			recent->epoch = epoch;
			recent->set = set;
			recent->way = way;
			recent->tag = tag;
		}
		return id;
	}
	return 0;
}

/* ---- checking ---- */

INLINE int memo_due(struct hot *hot)
{
	if (!check_every)
		return 0;
	if (hot->until_check > 1) {
		hot->until_check--;
		return 0;
	}
	/* On average one of check_every, not in step with a loop of the load. */
	hot->until_check = check_every == 1 ? 1 : 1 + bpf_get_prandom_u32() % (2 * check_every - 1);
	return 1;
}

/* The memo said that the n frames in scratch are stack `id`. Turns it off if that is wrong. */
GLOBAL int memo_compare(struct hot *hot, u32 hook, u32 id, u32 n)
{
	struct memo_state *state = memo_state_of(hook);
	struct scratch *scratch = scratch_of(hook);
	struct memo_difference *difference;
	u32 zero = 0, i;

	if (!state || !hot)
		return 0;
	hot->checks++;
	if (same_stack(id, hook))
		return 1;
	state->counters[MEMO_DIFFERENCES]++;
	difference = bpf_map_lookup_elem(&memo_difference, &zero);
	if (scratch && difference && !__sync_val_compare_and_swap(&memo_off, 0, 1)) {
		difference->stack_id = id;
		difference->n = n;
		for (i = 0; i < MAX_DEPTH && i < depth; i++)
			difference->frames[i] = scratch->frames[i];
	}
	return 0;
}

/* ---- run from userspace ---- */

/* Where the current task's stack begins and where its registers of userspace are: from that the
 * size of stacks follows: in counters of maps that are for this alone. */
SEC("raw_tp")
int measure_stack(u64 *context)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 first = 0; /* without a memo yet */
	struct memo_state *state = bpf_map_lookup_elem(&memo_states, &first);
	struct memo_reader reader;

	(void)context;
	if (!state)
		return 0;
	state->plain[0] = (u64)task->stack;
	state->plain[1] = (u64)bpf_task_pt_regs(task);
	barrier();
	state->counters[0] = *(volatile u64 *)&state->plain[0];
	/* at a distance that the verifier does not know */
	reader = memo_reader(state->counters[0], state->counters[0] + thread_size);
	state->counters[2] = memo_read(&reader, state->counters[3] & 8);
	state->counters[1] = *(volatile u64 *)&state->plain[1];
	return 0;
}

#endif
