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

#define WINDOW_WORDS 512
#define TOP_WORDS 32
#define BELOW_CONTEXT 16     /* words: the frame pointer that our own program saved is there */
#define SPECIAL_CHECKS 24
#define CANDIDATES 8
#define MOST_ALIGNED 8         /* words: how far a stack is moved to be aligned */
#define MEMO_WAYS 16
#define ANCHORS 4

/* How this kernel lets us read words of the stack. */
enum reading {
	ONE_BY_ONE,                /* each word is copied, by a call */
	IN_PLACE,                  /* task->stack is a pointer to read from at any distance (6.17) */
	BY_CAST,                   /* a number becomes a pointer to a structure (6.2) */
};

static u64 (*const bpf_get_prandom_u32)(void) = (void *)7;
static void *(*const bpf_task_pt_regs)(struct task_struct *task) = (void *)175; /* 5.15 */
/* 6.2; from then on the verifier puts nothing but a move in its place */
extern void *bpf_rdonly_cast(const void *number, u32 type) KERNEL_FUNCTION;
/* Of the structures that every kernel has one whose first word is read as a number. */
struct rb_node {
	unsigned long __rb_parent_color;
} CORE;

/* ---- parameters ---- */

const volatile u8 memo;            /* 0: unwind each time */
const volatile u8 reading;         /* how words of the stack are read: enum reading */
const volatile u32 thread_size = 16384;
const volatile u32 stack_padding;  /* bytes above the registers of userspace: TOP_OF_KERNEL_STACK_PADDING */
const volatile u32 memo_mask;      /* sets - 1, a power of two */
const volatile u32 check_every;    /* unwind one hit of so many and compare; 0: none */
/* The entry code: above its frames stand saved registers. */
const volatile u64 entry_text, entry_text_end;
const volatile u64 fred_text, fred_text_end; /* that of FRED, which lies elsewhere (6.9) */
/* Functions with a gap of random size: from, to; unused ones are 0. */
const volatile u64 anchors[2 * ANCHORS];
/* What tracers put in place of a return address, which the unwinder sees through. */
const volatile u64 trampolines[2];

/* ---- state ---- */

/* Set at the first difference: no hits from then on. */
u32 memo_off;
/* Grows when a frame turns out to vary in size: no chain remembered before is taken any more. */
u32 memo_epoch;

/* How far the checks of a chain are found. */
struct memo_walk {
	u64 key;                   /* of memo_frames: the last address */
	u32 base;                  /* where the stack pointer is after the return to it */
	u32 near, special;         /* checks written */
	u8 registers;              /* the next address is in saved registers */
	u8 from_top;               /* places are counted from the top from here on */
	u8 by_pointer;             /* look only where a frame pointer may point */
	u8 all;                    /* which place is the true one is not known any more */
	u32 looked;                /* words looked at in search of addresses */
	u32 times;                 /* how often an address was found */
	u32 found[CANDIDATES];     /* and where, at first */
};

/* Of a return address (or hook + 1: the context), where the next one is: words above the stack
 * pointer after the return, of anchored functions words below the top. While several places are
 * possible they are all kept: the true one is among them each time. */
struct memo_frame {
	s32 size;                  /* or one of these */
	s32 maybe[CANDIDATES];     /* -1: none */
};

/* Per hook and CPU. */
struct memo_state {
	u64 plain[2];              /* pointers go through here and come out as numbers */
	u64 counters[MEMO_SLOTS];  /* but for hits and checks: struct hot */
	u32 top;                   /* words: index in window just after the highest word */
	u32 stamp;                 /* of the chain that is being remembered */
	u64 bottom, after;         /* addresses: of the window, and where the stack ends */
	struct memo_walk walk;
	struct memo_frame fresh;   /* before it is in the table: programs have little stack */
	u64 window[WINDOW_WORDS + TOP_WORDS];
	u32 pointed[WINDOW_WORDS + TOP_WORDS]; /* the stamp: a word of the window points here */
	u32 placed[WINDOW_WORDS + TOP_WORDS];  /* the stamp: a return address of the chain */
	u32 starts[WINDOW_WORDS + TOP_WORDS];  /* and where the frame that it ends begins */
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct memo_state);
	FIELD_NUMBER(max_entries, MEMO_HOOKS);
} memo_states SEC(".maps");

enum { FROM_BOTTOM, FROM_TOP, ON_STACK };

/* A word of the window. All that is checked is an address of code, whose high half is all ones,
 * or (ON_STACK) an address on this stack, as its distance from the window's first word. */
struct memo_check {
	u32 value;
	u16 place;                 /* bytes above the window's first; FROM_TOP: below the top */
	u16 kind;
};

struct memo_chain {
	u32 version;               /* odd while being written */
	u32 stack_id;
	u16 near;                  /* checks in use */
	u8 special;
	u8 used;                   /* since somebody looked for a place */
	u32 size;                  /* bytes of the window, if that matters; else 0 */
	struct memo_check specials[SPECIAL_CHECKS];
	struct memo_check checks[MAX_DEPTH + 1]; /* all FROM_BOTTOM; one more than the depth */
};

/* A set: the tags of MEMO_WAYS chains' keys (0: the place is free), which are looked through in one
 * cache line, and the chains. Value size and number are set when loading. */
#define MEMO_TAGS (MEMO_WAYS * sizeof(u32))
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, MEMO_TAGS + MEMO_WAYS * sizeof(struct memo_chain));
	FIELD_NUMBER(max_entries, 1);
} memo_chains SEC(".maps");

#define VARIES (-1)
#define UNSURE (-2)
#define INTERRUPTED (1ULL << 62)   /* the address was found in saved registers */

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, u64);
	FIELD_TYPE(value, struct memo_frame);
	FIELD_NUMBER(max_entries, 1);
} memo_frames SEC(".maps");

/* The first difference: what the memo said and what the unwinder found. */
struct memo_difference {
	u32 stack_id;
	u32 n;
	u64 frames[MAX_DEPTH];
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct memo_difference);
	FIELD_NUMBER(max_entries, 1);
} memo_difference SEC(".maps");

INLINE struct memo_state *memo_state_of(u32 hook)
{
	/* Of a program without memo the verifier then looks at nothing of it, not even functions that
	 * it takes one by one: what it would refuse cannot keep the tracker off. */
	return memo ? bpf_map_lookup_elem(&memo_states, &hook) : NULL;
}

INLINE u64 memo_chain_size(void)
{
	return __builtin_offsetof(struct memo_chain, checks) + (depth + 1) * sizeof(struct memo_check);
}

INLINE char *memo_set_at(u32 set)
{
	return memo ? bpf_map_lookup_elem(&memo_chains, &set) : NULL;
}

INLINE u32 *memo_tag_at(u32 set, u32 way)
{
	u32 *tags = (u32 *)memo_set_at(set);

	return tags ? tags + (way & (MEMO_WAYS - 1)) : NULL;
}

INLINE struct memo_chain *memo_chain_at(u32 set, u32 way)
{
	u64 at = way & (MEMO_WAYS - 1), size = memo_chain_size();
	char *chains = memo_set_at(set);

	/* Verifiers of before 6.10 lose the bounds of a product unless the second factor is the one
	 * that they know (adjust_scalar_min_max_vals in kernel/bpf/verifier.c). */
	if (!chains)
		return NULL;
	asm volatile("%0 *= %1" : "+r"(at) : "r"(size));
	return (void *)(chains + MEMO_TAGS + at);
}

/* A word of the window; what is outside it is 0, which is no return address. */
INLINE u64 memo_word(struct memo_state *state, u32 at)
{
	asm volatile("" : "+r"(at)); /* what is compared is what is used */
	return at < WINDOW_WORDS + TOP_WORDS ? state->window[at] : 0;
}

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
