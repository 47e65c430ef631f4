/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The per-page store, and what an event does to it. tests/spec/page_owner_spec.py says the same in
 * plain Python.
 */
#ifndef PAGEOWNER_STORE_BPF_H
#define PAGEOWNER_STORE_BPF_H

#include "shared.bpf.h"
#include "tasks.bpf.h"

/* ---- the store ---- */

/* Where the spare is that has become a span which is not there yet; 0 if none has. */
GLOBAL u32 spare_of(u64 span)
{
	u32 slot = span & (SPARES - 1);

	if (!has_spares || *(volatile u32 *)&spare_spans[slot] != (u32)span + 1)
		return 0;
	return span_count + slot;
}

/* Make the spare of a page's span that span; 0 if it is another one already. */
GLOBAL int take_spare(u64 pfn)
{
	u64 span = pfn >> span_shift;
	u32 wanted = span + 1, was;

	if (!has_spares || span >= span_count)
		return 0;
	was = __sync_val_compare_and_swap(&spare_spans[span & (SPARES - 1)], 0, wanted);
	return !was || was == wanted;
}

INLINE void *span_of(u64 pfn)
{
	u64 span = pfn >> span_shift;
	u32 key = span;
	void *inner;

	if (span >= span_count)
		return NULL;
	inner = bpf_map_lookup_elem(&spans, &key);
	if (inner)
		return inner;
	key = spare_of(span);
	return key ? bpf_map_lookup_elem(&spans, &key) : NULL;
}

INLINE struct record *in_span(void *span, u64 pfn)
{
	u32 slot = pfn & ((1U << span_shift) - 1);

	return bpf_map_lookup_elem(span, &slot);
}

INLINE struct record *record_at(u64 pfn)
{
	void *span = span_of(pfn);

	return span ? in_span(span, pfn) : NULL;
}

/* The same for a page that was just allocated or freed: it is memory, added if it has no span. */
INLINE struct record *record_for(u64 pfn)
{
	struct record *record = record_at(pfn);

	if (!record && take_spare(pfn))
		record = record_at(pfn);
	return record;
}

/* ---- a record's word, and the protocol of records.h ---- */

#define RECORD_WORD(record) (*(volatile u32 *)&(record)->order)
#define WORD_WITHOUT_GENERATION 0x00ffffffU
#define TRIES 32 /* how often a record that another CPU has is looked at again: some 100 ns */

/* A word but for its generation. */
INLINE u32 record_word(u8 order, u8 state, u8 moved)
{
	return order | state << 8 | moved << 16;
}

/* The word that follows another one: what it says, in the next generation. */
INLINE u32 next_word(u32 was, u32 what)
{
	return ((was & ~WORD_WITHOUT_GENERATION) + WORD_WITHOUT_GENERATION + 1) |
	       (what & WORD_WITHOUT_GENERATION);
}

INLINE u8 state_in(u32 word)
{
	return word >> 8;
}

INLINE u8 order_in(u32 word)
{
	return word;
}

/* Whether a record with this word stands for a block of its order. */
INLINE int is_block(u32 word)
{
	return state_in(word) == STATE_OWNED || state_in(word) == STATE_FILTERED;
}

/* Whether a CPU has this record to itself just now. */
INLINE int is_held(u32 word)
{
	return state_in(word) >= STATE_DIVIDED;
}

INLINE int replace_word(struct record *record, u32 was, u32 word)
{
	return __sync_val_compare_and_swap((u32 *)&record->order, was, word) == was;
}

/* Take a record to write it, if its word is still this one. What it will say tells its order. */
INLINE int mark(struct record *record, u32 was, u32 what)
{
	if (!replace_word(record, was, next_word(was, (what & 0xff) | STATE_WRITTEN << 8)))
		return 0;
	in_order();
	return 1;
}

/* Let go of a record that had this word when it was taken. */
INLINE void publish(struct record *record, u32 was, u32 what)
{
	in_order();
	RECORD_WORD(record) = next_word(was, what);
}

INLINE void fill(struct record *to, u64 ts, u32 stack, u32 task, u32 gfp_mask)
{
	to->ts = ts;
	to->stack_id = stack;
	to->task_id = task;
	to->gfp_mask = gfp_mask;
}

/* Copy a record whole; its word, which is_held() if no try was lucky. */
INLINE u32 copy_whole(struct record *from, struct record *copy)
{
	u32 i, word;

	for (i = 0; i < TRIES; i++) {
		word = RECORD_WORD(from);
		if (is_held(word))
			continue;
		in_order();
		*copy = *from;
		in_order();
		if (RECORD_WORD(from) == word)
			return word;
	}
	count(COUNT_CONTENDED, 1);
	return record_word(0, STATE_WRITTEN, 0);
}

/* ---- what an event does to the store ---- */

/* No block begins here any more, if the word is still this one. */
INLINE int forget(struct record *record, u32 word)
{
	u32 id = *(volatile u32 *)&record->task_id;

	if (!replace_word(record, word, next_word(word, record_word(0, STATE_NONE, 0))))
		return 0;
	if (state_in(word) == STATE_OWNED)
		drop_task(id, 1);
	return 1;
}

/* No block begins at pfn: its state is none, or early. */
GLOBAL int clear_one(u64 pfn, u32 state)
{
	struct record *record = record_at(pfn);
	u32 i, id, was;

	if (!record)
		return 0;
	for (i = 0; i < TRIES; i++) {
		was = RECORD_WORD(record);
		if (state_in(was) == state)
			return 0;
		id = *(volatile u32 *)&record->task_id;
		if (is_held(was) ||
		    !replace_word(record, was, next_word(was, record_word(0, state, 0))))
			continue;
		if (state_in(was) == STATE_OWNED)
			drop_task(id, 1);
		if (state_in(was) != STATE_NONE)
			count(state_in(was) == STATE_EARLY ? COUNT_EARLY_FREED : COUNT_MERGES, 1);
		return 0;
	}
	count(COUNT_CONTENDED, 1);
	return 0;
}

#define CLEARED_AT_ONCE 512

/* (What loops many times calls functions that the verifier checks once.) */
GLOBAL int clear_some(u64 pfn, u64 end, u32 state)
{
	u32 i;

	for (i = 0; i < CLEARED_AT_ONCE; i++) {
		if (pfn + i >= end)
			break;
		clear_one(pfn + i, state);
	}
	return 0;
}

/* The same for page frames first .. 2**order - 1 after pfn. Of blocks larger than the page
 * allocator has, which were put together of free memory, where no block begins, only the beginning
 * is looked at: no more than 2**MAX_CLEARED pages, 3 to 8 ns each, so that it is over in 0.1 ms. */
INLINE int clear_range(u64 pfn, u32 order, u32 first, u32 state)
{
	u64 end = pfn + (1ULL << ((order < max_order ? order : max_order) & 31));
	u32 i;

	pfn += first;
	for (i = 0; i < (1 << MAX_CLEARED) / CLEARED_AT_ONCE; i++) {
		if (pfn >= end)
			break;
		clear_some(pfn, end, state);
		pfn += CLEARED_AT_ONCE;
	}
	return 0;
}

/* Note that there are blocks of this order. */
INLINE void seen_order(u32 order)
{
	u32 bit = 1U << (order & 31);

	if (!(*(volatile u32 *)&orders_seen & bit))
		__sync_fetch_and_or(&orders_seen, bit);
}

/* Write a record whatever it said; the word that it had, which is_held() if another CPU did not let
 * go of it. */
INLINE u32 put(struct record *to, struct record *from, u32 what)
{
	u32 i, was;

	for (i = 0; i < TRIES; i++) {
		was = RECORD_WORD(to);
		if (is_held(was) || !mark(to, was, what))
			continue;
		if (state_in(was) == STATE_OWNED)
			drop_task(to->task_id, 1);
		fill(to, from->ts, from->stack_id, from->task_id, from->gfp_mask);
		publish(to, was, what);
		return was;
	}
	count(COUNT_CONTENDED, 1);
	return record_word(0, STATE_WRITTEN, 0);
}

/* A piece of a divided block, which holds a reference to its task. Where there is a record already
 * it is younger, and the block was stale there: it stays. */
INLINE void put_piece(struct record *to, struct record *from, u32 what)
{
	u32 was = RECORD_WORD(to);

	if (!is_block(was) && !is_held(was) && mark(to, was, what)) {
		fill(to, from->ts, from->stack_id, from->task_id, from->gfp_mask);
		publish(to, was, what);
	} else if (state_in(what) == STATE_OWNED) {
		drop_task(from->task_id, 1);
	}
}

/* A block begins at pfn, with what fresh says of it; its task's reference passes to the record. */
INLINE void begin_block(u64 pfn, u32 order, u32 state, struct record *fresh)
{
	struct record *record = record_for(pfn);
	u32 was;

	if (!record) {
		drop_task(fresh->task_id, 1);
		count(COUNT_OUT_OF_RANGE, 1);
		return;
	}
	if (order)
		clear_range(pfn, order, 1, STATE_NONE);
	seen_order(order);
	was = put(record, fresh, record_word(order, state, 0));
	if (is_held(was))
		drop_task(fresh->task_id, 1);
	else if (is_block(was))
		count(COUNT_OVERWRITTEN, 1);
}

INLINE void own_since(u64 pfn, u32 order, u32 gfp_mask, u32 stack, u32 task, u64 ts)
{
	struct record fresh = {};

	fill(&fresh, ts, stack, task, gfp_mask);
	begin_block(pfn, order, STATE_OWNED, &fresh);
}

GLOBAL int own(u64 pfn, u32 order, u32 gfp_mask, u32 stack, u32 task)
{
	own_since(pfn, order, gfp_mask, stack, task, bpf_ktime_get_ns());
	return 0;
}

/* The same for a single page whose record is free for it, in place: nearly all are. 0: it is not. */
INLINE int own_page(struct record *record, u32 gfp_mask, u32 stack, u32 task, u64 ts)
{
	u32 was = RECORD_WORD(record), what = record_word(0, STATE_OWNED, 0);

	if (is_block(was) || is_held(was) || !mark(record, was, what))
		return 0;
	fill(record, ts, stack, task, gfp_mask);
	publish(record, was, what);
	return 1;
}

/* A block begins at pfn that a filter leaves out. */
GLOBAL int own_filtered(u64 pfn, u32 order, u32 gfp_mask)
{
	struct record fresh = {};

	count(COUNT_FILTERED, 1);
	fill(&fresh, 0, 0, 0, gfp_mask);
	begin_block(pfn, order, STATE_FILTERED, &fresh);
	return 0;
}

#endif
