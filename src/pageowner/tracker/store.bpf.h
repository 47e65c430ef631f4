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

/* order, state, migrate_reason and moves are one word, so that readers see all or nothing. */
#define RECORD_WORD(record) (*(volatile u32 *)&(record)->order)

INLINE u32 record_word(u8 order, u8 state, u8 migrate_reason, u8 moves)
{
	return order | state << 8 | migrate_reason << 16 | (u32)moves << 24;
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

/* ---- what an event does to the store ---- */

INLINE void forget(struct record *record)
{
	u32 id = record->task_id;
	u32 word = RECORD_WORD(record);

	RECORD_WORD(record) = 0;
	if (state_in(word) == STATE_OWNED)
		drop_task(id, 1);
}

/* No block begins at pfn: it gets the word 0, or that of an early page. */
GLOBAL int clear_one(u64 pfn, u32 word)
{
	struct record *record = record_at(pfn);
	u32 was;

	if (!record)
		return 0;
	was = RECORD_WORD(record);
	if (was == word)
		return 0;
	if (was)
		count(state_in(was) == STATE_EARLY ? COUNT_EARLY_FREED : COUNT_MERGES, 1);
	forget(record);
	if (word)
		RECORD_WORD(record) = word;
	return 0;
}

/* The same for page frames first .. 2**order - 1 after pfn. Of blocks beyond 1024 pages only the
 * beginning is looked at: their pages come from free memory, where no block begins.
 * (What loops many times calls functions that the verifier checks once.) */
GLOBAL int clear_range(u64 pfn, u32 order, u32 first, u32 word)
{
	u32 i, end = order < 10 ? 1U << (order & 15) : 1024;

	for (i = 0; i < 1024; i++) {
		if (first + i >= end)
			break;
		clear_one(pfn + first + i, word);
	}
	return 0;
}

INLINE void put(struct record *to, struct record *from, u32 word)
{
	RECORD_WORD(to) = 0;
	barrier();
	to->ts = from->ts;
	to->stack_id = from->stack_id;
	to->task_id = from->task_id;
	to->gfp_mask = from->gfp_mask;
	barrier();
	RECORD_WORD(to) = word;
}

/* A piece of a divided block, which holds a reference to its task. Where there is a record already
 * it is younger, and the block was stale there: it stays. */
INLINE void put_piece(struct record *to, struct record *from, u32 word)
{
	if (!is_block(RECORD_WORD(to)))
		put(to, from, word);
	else if (state_in(word) == STATE_OWNED)
		drop_task(from->task_id, 1);
}

/* A block begins at pfn; its task's reference passes to the record. */
GLOBAL int own(u64 pfn, u32 order, u32 gfp_mask, u32 stack, u32 task)
{
	struct record *record = record_for(pfn);
	struct record fresh = {};

	if (!record) {
		drop_task(task, 1);
		count(COUNT_OUT_OF_RANGE, 1);
		return 0;
	}
	if (is_block(RECORD_WORD(record))) {
		forget(record);
		count(COUNT_OVERWRITTEN, 1);
	}
	if (order)
		clear_range(pfn, order, 1, 0);
	if (order > top_order)
		top_order = order;
	fresh.ts = bpf_ktime_get_ns();
	fresh.stack_id = stack;
	fresh.task_id = task;
	fresh.gfp_mask = gfp_mask;
	put(record, &fresh, record_word(order, STATE_OWNED, 0, 0));
	return 0;
}

/* The same for a single page whose record is free for it, in place: nearly all are. 0: it is not. */
INLINE int own_page(struct record *record, u32 gfp_mask, u32 stack, u32 task)
{
	if (is_block(RECORD_WORD(record)))
		return 0;
	RECORD_WORD(record) = 0;
	barrier();
	record->ts = bpf_ktime_get_ns();
	record->stack_id = stack;
	record->task_id = task;
	record->gfp_mask = gfp_mask;
	barrier();
	RECORD_WORD(record) = record_word(0, STATE_OWNED, 0, 0);
	return 1;
}

/* A block begins at pfn that a filter leaves out. */
GLOBAL int own_filtered(u64 pfn, u32 order, u32 gfp_mask)
{
	struct record *record = record_for(pfn);
	struct record fresh = {};

	count(COUNT_FILTERED, 1);
	if (!record) {
		count(COUNT_OUT_OF_RANGE, 1);
		return 0;
	}
	if (is_block(RECORD_WORD(record))) {
		forget(record);
		count(COUNT_OVERWRITTEN, 1);
	}
	if (order)
		clear_range(pfn, order, 1, 0);
	if (order > top_order)
		top_order = order;
	fresh.gfp_mask = gfp_mask;
	put(record, &fresh, record_word(order, STATE_FILTERED, 0, 0));
	return 0;
}

/* Take the right to divide the block of this record; its word, or 0 if another CPU was first. */
INLINE u32 claim(struct record *record, u32 word)
{
	u32 divided = (word & ~0xff00U) | STATE_DIVIDED << 8;

	return __sync_val_compare_and_swap((u32 *)&record->order, word, divided) == word ? word : 0;
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
			put_piece(to, &copy, (word & ~0xffU) | size);
	}
	if (pfn != head) {
		if (keep) {
			to = record_at(pfn);
			if (to)
				put_piece(to, &copy, (word & ~0xffU) | order);
		}
		/* The head's piece: the largest that holds head and not pfn. */
		size = order_in(word);
		for (i = 0; i < MAX_BLOCK; i++) {
			size--;
			if ((pfn ^ head) >> (size & 31) & 1)
				break;
		}
		RECORD_WORD(from) = (word & ~0xffU) | size;
	} else if (keep) {
		RECORD_WORD(from) = (word & ~0xffU) | order;
	} else {
		RECORD_WORD(from) = 0;
	}
	count(COUNT_CARVES, 1);
	return 0;
}

#define ISOLATED 1
#define CONTENDED 2

/* One try of isolate(). */
GLOBAL int isolate_once(u64 pfn, u32 order, u32 keep)
{
	u32 size, word, top = top_order;
	struct record *record;
	u64 head;

	for (size = 0; size <= MAX_BLOCK; size++) {
		if (size > top)
			break;
		head = pfn & ~((1ULL << size) - 1);
		if (size && head == (pfn & ~((1ULL << (size - 1)) - 1)))
			continue;
		record = record_at(head);
		if (!record)
			break;
		word = RECORD_WORD(record);
		if (state_in(word) == STATE_DIVIDED)
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

	for (tries = 0; tries < 32; tries++) {
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
	return clear_range(pfn, order, 0, 0);
}

struct split {
	u64 at;             /* where we are */
	u64 end;
	u64 head;           /* of the block being divided; done when none of its pieces are left */
	struct record copy;
	u32 word;           /* of each piece */
	u32 left;
	u32 to;
	u32 spare;
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
				RECORD_WORD(record) = split->word;
		}
		return 1;
	}
	word = RECORD_WORD(record);
	if (!is_block(word)) {
		split->at += 1ULL << (split->to & 31);
		return 1;
	}
	if (order_in(word) <= split->to || order_in(word) - split->to > 10 ||
	    !claim(record, word)) {
		split->at += 1ULL << (order_in(word) & 31);
		return 1;
	}
	split->head = split->at;
	split->copy = *record;
	split->word = (word & ~0xffU) | split->to;
	split->left = (1U << ((order_in(word) - split->to) & 15)) - 1;
	if (state_in(word) == STATE_OWNED)
		hold_more(split->copy.task_id, split->left);
	split->at += 1ULL << (split->to & 31);
	return 1;
}

/* All blocks of more than 2**to pages that begin in this range become blocks of 2**to. */
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
	for (i = 0; i < 1024; i++)
		if (!split_step(splitter))
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
	struct record copy;
	u32 word, moves;

	if (!old || !new) {
		count(COUNT_OUT_OF_RANGE, 1);
		return 0;
	}
	word = RECORD_WORD(old);
	if (state_in(word) != STATE_EARLY && !(is_block(word) && order_in(word) == order))
		isolate(from, order, 1);
	copy = *old;
	word = RECORD_WORD(old);
	if (is_block(RECORD_WORD(new)))
		forget(new);
	count(COUNT_MIGRATED, 1);
	if (!is_block(word)) {
		/* Whoever moves a page does not own it: it stays early, or unknown. */
		clear_range(to, order, 0,
			    state_in(word) == STATE_EARLY ? record_word(0, STATE_EARLY, 0, 0) : 0);
		return 0;
	}
	if (order)
		clear_range(to, order, 1, 0);
	if (state_in(word) == STATE_OWNED)
		hold_more(copy.task_id, 1);
	moves = word >> 24;
	if (moves < 255)
		moves++;
	put(new, &copy, record_word(order_in(word), state_in(word), reason, moves));
	return 0;
}

#endif
