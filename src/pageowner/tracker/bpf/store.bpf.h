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

/* Take the right to divide the block of this record; its word, or 0 if another CPU was first. */
INLINE u32 claim(struct record *record, u32 word)
{
	u32 divided = next_word(word, (word & ~0xff00U) | STATE_DIVIDED << 8);

	if (!replace_word(record, word, divided))
		return 0;
	in_order();
	return word;
}

/* What a word says, of a block of another order. */
INLINE u32 resized(u32 word, u32 order)
{
	return (word & WORD_WITHOUT_GENERATION & ~0xffU) | order;
}

/*
 * Divide the block at head so that the 2**order pages at pfn are a block of their own, and the
 * rest is in pieces as large as the buddy allocator would make them. keep: whether a record
 * remains for the part at pfn. word is that of the claimed head.
 */
GLOBAL int carve(u64 head, u32 word, u64 pfn, u32 order, u32 keep)
{
	struct record *from = record_at(head), *to;
	u32 i, size = order_in(word), pieces = size - order + keep;
	struct record copy;
	u64 at = head, piece, half;

	if (!from)
		return 0;
	copy = *from;
	hold_more(copy.task_id, pieces - 1);
	for (i = 0; i < MAX_BLOCK; i++) {
		if (size <= order)
			break;
		size--;
		half = 1ULL << (size & 31);
		piece = at + half;
		if (pfn & half) {
			piece = at;
			at += half;
		}
		if (piece == head)
			continue; /* last, since others wait until it is no longer divided */
		to = record_at(piece);
		if (to)
			put_piece(to, &copy, resized(word, size));
	}
	if (pfn != head) {
		if (keep) {
			to = record_at(pfn);
			if (to)
				put_piece(to, &copy, resized(word, order));
		}
		/* The head's piece: the largest that holds head and not pfn. */
		size = order_in(word);
		for (i = 0; i < MAX_BLOCK; i++) {
			size--;
			if ((pfn ^ head) >> (size & 31) & 1)
				break;
		}
		publish(from, word, resized(word, size));
	} else if (keep) {
		publish(from, word, resized(word, order));
	} else {
		publish(from, word, record_word(0, STATE_NONE, 0));
	}
	count(COUNT_CARVES, 1);
	return 0;
}

#define ISOLATED 1
#define CONTENDED 2

/* One try of isolate(). */
GLOBAL int isolate_once(u64 pfn, u32 order, u32 keep)
{
	u32 size, word, seen = orders_seen;
	struct record *record;
	u64 head;

	for (size = 0; size <= MAX_BLOCK; size++) {
		if (!(seen >> (size & 31)))
			break;
		head = pfn & ~((1ULL << size) - 1);
		if (size && head == (pfn & ~((1ULL << (size - 1)) - 1)))
			continue;
		record = record_at(head);
		if (!record)
			break;
		word = RECORD_WORD(record);
		if (is_held(word))
			return CONTENDED;
		if (!is_block(word) || order_in(word) <= order ||
		    head + (1ULL << (order_in(word) & 31)) <= pfn)
			continue;
		if (!claim(record, word))
			return CONTENDED;
		carve(head, word, pfn, order, keep);
		return ISOLATED;
	}
	return 0;
}

/* Make the 2**order pages at pfn a block of their own if they are part of a larger one;
 * 0 if no larger block holds them. */
GLOBAL int isolate(u64 pfn, u32 order, u32 keep)
{
	int tries, result;

	for (tries = 0; tries < TRIES; tries++) {
		result = isolate_once(pfn, order, keep);
		if (result != CONTENDED)
			return result;
	}
	count(COUNT_CONTENDED, 1);
	return CONTENDED;
}

/* A block was freed that is not just what its record says. */
GLOBAL int free_part(u64 pfn, u32 order)
{
	struct record *record = record_at(pfn);
	u32 word;

	if (!record)
		return 0;
	word = RECORD_WORD(record);
	if (state_in(word) != STATE_EARLY && !(is_block(word) && order_in(word) <= order)) {
		if (isolate(pfn, order, 0))
			return 0;
		count(COUNT_UNKNOWN_FREES, 1);
	}
	return clear_range(pfn, order, 0, STATE_NONE);
}

struct split {
	u64 at;             /* where we are */
	u64 end;
	u64 head;           /* of the block being divided; done when none of its pieces are left */
	struct record copy;
	u32 word;           /* of each piece */
	u32 left;
	u32 to;
	u32 head_word;      /* as it was taken */
};

/* One for each program that splits: on a function of the kernel a program may be preempted, and
 * the kernel keeps only itself from running then on that CPU. */
enum { SPLIT_PAGE, SPLIT_FOLIO, SPLIT_EXACT, SPLIT_EXACT_NID, SPLIT_MADE_UP, SPLITTERS };

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct split);
	FIELD_NUMBER(max_entries, SPLITTERS);
} split_now SEC(".maps");

/* One piece of a split; 0 when all is done. The head's own piece is written last: until then
 * it says that it is being divided, and who frees a piece waits. */
GLOBAL int split_step(u32 splitter)
{
	struct split *split = bpf_map_lookup_elem(&split_now, &splitter);
	struct record *record;
	u32 word;

	if (!split || split->at >= split->end)
		return 0;
	record = record_at(split->at);
	if (!record)
		return 0;
	if (split->left) {
		put_piece(record, &split->copy, split->word);
		split->at += 1ULL << (split->to & 31);
		if (--split->left == 0) {
			record = record_at(split->head);
			if (record)
				publish(record, split->head_word, split->word);
		}
		return 1;
	}
	word = RECORD_WORD(record);
	if (!is_block(word)) {
		split->at += 1ULL << (split->to & 31);
		return 1;
	}
	if (order_in(word) <= split->to || order_in(word) - split->to > MAX_CLEARED ||
	    !claim(record, word)) {
		split->at += 1ULL << (order_in(word) & 31);
		return 1;
	}
	split->head = split->at;
	split->head_word = word;
	split->copy = *record;
	split->word = resized(word, split->to);
	split->left = (1U << ((order_in(word) - split->to) & 15)) - 1;
	if (state_in(word) == STATE_OWNED)
		hold_more(split->copy.task_id, split->left);
	split->at += 1ULL << (split->to & 31);
	return 1;
}

/* Up to so many steps; 0 when all is done. */
GLOBAL int split_steps(u32 splitter)
{
	u32 i;

	for (i = 0; i < CLEARED_AT_ONCE; i++)
		if (!split_step(splitter))
			return 0;
	return 1;
}

/* All blocks of more than 2**to pages that begin in this range become blocks of 2**to: in a block of
 * 2**MAX_CLEARED pages that many pieces, 10 to 20 ns each. */
GLOBAL int split_until(u64 pfn, u64 end, u32 to, u32 splitter)
{
	struct split *split = bpf_map_lookup_elem(&split_now, &splitter);
	u32 i;

	if (!split)
		return 0;
	split->at = pfn;
	split->end = end;
	split->left = 0;
	split->to = to;
	for (i = 0; i <= (1 << MAX_CLEARED) / CLEARED_AT_ONCE; i++)
		if (!split_steps(splitter))
			break;
	count(COUNT_SPLITS, 1);
	return 0;
}

/* All blocks of more than 2**to pages within the 2**order pages at pfn become blocks of 2**to. */
GLOBAL int split_range(u64 pfn, u32 order, u32 to, u32 splitter)
{
	struct record *record = record_at(pfn);
	u32 word;

	if (!record)
		return 0;
	word = RECORD_WORD(record);
	if (!is_block(word) || order_in(word) > order)
		isolate(pfn, order, 1);
	return split_until(pfn, pfn + (1ULL << (order & 31)), to, splitter);
}

/* The block at to takes over the owner of that at from, as __folio_copy_owner() does. */
GLOBAL int move_owner(u64 to, u64 from, u32 order, u32 reason)
{
	struct record *old = record_at(from), *new = record_for(to);
	struct record copy = {};
	u32 word, was, moves, state;

	if (!old || !new) {
		count(COUNT_OUT_OF_RANGE, 1);
		return 0;
	}
	word = RECORD_WORD(old);
	if (state_in(word) != STATE_EARLY && !(is_block(word) && order_in(word) == order))
		isolate(from, order, 1);
	word = copy_whole(old, &copy);
	count(COUNT_MIGRATED, 1);
	if (!is_block(word)) {
		state = state_in(word) == STATE_EARLY ? STATE_EARLY : STATE_NONE;
		word = RECORD_WORD(new);
		if (is_block(word))
			forget(new, word);
		/* Whoever moves a page does not own it: it stays early, or unknown. */
		clear_range(to, order, 0, state);
		return 0;
	}
	if (order)
		clear_range(to, order, 1, STATE_NONE);
	if (state_in(word) == STATE_OWNED)
		hold_more(copy.task_id, 1);
	moves = copy.moved >> 4;
	if (moves < 15)
		moves++;
	if (reason > 15)
		reason = 15;
	was = put(new, &copy, record_word(order_in(word), state_in(word), reason | moves << 4));
	if (is_held(was) && state_in(word) == STATE_OWNED)
		drop_task(copy.task_id, 1);
	return 0;
}

#endif
