/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What the memo is told of this kernel, and what it keeps: the window that it looks at now, and the
 * chains that it knows. memo.bpf.h says what these are.
 */
#ifndef PAGEOWNER_MEMO_STATE_BPF_H
#define PAGEOWNER_MEMO_STATE_BPF_H

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

#endif
