/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Blocks that do not stay whole: a part is taken out, given back, or the block is split; and owners
 * that move with what is migrated.
 */
#ifndef PAGEOWNER_SPLITTING_BPF_H
#define PAGEOWNER_SPLITTING_BPF_H

#include "shared.bpf.h"
#include "store.bpf.h"
#include "tasks.bpf.h"

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

	/* The pieces of a block that reaches beyond the end, as one does whose free was lost, are all
	 * written, so that it does not stay divided. */
	if (!split || (!split->left && split->at >= split->end))
		return 0;
	record = record_at(split->at);
	if (!record && !split->left)
		return 0;
	if (split->left) {
		if (record)
			put_piece(record, &split->copy, split->word);
		else if (state_in(split->word) == STATE_OWNED)
			drop_task(split->copy.task_id, 1);
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
	/* Twice as many steps as there are pages: the last block may reach beyond the end. */
	for (i = 0; i <= 2 * (1 << MAX_CLEARED) / CLEARED_AT_ONCE; i++)
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
