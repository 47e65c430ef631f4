// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The in-kernel half of the tracker: for every page frame, who allocated it.
 *
 * One file, read from top to bottom: parameters, maps, the store, tasks, stacks, what an event
 * does to the store, and one short program for each hook. The rules are those of the kernel's own
 * mm/page_owner.c; tests/spec/page_owner_spec.py says them again in plain Python.
 *
 * A record stands at the first page of a block only. Splits that no hook sees are made good when
 * a part of the block is freed: what remains is divided as the buddy allocator would, so that the
 * pages owned are exact whichever hooks are there.
 */
#include "bpf_abi.h"
#include "records.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* ---- what the kernel has: only the fields that we read ---- */

struct page {
	struct { int counter; } _refcount;
	struct { int counter; } _mapcount; /* shares its place with page_type */
} CORE;

/* The order of a folio: a byte of _flags_1 (a struct since 6.18), before 6.6 a field. */
struct folio___flags {
	unsigned long _flags_1;
} CORE;
struct folio___memdesc {
	struct { unsigned long f; } _flags_1;
} CORE;
struct folio___order {
	unsigned char _folio_order;
} CORE;
struct page___order {
	unsigned char compound_order; /* of the second page, before folios had it */
} CORE;
struct page___head {
	unsigned long compound_head;  /* of a tail page: its head + 1 */
} CORE;
enum pageflags { PG_head = 6 };


/* ---- parameters, set when loading ---- */

const volatile u64 vmemmap;        /* address of the struct page of pfn 0 */
const volatile u32 span_shift = 16;/* 2**span_shift page frames in each inner map of spans */
const volatile u32 depth = 16;     /* frames of a stack */
const volatile u32 stack_mask;     /* slots of stacks - 1, a power of two */
const volatile u32 task_mask;      /* slots of tasks - 1, a power of two */
const volatile u32 top_block = 10; /* MAX_PAGE_ORDER */
const volatile u8 free_side;       /* keep who freed */

/* Filters: what does not pass is recorded as STATE_FILTERED. */
const volatile u32 user_gfp;       /* leave out masks with all of these bits; 0: none */
const volatile u32 min_order;
const volatile u32 only_tgid;      /* 0: all */
const volatile u64 only_cgroup;    /* id of a cgroup v2, its descendants too; 0: all */
const volatile u32 cgroup_level;   /* its depth: 0 is the root */
const volatile u32 sample = 1;     /* keep one page of this many, by pfn */

/* Where arguments of kernel functions are, by this kernel's BTF; NOT_THERE if it has none such. */
#define NOT_THERE 255
const volatile u8 bulk_array = 4;          /* alloc_pages_bulk: the array; 5 before 6.14 */
const volatile u8 split_new_order = NOT_THERE;
const volatile u8 split_at = NOT_THERE;    /* __folio_split: the page that pieces shrink towards */
const volatile u8 split_uniform = NOT_THERE;/* ... unless this argument is split_uniform_value */
const volatile u8 split_uniform_value = 1;
const volatile u8 split_arguments = 2;     /* how many: the result follows them */
/* __GFP_COMP: a contiguous range is one compound page. */
const volatile u32 comp_gfp = 1 << 18;
const volatile u32 only_pid;           /* of the calibration */

/* Frames of the tracing itself at the top of a stack, by hook: found after attaching. In a map of
 * its own, since userspace writes it while the programs run. */
u32 skip_frames[HOOKS] SEC(".data.skip");
/* The largest order that any record has had: how far up to look for a containing block. */
u32 top_order;

/* ---- maps ---- */

/* The store: spans[pfn >> span_shift][pfn & mask], spans without page frames are not there. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, sizeof(u32));
	FIELD_NUMBER(max_entries, 1);
} spans SEC(".maps"), freed_spans SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, sizeof(struct task));
	FIELD_NUMBER(max_entries, 1);
} tasks SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, sizeof(struct stack)); /* made smaller when loading, by depth */
	FIELD_NUMBER(max_entries, 1);
} stacks SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct counters);
	FIELD_NUMBER(max_entries, 1);
} counters SEC(".maps");

/* Preallocated: the event comes with the zone's lock held. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, struct extfrag_key);
	FIELD_TYPE(value, struct extfrag);
	FIELD_NUMBER(max_entries, 4096);
} extfrag SEC(".maps");

/* Options and facts of `on` as JSON text; the programs do not read it. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(key_size, sizeof(u32));
	FIELD_NUMBER(value_size, 16384);
	FIELD_NUMBER(max_entries, 1);
} config SEC(".maps");

struct task_key {
	u64 pid_tgid;
	u64 cgroup_id;
	u64 comm[COMM_LEN / sizeof(u64)];
};

struct scratch {
	struct task_key key;       /* the current task */
	struct task_key cached;    /* the task of the last event on this CPU, and its id */
	u32 cached_id;
	u32 spare;
	u64 plain[2];              /* typed pointers go through here and come out as numbers */
	u64 frames[MAX_DEPTH];
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct scratch);
	FIELD_NUMBER(max_entries, HOOKS);
} scratches SEC(".maps");

/* Of tasks inside migrate_pages(): why. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, u32);
	FIELD_NUMBER(max_entries, 4096);
} migrating SEC(".maps");

/* Of tasks inside a split of a folio: what is split. */
struct splitting {
	u64 pfn;
	u64 order;
};

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct splitting);
	FIELD_NUMBER(max_entries, 4096);
} splits SEC(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct sighting);
	FIELD_NUMBER(max_entries, SIGHTINGS);
} sightings SEC(".maps");
u32 sighted;

/* ---- small things ---- */

INLINE void count(enum counter which, u64 n)
{
	u32 zero = 0;
	struct counters *all = bpf_map_lookup_elem(&counters, &zero);

	if (all)
		all->value[which] += n;
}

INLINE struct scratch *scratch_of(u32 hook)
{
	return bpf_map_lookup_elem(&scratches, &hook);
}

INLINE u64 page_to_pfn(u64 page)
{
	u64 size = core_type_size(struct page);

	/* One of the two is dead code once loaded: the size is then a constant. */
	if (size == 64)
		return (page - vmemmap) >> 6;
	return size ? (page - vmemmap) / size : 0;
}

INLINE u64 hash_step(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

/* ---- the store ---- */

INLINE void *span_of(u64 pfn)
{
	u64 span = pfn >> span_shift;
	u32 key = span;

	if (span > 0xffffffffULL)
		return NULL;
	return bpf_map_lookup_elem(&spans, &key);
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

/* ---- tasks ---- */

#define TASK_TAKING (1U << 31)
#define TASK_SLOT_MASK ((1U << TASK_SLOT_BITS) - 1)

INLINE struct task *task_at(u32 id)
{
	u32 slot = id & TASK_SLOT_MASK;

	return bpf_map_lookup_elem(&tasks, &slot);
}

/* Give back n references of a record's task. */
INLINE void drop_task(u32 id, u32 n)
{
	struct task *task = id ? task_at(id) : NULL;

	if (task)
		__sync_fetch_and_add(&task->refs, -n);
}

/* Take n more references where one is held already: the slot cannot go to another. */
INLINE void hold_more(u32 id, u32 n)
{
	struct task *task = id && n ? task_at(id) : NULL;

	if (task)
		__sync_fetch_and_add(&task->refs, n);
}

INLINE int same_task(struct task *task, struct task_key *key)
{
	u64 *comm = (u64 *)task->comm;

	return *(u64 *)&task->tgid == (key->pid_tgid >> 32 | key->pid_tgid << 32) &&
	       task->cgroup_id == key->cgroup_id && comm[0] == key->comm[0] &&
	       comm[1] == key->comm[1];
}

/* Take a reference to a slot that looked right, then see whether it is: with the reference held
 * it can no longer change. 0 if it was not. */
INLINE u32 hold_task(struct task *task, struct task_key *key)
{
	u32 before = __sync_fetch_and_add(&task->refs, 1);
	u32 id = *(volatile u32 *)&task->id;

	if (!(before & TASK_TAKING) && id && same_task(task, key))
		return id;
	__sync_fetch_and_add(&task->refs, -1);
	return 0;
}

INLINE u32 task_slot(u64 hash, u32 way)
{
	/* Two buckets of half the ways each: twice the choice makes full buckets rare. */
	u32 bucket = way < WAYS / 2 ? hash : hash >> 32;

	return ((bucket & ~(u32)(WAYS / 2 - 1)) | (way & (WAYS / 2 - 1))) & task_mask;
}

/* The id of scratch->key with one reference, from the table or put there; 0: the table is full
 * of tasks that own pages. */
GLOBAL u32 find_task(u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct task_key *key;
	struct task *task;
	u32 way, id, slot;
	u64 hash;

	if (!scratch)
		return 0;
	key = &scratch->key;
	hash = hash_step(hash_step(hash_step(hash_step(0, key->pid_tgid), key->cgroup_id),
				   key->comm[0]), key->comm[1]);
	for (way = 0; way < WAYS; way++) {
		task = task_at(task_slot(hash, way));
		if (!task || !same_task(task, key))
			continue;
		id = hold_task(task, key);
		if (id)
			return id;
	}
	for (way = 0; way < WAYS; way++) {
		slot = task_slot(hash, way);
		task = task_at(slot);
		if (!slot || !task || *(volatile u32 *)&task->refs)
			continue;
		if (__sync_val_compare_and_swap(&task->refs, 0, TASK_TAKING))
			continue;
		id = task->id + (1U << TASK_SLOT_BITS);
		if (!(id >> TASK_SLOT_BITS)) /* generation 0 is left out: no id is 0 */
			id = 1U << TASK_SLOT_BITS;
		id = (id & ~TASK_SLOT_MASK) | slot;
		*(volatile u32 *)&task->id = 0;
		barrier();
		*(u64 *)&task->tgid = key->pid_tgid >> 32 | key->pid_tgid << 32;
		task->cgroup_id = key->cgroup_id;
		((u64 *)task->comm)[0] = key->comm[0];
		((u64 *)task->comm)[1] = key->comm[1];
		barrier();
		*(volatile u32 *)&task->id = id;
		/* Others may have added and taken back their reference meanwhile: add, not set. */
		__sync_fetch_and_add(&task->refs, 1 - TASK_TAKING);
		count(COUNT_TASKS_TAKEN, 1);
		return id;
	}
	count(COUNT_TASKS_FULL, 1);
	return 0;
}

/* The id of the current task, with one reference. */
INLINE u32 task_id(u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct task_key *key, *cached;
	struct task *task;
	u32 id;

	if (!scratch)
		return 0;
	key = &scratch->key;
	cached = &scratch->cached;
	key->pid_tgid = bpf_get_current_pid_tgid();
	key->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(key->comm, COMM_LEN);
	if (scratch->cached_id && key->pid_tgid == cached->pid_tgid &&
	    key->cgroup_id == cached->cgroup_id && key->comm[0] == cached->comm[0] &&
	    key->comm[1] == cached->comm[1]) {
		task = task_at(scratch->cached_id);
		id = task ? hold_task(task, key) : 0;
		if (id)
			return id;
	}
	id = find_task(hook);
	*cached = *key;
	scratch->cached_id = id;
	return id;
}

/* ---- stacks ---- */

INLINE struct stack *stack_at(u32 slot)
{
	return bpf_map_lookup_elem(&stacks, &slot);
}

/* Whether a slot holds the frames in scratch, of which those past the end are 0. */
GLOBAL int same_stack(u32 slot, u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct stack *stack = stack_at(slot);
	u64 differ = 0;
	u32 i;

	if (!scratch || !stack)
		return 0;
	for (i = 0; i < MAX_DEPTH && i < depth; i++)
		differ |= stack->frames[i] ^ scratch->frames[i];
	return differ == 0;
}

GLOBAL int write_stack(u32 slot, u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	struct stack *stack = stack_at(slot);
	u32 i;

	if (!scratch || !stack)
		return 0;
	for (i = 0; i < MAX_DEPTH && i < depth; i++)
		stack->frames[i] = scratch->frames[i];
	return 0;
}

/* The slot of a stack of n frames in scratch, found or made; 0: no room. */
GLOBAL u32 find_stack(u32 hook, u32 n, u64 hash)
{
	struct stack *stack;
	u32 way, slot, bucket = hash >> 32;
	u64 held;

	for (way = 0; way < WAYS; way++) {
		slot = (bucket + way) & stack_mask;
		stack = stack_at(slot);
		if (!slot || !stack)
			continue;
		held = *(volatile u64 *)&stack->hash;
		if (!held)
			held = __sync_val_compare_and_swap(&stack->hash, 0, hash);
		if (!held) {
			write_stack(slot, hook);
			barrier();
			*(volatile u32 *)&stack->n = n;
			return slot;
		}
		/* While another CPU writes it, nothing proves that it is ours: take a slot of
		 * our own; readers compare stacks by their frames. */
		if (held != hash || *(volatile u32 *)&stack->n != n)
			continue;
		barrier();
		if (same_stack(slot, hook))
			return slot;
		count(COUNT_STACK_COLLISIONS, 1);
	}
	count(COUNT_STACKS_FULL, 1);
	return 0;
}

/*
 * The id of the current stack: the only place that knows how stacks are found.
 * The size of the buffer is a constant of loading; skipped are the frames of the tracing itself.
 */
INLINE u32 stack_id(void *context, u32 hook)
{
	struct scratch *scratch = scratch_of(hook);
	u64 hash = 0;
	long size;
	u32 n, i;

	if (!scratch)
		return 0;
	size = bpf_get_stack(context, scratch->frames, depth * sizeof(u64),
			     skip_frames[hook] & 0xff);
	if (size < (long)sizeof(u64)) {
		count(COUNT_STACKS_FAILED, 1);
		return 0;
	}
	n = size / sizeof(u64);
	for (i = 0; i < MAX_DEPTH && i < depth; i++) {
		if (i >= n)
			scratch->frames[i] = 0;
		hash = hash_step(hash, scratch->frames[i]);
	}
	return find_stack(hook, n, hash ? hash : 1);
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
	struct record *record = record_at(pfn);
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

/* A block begins at pfn that a filter leaves out. */
GLOBAL int own_filtered(u64 pfn, u32 order, u32 gfp_mask)
{
	struct record *record = record_at(pfn);
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

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct split);
	FIELD_NUMBER(max_entries, 1);
} split_now SEC(".maps");

/* One piece of a split; 0 when all is done. The head's own piece is written last: until then
 * it says that it is being divided, and who frees a piece waits. */
GLOBAL int split_step(void)
{
	u32 zero = 0, word;
	struct split *split = bpf_map_lookup_elem(&split_now, &zero);
	struct record *record;

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

/* All blocks of more than 2**to pages within the 2**order pages at pfn become blocks of 2**to. */
GLOBAL int split_range(u64 pfn, u32 order, u32 to)
{
	u32 i, zero = 0, word;
	struct split *split = bpf_map_lookup_elem(&split_now, &zero);
	struct record *record = record_at(pfn);

	if (!split || !record)
		return 0;
	word = RECORD_WORD(record);
	if (!is_block(word) || order_in(word) > order)
		isolate(pfn, order, 1);
	split->at = pfn;
	split->end = pfn + (1ULL << (order & 31));
	split->left = 0;
	split->to = to;
	for (i = 0; i < 1024; i++)
		if (!split_step())
			break;
	count(COUNT_SPLITS, 1);
	return 0;
}

/* The block at to takes over the owner of that at from, as __folio_copy_owner() does. */
GLOBAL int move_owner(u64 to, u64 from, u32 order, u32 reason)
{
	struct record *old = record_at(from), *new = record_at(to);
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

/* ---- the events ---- */

INLINE int passes(u64 pfn, u32 order, u32 gfp_mask)
{
	if (user_gfp && (gfp_mask & user_gfp) == user_gfp)
		return 0;
	if (order < min_order)
		return 0;
	if (only_tgid && bpf_get_current_pid_tgid() >> 32 != only_tgid)
		return 0;
	if (only_cgroup && bpf_get_current_ancestor_cgroup_id(cgroup_level) != only_cgroup)
		return 0;
	if (sample > 1 && (hash_step(1, pfn) >> 33) % sample)
		return 0;
	return 1;
}

INLINE void allocated(void *context, u64 pfn, u32 order, u32 gfp_mask, u32 hook)
{
	if (passes(pfn, order, gfp_mask))
		own(pfn, order, gfp_mask, stack_id(context, hook), task_id(hook));
	else
		own_filtered(pfn, order, gfp_mask);
}

INLINE void keep_free_side(void *context, u64 pfn)
{
	u64 span = pfn >> span_shift;
	u32 key = span, slot = pfn & ((1U << span_shift) - 1);
	struct freed *freed;
	void *inner;
	u32 task;

	inner = bpf_map_lookup_elem(&freed_spans, &key);
	if (!inner)
		return;
	freed = bpf_map_lookup_elem(inner, &slot);
	if (!freed)
		return;
	task = task_id(HOOK_FREE);
	freed->ts = bpf_ktime_get_ns();
	freed->stack_id = stack_id(context, HOOK_FREE);
	freed->task_id = task;
	drop_task(task, 1);
}

INLINE void was_freed(u64 pfn, u32 order)
{
	struct record *record = record_at(pfn);
	u32 word;

	if (!record) {
		count(COUNT_OUT_OF_RANGE, 1);
		return;
	}
	word = RECORD_WORD(record);
	if (is_block(word) && order_in(word) == order)
		forget(record);
	else
		free_part(pfn, order);
}

/* ---- hooks that every kernel has ---- */

/* mm_page_alloc(page, order, gfp_flags, migratetype); page is NULL when nothing was found */
SEC("raw_tp/mm_page_alloc")
int on_alloc(u64 *context)
{
	if (!context[0])
		return 0;
	count(COUNT_ALLOCS, 1);
	allocated(context, page_to_pfn(context[0]), context[1], context[2], HOOK_ALLOC);
	return 0;
}

/* mm_page_free(page, order) */
SEC("raw_tp/mm_page_free")
int on_free(u64 *context)
{
	u64 pfn = page_to_pfn(context[0]);

	count(COUNT_FREES, 1);
	was_freed(pfn, context[1]);
	if (free_side)
		keep_free_side(context, pfn);
	return 0;
}

/* mm_page_alloc_extfrag(page, alloc_order, fallback_order, alloc_migratetype,
 * fallback_migratetype) */
SEC("raw_tp/mm_page_alloc_extfrag")
int on_extfrag(u64 *context)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct extfrag_key key = {
		.stack_id = stack_id(context, HOOK_EXTFRAG),
		.tgid = pid_tgid >> 32,
		.pid = pid_tgid,
		.alloc_order = context[1],
		.fallback_order = context[2],
		.alloc_migratetype = context[3],
		.fallback_migratetype = context[4],
	};
	struct extfrag first = {.count = 1, .last_ts = bpf_ktime_get_ns()}, *known;

	bpf_get_current_comm(key.comm, COMM_LEN);
	count(COUNT_EXTFRAG, 1);
	known = bpf_map_lookup_elem(&extfrag, &key);
	if (known) {
		__sync_fetch_and_add(&known->count, 1);
		known->last_ts = first.last_ts;
	} else if (bpf_map_update_elem(&extfrag, &key, &first, BPF_NOEXIST)) {
		count(COUNT_EXTFRAG_FULL, 1);
	}
	return 0;
}

/* ---- hooks that a kernel may lack or refuse ---- */

/* An argument of a traced function, or after the last its result: read as plain memory, since the
 * verifier of older kernels refuses pointers to pointers and arithmetic on typed ones. */
INLINE u64 argument(u64 *context, u32 n)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), context + n);
	return value;
}

INLINE u64 head_of(u64 page)
{
	u64 head = 0;

	if (core_field_exists(((struct page___head *)0)->compound_head))
		bpf_probe_read_kernel(&head, sizeof(head), (void *)(page +
			core_field_offset(((struct page___head *)0)->compound_head)));
	return head & 1 ? head - 1 : page;
}

/* folio_order() of a head page. */
INLINE u32 order_of(u64 page)
{
	u64 flags = 0, second = page + core_type_size(struct page);
	u8 order = 0;

	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)page);
	if (!(flags >> core_enum_value(enum pageflags, PG_head) & 1))
		return 0;
	if (core_field_exists(((struct folio___memdesc *)0)->_flags_1))
		bpf_probe_read_kernel(&order, 1, (void *)(page +
			core_field_offset(((struct folio___memdesc *)0)->_flags_1)));
	else if (core_field_exists(((struct folio___flags *)0)->_flags_1) &&
		 !core_field_exists(((struct folio___order *)0)->_folio_order))
		bpf_probe_read_kernel(&order, 1, (void *)(page +
			core_field_offset(((struct folio___flags *)0)->_flags_1)));
	else if (core_field_exists(((struct folio___order *)0)->_folio_order))
		bpf_probe_read_kernel(&order, 1, (void *)(page +
			core_field_offset(((struct folio___order *)0)->_folio_order)));
	else if (core_field_exists(((struct page___order *)0)->compound_order))
		bpf_probe_read_kernel(&order, 1, (void *)(second +
			core_field_offset(((struct page___order *)0)->compound_order)));
	return order <= MAX_BLOCK ? order : 0;
}

/* One page of a bulk allocation; those that are known were in the caller's array before, or came
 * through the tracepoint. */
GLOBAL int own_bulk(u64 pfn, u32 gfp_mask, u32 stack, u32 task)
{
	struct record *record = record_at(pfn);

	if (record && RECORD_WORD(record))
		return 0;
	count(COUNT_BULK, 1);
	if (!passes(pfn, 0, gfp_mask))
		return own_filtered(pfn, 0, gfp_mask);
	hold_more(task, 1);
	return own(pfn, 0, gfp_mask, stack, task);
}

GLOBAL int own_bulk_at(u64 place, u32 gfp_mask, u32 stack, u32 task)
{
	u64 page = 0;

	if (bpf_probe_read_kernel(&page, sizeof(page), (void *)place) || !page)
		return 0;
	return own_bulk(page_to_pfn(page), gfp_mask, stack, task);
}

#define BULK_PAGES 1024

/* alloc_pages_bulk(gfp, preferred_nid, nodemask, nr_pages, [page_list,] page_array): the pages
 * now in the array. It has no tracepoint. */
SEC("fexit")
int on_bulk(u64 *context)
{
	u64 array = argument(context, bulk_array), n = argument(context, bulk_array + 1);
	u32 gfp_mask = argument(context, 0), i, stack, task;

	if (!array || !n)
		return 0;
	stack = stack_id(context, HOOK_BULK);
	task = task_id(HOOK_BULK);
	for (i = 0; i < BULK_PAGES; i++) {
		if (i >= n)
			break;
		own_bulk_at(array + i * sizeof(u64), gfp_mask, stack, task);
	}
	if (n > BULK_PAGES)
		count(COUNT_BULK_MISSED, n - BULK_PAGES);
	drop_task(task, 1);
	return 0;
}

/* The pages of a contiguous range: one block if it is compound, else blocks as large as fit. (The
 * kernel counts single pages then; a part that is freed divides its block.) */
GLOBAL int own_range(u64 start, u64 end, u32 gfp_mask, u32 stack, u32 task)
{
	u32 i, order;

	for (i = 0; i < 2 * MAX_BLOCK; i++) {
		if (start >= end)
			break;
		for (order = 0; order < MAX_BLOCK; order++)
			if ((start >> (order & 31) & 1) || start + (2ULL << (order & 31)) > end)
				break;
		if (passes(start, order, gfp_mask)) {
			hold_more(task, 1);
			own(start, order, gfp_mask, stack, task);
		} else {
			own_filtered(start, order, gfp_mask);
		}
		start += 1ULL << (order & 31);
	}
	count(COUNT_CONTIG, 1);
	return 0;
}

/* alloc_contig_range(start, end, flags, gfp_mask): CMA, gigantic pages */
SEC("fexit")
int on_contig(u64 *context)
{
	u32 task;

	if ((u32)argument(context, 4))
		return 0;
	task = task_id(HOOK_CONTIG);
	own_range(argument(context, 0), argument(context, 1), argument(context, 3),
		  stack_id(context, HOOK_CONTIG), task);
	drop_task(task, 1);
	return 0;
}

/* folio_migrate_flags(new, old), before 5.16 migrate_page_states */
SEC("fentry")
int on_migrate(u64 *context)
{
	u64 new = argument(context, 0), old = argument(context, 1);
	u32 pid = bpf_get_current_pid_tgid();
	u32 *reason = bpf_map_lookup_elem(&migrating, &pid);

	move_owner(page_to_pfn(new), page_to_pfn(old), order_of(old), reason ? *reason : 0);
	return 0;
}

/* mm_migrate_pages_start(mode, reason) and mm_migrate_pages(...), in the task that migrates */
SEC("raw_tp/mm_migrate_pages_start")
int on_migrate_start(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid(), reason = (u32)context[1] + 1;

	bpf_map_update_elem(&migrating, &pid, &reason, BPF_ANY);
	return 0;
}

SEC("raw_tp/mm_migrate_pages")
int on_migrate_end(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid();

	(void)context;
	bpf_map_delete_elem(&migrating, &pid);
	return 0;
}

/* split_page(page, order): a block that is not compound becomes single pages */
SEC("fentry")
int on_split_page(u64 *context)
{
	split_range(page_to_pfn(argument(context, 0)), (u32)argument(context, 1), 0);
	return 0;
}

/* The functions that split a folio may fail, and free a part of it when they do not: note what
 * there was, and look at what is left at the end. */
SEC("fentry")
int on_split_enter(u64 *context)
{
	u64 page = head_of(argument(context, 0));
	struct splitting splitting = {.pfn = page_to_pfn(page), .order = order_of(page)};
	u32 pid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&splits, &pid, &splitting, BPF_ANY);
	return 0;
}

SEC("fexit")
int on_split_exit(u64 *context)
{
	u32 pid = bpf_get_current_pid_tgid(), to = 0, order;
	struct splitting *splitting = bpf_map_lookup_elem(&splits, &pid);
	u64 pfn, at;

	if (!splitting)
		return 0;
	pfn = splitting->pfn;
	order = splitting->order;
	bpf_map_delete_elem(&splits, &pid);
	if ((u32)argument(context, split_arguments))
		return 0;
	if (split_new_order != NOT_THERE)
		to = argument(context, split_new_order);
	if (split_at != NOT_THERE && split_uniform != NOT_THERE &&
	    (u8)argument(context, split_uniform) != split_uniform_value) {
		at = page_to_pfn(argument(context, split_at));
		count(COUNT_SPLITS, 1);
		isolate(at & ~((1ULL << (to & 31)) - 1), to, 1);
		return 0;
	}
	split_range(pfn, order, to);
	return 0;
}

/* ---- run from userspace ---- */

/* Of the early pages at context[0] .. + 511, forget those whose bit in the next 8 words is set:
 * they were free when tracking had begun. An event that came meanwhile wins. */
SEC("raw_tp")
int settle(u64 *context)
{
	u64 pfn = context[0], bits = 0;
	struct record *record;
	u32 i, early = record_word(0, STATE_EARLY, 0, 0);

	for (i = 0; i < 512; i++) {
		if (i == 0)
			bits = context[1];
		else if (i == 64)
			bits = context[2];
		else if (i == 128)
			bits = context[3];
		else if (i == 192)
			bits = context[4];
		else if (i == 256)
			bits = context[5];
		else if (i == 320)
			bits = context[6];
		else if (i == 384)
			bits = context[7];
		else if (i == 448)
			bits = context[8];
		if (bits >> (i & 63) & 1) {
			record = record_at(pfn + i);
			if (record)
				__sync_val_compare_and_swap((u32 *)&record->order, early, 0);
		}
	}
	return 0;
}

/* What the hooks above do to the store, on made-up arguments: for tests, on kernels that refuse to
 * load those. Bulk and contiguous allocations are by the task and the stack of the test. */
SEC("raw_tp")
int made_up(u64 *context)
{
	u32 task;

	switch (context[0]) {
	case HOOK_BULK:
		task = task_id(HOOK_BULK);
		own_bulk(context[1], context[2], stack_id(context, HOOK_BULK), task);
		drop_task(task, 1);
		break;
	case HOOK_CONTIG:
		task = task_id(HOOK_CONTIG);
		own_range(context[1], context[2], context[3], stack_id(context, HOOK_CONTIG), task);
		drop_task(task, 1);
		break;
	case HOOK_MIGRATE:
		move_owner(context[1], context[2], context[3], context[4]);
		break;
	case HOOK_SPLIT:
		split_range(context[1], context[2], context[3]);
		break;
	case HOOKS:
		isolate(context[1], context[2], 1);
		break;
	}
	return 0;
}

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, u32);
	FIELD_TYPE(value, struct question);
	FIELD_NUMBER(max_entries, QUESTIONS);
} questions SEC(".maps");

/* Answer the first context[0] questions: /proc/kpageflags does not tell a page on a CPU's list
 * of free pages (reference count 0) from one in use by the kernel. */
SEC("raw_tp")
int look(u64 *context)
{
	u32 references = core_field_offset(((struct page *)0)->_refcount);
	u32 type = core_field_offset(((struct page *)0)->_mapcount);
	u64 n = context[0], bytes[8] = {};
	struct question *question;
	u32 i, key;

	for (i = 0; i < QUESTIONS; i++) {
		if (i >= n)
			break;
		key = i;
		question = bpf_map_lookup_elem(&questions, &key);
		if (!question)
			break;
		question->refcount = -1;
		if (references > sizeof(bytes) - 4 || type > sizeof(bytes) - 4 ||
		    bpf_probe_read_kernel(bytes, sizeof(bytes), (void *)(vmemmap +
			    question->pfn * core_type_size(struct page))))
			continue;
		question->flags = bytes[0];
		question->refcount = *(s32 *)((char *)bytes + references);
		question->type = *(u32 *)((char *)bytes + type);
	}
	return 0;
}

/* What the raw tracepoint says of the allocations of one thread; the classic one tells their
 * pfns, and so where struct pages are and which frames of a stack are the tracing's. */
SEC("raw_tp/mm_page_alloc")
int calibrate(u64 *context)
{
	u32 at = sighted;
	struct sighting *sighting;
	long size;

	if (!context[0] || (u32)bpf_get_current_pid_tgid() != only_pid)
		return 0;
	sighting = bpf_map_lookup_elem(&sightings, &at);
	if (!sighting)
		return 0;
	sighting->page = context[0];
	sighting->order = context[1];
	sighting->gfp_mask = context[2];
	size = bpf_get_stack(context, sighting->frames, sizeof(sighting->frames), 0);
	sighting->n = size > 0 ? size / sizeof(u64) : 0;
	sighted = at + 1;
	return 0;
}
